"""The only module that knows Apprise: one URL as a service that takes messages.

Promises: no part of a URL gets out. The reason why a message was not taken is in our own words. Of what Apprise and its
libraries say, only an HTTP status is used, and `keep_others_quiet` keeps their lines out of every log.
"""

from __future__ import annotations

import difflib
import logging
import re
import threading
import warnings
from collections.abc import Sequence
from typing import Any

from rqmem.alerts.addresses import Address
from rqmem.alerts.messages import Message
from rqmem.errors import ConfigError

_REASONS = (
    (r"error=(\d{3})\b", "it answered HTTP {}"),
    (r"(?i)\bconnection error\b|\btimed? ?out\b|socket", "it cannot be reached"),
)


class Service:
    """Where messages are sent. For one thread."""

    def __init__(self, address: Address, plugin: Any, apprise: Any, heard: _Heard) -> None:
        self.shown = address.shown
        self._plugin = plugin
        self._apprise = apprise
        self._heard = heard

    def send(self, message: Message) -> str:
        """Send it; ``""`` when it was taken, else why not."""
        self._heard.forget()
        kind, plain = self._apprise.NotifyType(message.kind), self._apprise.NotifyFormat.TEXT
        try:
            # Of plain text a service that shows HTML or Markdown makes its own.
            taken = self._plugin.notify(body=message.body, title=message.title, notify_type=kind, body_format=plain)
        except Exception as error:  # noqa: BLE001 (whatever a plugin raises; its text may hold the URL)
            return f"sending failed with {type(error).__name__}"
        return "" if taken else self._heard.reason()


def services(addresses: Sequence[Address]) -> list[Service]:
    """A service for each address.

    Raises:
        ConfigError: Apprise is not installed, or cannot use a URL.
    """
    try:
        import apprise
    except ImportError:
        raise ConfigError("sending alerts needs Apprise: pip install 'rqmem[notify]'") from None
    heard = _Heard()
    logger = logging.getLogger("apprise")
    logger.handlers[:] = [heard]
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    asset = apprise.AppriseAsset(app_id="rqmem", app_desc="Memory-safe background jobs", secure_logging=True)
    found = []
    for address in addresses:
        plugin = apprise.Apprise.instantiate(address.url, asset=asset)
        if plugin is None:
            raise ConfigError(f"{address.shown} cannot be used: {_unusable(address.scheme, apprise)}")
        found.append(Service(address, plugin, apprise, heard))
    return found


def keep_others_quiet() -> None:
    """From here on only rqmem's own lines are logged in this process, and no warnings of Python are shown."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.NullHandler())  # else errors go to stderr all the same
    for handler in root.handlers:
        handler.addFilter(logging.Filter("rqmem"))
    warnings.simplefilter("ignore")


def _unusable(scheme: str, apprise: Any) -> str:
    known = [
        each
        for service in apprise.Apprise().details()["schemas"]
        for each in (*(service["protocols"] or ()), *(service["secure_protocols"] or ()))
    ]
    if scheme not in known:
        near = difflib.get_close_matches(scheme, known, n=1)
        hint = f"did you mean {near[0]}://?" if near else "https://github.com/caronc/apprise/wiki lists them"
        return f"Apprise has no service {scheme}:// for it; {hint}"
    return f"what follows {scheme}:// is not what that service needs, or a package that it needs is not installed"


class _Heard(logging.Handler):
    """The last thing that Apprise said in each thread, until it is asked for; it never gets further."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        self._last.text = record.getMessage()

    def forget(self) -> None:
        self._last.text = ""

    def reason(self) -> str:
        for pattern, words in _REASONS:
            found = re.search(pattern, self._last.text)
            if found:
                return words.format(*found.groups())
        return "it did not take it"
