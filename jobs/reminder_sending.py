"""Sending through Apprise, the only module here that knows it: a URL for each type of reminder, from the environment.

``REMINDER_SMS_URL`` is for SMS, and so on. It is any Apprise URL with ``{to}`` in place of the customer's address, as
in ``twilio://SID:TOKEN@+14155550111/{to}`` or ``mailtos://USER:PASSWORD@mail.example/?to={to}``. Other recipients can
only get a bcc. URLs are secrets: no part of one is in a log line, an error or the database. The log records of Apprise
and its libraries are read here and not passed on. Only an HTTP or SMTP status is taken from them, or that there was no
connection.

Providers have no idempotency key, so of each answer it matters whether the message may have been taken:

==========================================  ==============================================================
it was taken                                ``sent``
HTTP 4xx, SMTP 5xx: it surely was not       ``refused``: not tried again
no connection, HTTP 408, 425, 429, 503,     ``postponed``: tried again, also by later runs
SMTP 4xx: it surely was not
anything else, no answer above all          ``unknown``: it may have been, so it is never tried again
==========================================  ==============================================================
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from rq.timeouts import BaseTimeoutException

from jobs.reminder_types import REMINDER_TYPES, ReminderType
from rqmem.errors import ConfigError
from rqmem.text import did_you_mean

PAUSES = (1.0, 4.0, 15.0)  # seconds before a message is tried again
DOWN_IN_A_ROW, REFUSED_IN_A_ROW = 3, 20
TO = "{to}"

_SAMPLES = {"email": "reminder@example.com", "phone": "+14155550100", "push_token": "0" * 64}
_LOGGERS = ("apprise", "urllib3", "requests")
_AGAIN = (408, 425, 429, 503)
_NOT_CONNECTED = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|SSLCertVerificationError|CERTIFICATE_VERIFY_FAILED"
    r"|Connection refused|Network is unreachable|No route to host|Name or service not known|name resolution"
)
_NO_MAIL_YET = "Connection error while submitting email"  # Apprise: before the mail; if in it, it says other words


@dataclass(frozen=True)
class Answer:
    """The outcome of a message, and ``why``. ``trouble``: what it means for the provider or for our account there."""

    status: Literal["sent", "refused", "postponed", "doubted", "unknown"]
    why: str | None = None
    trouble: Literal["", "down", "key"] = ""


SENT = Answer("sent")
UNUSABLE = Answer("refused", "the service cannot use this address")


def answer_of(heard: str, address: str = "") -> Answer:
    """The outcome of a failed message to that address, by what was logged about it. Pure."""
    refused = dict(re.findall(r"SMTP recipient (\S+) was refused: ([45]\d\d)\b", heard))
    if refused:  # not all: of those who get a copy, perhaps
        return _of_smtp(int(refused[address])) if address in refused else SENT
    if found := re.search(r"error=(\d{3})\b", heard):
        return _of_http(int(found[1]))
    if found := re.search(r"\(([45]\d\d), b['\"]", heard):
        return _of_smtp(int(found[1]))
    if _NOT_CONNECTED.search(heard) or _NO_MAIL_YET in heard:
        return Answer("postponed", "it could not be reached", "down")
    if re.search(r"(?i)\bno\b.*\bto notify", heard):
        return UNUSABLE
    return Answer("unknown", "there was no clear answer", "down")


def _of_http(status: int) -> Answer:
    why = f"it answered HTTP {status}"
    if status in (401, 407):
        return Answer("postponed", why, "key")
    if status in _AGAIN:
        return Answer("postponed", why, "down")
    return Answer("refused", why) if 400 <= status < 500 else Answer("unknown", why, "down")


def _of_smtp(status: int) -> Answer:
    why = f"it answered SMTP {status}"
    if status in (530, 534, 535, 538):  # RFC 4954: authentication
        return Answer("postponed", why, "key")
    return Answer("refused", why) if status >= 500 else Answer("postponed", why, "down")


def trouble_in(answers: Sequence[Answer], *, takes_others: bool = False) -> Literal["", "down", "key"]:
    """What a provider's last answers, oldest first, mean. ``key``: it refuses our account and not a message. Pure.

    ``takes_others``: it has just taken other messages, so it refuses these messages themselves.
    """
    if answers and answers[-1].trouble == "key":
        return "key"
    refused = len(answers) >= REFUSED_IN_A_ROW and all(each.status == "refused" for each in answers[-REFUSED_IN_A_ROW:])
    if refused and not takes_others:
        return "key"
    down = len(answers) >= DOWN_IN_A_ROW and all(each.trouble == "down" for each in answers[-DOWN_IN_A_ROW:])
    return "down" if down else ""


def variable(rule: ReminderType) -> str:
    """The environment variable with the URL for reminders of this type."""
    return f"REMINDER_{rule.name.upper()}_URL"


class Channel:
    def __init__(self, rule: ReminderType, url: str, apprise: Any, heard: _Heard) -> None:
        self.rule = rule
        self._url = url
        self._apprise = apprise
        self._asset = apprise.AppriseAsset(app_id="Reminders", secure_logging=True)
        self._heard = heard
        sample = _SAMPLES[rule.address]
        plugin = self._plugin(sample)
        if plugin is None:
            raise ConfigError(f"{variable(rule)} cannot be used: {_unusable(url, apprise)}")
        if len(plugin) > 1 + getattr(plugin, "retry", 0) or _misread(plugin, sample):
            # Where sending to one of them fails, the others would get the message again and again.
            raise ConfigError(f"{variable(rule)} has other recipients than {TO}: leave these out, or make them bcc")

    def send(self, address: str, title: str, body: str, pauses: Sequence[float] = PAUSES) -> Answer:
        """Send a message. If it surely was not taken, try again after each of the pauses, in seconds."""
        answer = self._send_once(address, title, body)
        for pause in pauses:
            if answer.status != "postponed" or answer.trouble == "key":
                break
            time.sleep(pause)
            answer = self._send_once(address, title, body)
        return answer

    def _send_once(self, address: str, title: str, body: str) -> Answer:
        self._heard.forget()
        plugin = self._plugin(address)
        if plugin is None or _misread(plugin, address):
            return UNUSABLE
        try:
            taken = plugin.notify(body=body, title=title, body_format=self._apprise.NotifyFormat.TEXT)
        except BaseTimeoutException:  # the job's own time limit
            raise
        except Exception as error:  # noqa: BLE001 (whatever a plugin raises; its text may hold the URL)
            return Answer("unknown", f"sending failed with {type(error).__name__}", "down")
        return SENT if taken else answer_of(self._heard.text, address)

    def _plugin(self, address: str) -> Any:
        url = self._url.replace(TO, quote(address, safe=""))
        try:
            return self._apprise.Apprise.instantiate(url, asset=self._asset, suppress_exceptions=False)
        except BaseTimeoutException:
            raise
        except Exception:  # noqa: BLE001 (as above; what is wrong with the URL `_unusable` says)
            return None


def _misread(plugin: Any, address: str) -> bool:
    """Whether a mail would go to somebody else: of ``o'neil@example.com`` Apprise takes ``o`` for the name of neil@."""
    if "@" not in address:
        return False
    targets = getattr(plugin, "targets", None) or ()  # addresses, or pairs of name and address
    parts = [part for each in targets for part in ((each,) if isinstance(each, str) else each)]
    return any(isinstance(part, str) and "@" in part and part.lower() != address.lower() for part in parts)


