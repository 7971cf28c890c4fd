"""Where alerts are sent: the URLs that options, environment and file name. Nothing here shows more than a scheme."""

from __future__ import annotations

import hashlib
import logging
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from rqmem import own_files
from rqmem.config.settings import Config
from rqmem.errors import ConfigError
from rqmem.values import dataclass, field

_ROUNDS = 50_000  # the name of a group is in Redis, and must not help to guess a password
_log = logging.getLogger("rqmem.alerts")


@dataclass(frozen=True)
class Address:
    """One URL, in Apprise's form; ``position`` counts from 1, over options, environment and file."""

    position: int
    url: str = field(repr=False)

    @property
    def scheme(self) -> str:
        """``slack`` of ``slack://…``; empty where there is none."""
        found = re.match(r"([A-Za-z][A-Za-z0-9+.-]{0,19})://", self.url)
        return found[1].lower() if found else ""

    @property
    def shown(self) -> str:
        return f"alert URL {self.position} ({self.scheme}://****)" if self.scheme else f"alert URL {self.position}"

    @property
    def group(self) -> str:
        """The consumer group of all who send to this URL."""
        return hashlib.pbkdf2_hmac("sha256", self.url.encode(), b"rqmem alerts", _ROUNDS, 12).hex()


def addresses(config: Config) -> list[Address]:
    """Where alerts are to be sent, each once.

    Raises:
        ConfigError: there is none, or it has no scheme, or the file cannot be read; no part of a URL is in its text.
    """
    urls = [*config.alert_urls, *(_read(config.alert_urls_file) if config.alert_urls_file else ())]
    if not urls:
        raise ConfigError("no alert URL is named: give RQMEM_ALERT_URLS_FILE, RQMEM_ALERT_URLS or --alert-url")
    found = [Address(number, url) for number, url in enumerate(dict.fromkeys(urls), 1)]
    for each in found:
        if not each.scheme:
            raise ConfigError(
                f"alert URL {each.position} cannot be used: it must begin with a service, as in slack://… or "
                f"mailto://… (https://github.com/caronc/apprise/wiki)"
            )
    return found


def _read(name: str) -> Iterator[str]:
    path = Path(name).expanduser()
    try:
        own_files.must_end(path)
        mode, text = path.stat().st_mode, path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"file of alert URLs {name!r}: {error.strerror}; give a file with one URL a line") from None
    except UnicodeDecodeError:
        raise ConfigError(f"file of alert URLs {name!r}: it is no text; give a file with one URL a line") from None
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        _log.warning("file of alert URLs %r can be read by others, and URLs are secrets: chmod 600 it", name)
    for number, line in enumerate(text.splitlines(), 1):
        url = line.strip()
        if not url or url.startswith("#"):
            continue
        if len(url.split()) > 1:
            raise ConfigError(f"file of alert URLs {name!r}, line {number}: one URL a line; a space in it is %20")
        yield url