@contextmanager
def channels(types: Sequence[ReminderType] | None, environ: Mapping[str, str]) -> Iterator[list[Channel]]:
    """A channel for each of the types; None: for each type that has a URL. Apprise's log records are captured.

    Raises:
        ConfigError: a URL is missing or cannot be used, or Apprise is not installed.
    """
    urls = {each.name: environ.get(variable(each), "").strip() for each in REMINDER_TYPES.values()}
    chosen = [each for each in REMINDER_TYPES.values() if urls[each.name]] if types is None else types
    if not chosen:
        names = ", ".join(variable(each) for each in REMINDER_TYPES.values())
        raise ConfigError(f"no reminder can be sent: none of {names} is set; give the worker a URL of Apprise's")
    for each in chosen:
        if not urls[each.name]:
            raise ConfigError(f"{variable(each)} is not set: give the worker a URL of Apprise's for {each.name}")
        if TO not in urls[each.name]:
            raise ConfigError(f"{variable(each)} has no {TO} in it, where the customer's address goes")
    try:
        import apprise  # 20 MB: only where something is sent
    except ImportError:
        raise ConfigError("sending reminders needs Apprise: pip install 'rqmem[notify]'") from None
    with _hearing() as heard:
        yield [Channel(each, urls[each.name], apprise, heard) for each in chosen]


def _unusable(url: str, apprise: Any) -> str:
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]{0,19})://", url)
    if found is None:
        return "it must begin with a service, as in twilio://… (https://github.com/caronc/apprise/wiki)"
    scheme, services = found[1].lower(), apprise.Apprise().details()["schemas"]
    kinds = ("protocols", "secure_protocols")
    known = [each for service in services for kind in kinds for each in service[kind] or ()]
    if scheme in known:
        return f"what follows {scheme}:// is not what that service needs, or a package that it needs is not installed"
    hint = did_you_mean(scheme, known)
    return f"Apprise has no service {scheme}://{hint and f'; {hint}'}"


class _Heard(logging.Handler):
    """Collects the log records about a message that say why it was not taken."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if re.search(rf"(?i)error=|exception|refused|to notify|{_NO_MAIL_YET}", line):
            self.text = f"{self.text}{line[:2000]}\n"[-8000:]

    def forget(self) -> None:
        """The next message begins."""
        self.text = ""


@contextmanager
def _hearing() -> Iterator[_Heard]:
    """Capture the records of these loggers. Afterwards the loggers are as before."""
    heard = _Heard()
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(each.handlers[:], each.level, each.propagate) for each in loggers]
    for each in loggers:
        each.handlers[:], each.propagate = [heard], False
        each.setLevel(logging.DEBUG)
    try:
        yield heard
    finally:
        for each, (handlers, level, propagate) in zip(loggers, before, strict=True):
            each.handlers[:], each.propagate = handlers, propagate
            each.setLevel(level)
