"""Which Redis to use, and a tried connection to it.

The order is ``--url``, ``RQMEM_REDIS_URL``, ``RQ_REDIS_URL`` (which RQ's own commands read), ``REDIS_URL``, else the
embedded server of the current directory (`rqmem.embedded_redis`), started when needed. Promises: a URL that cannot be
used raises `ConfigError` and a Redis that does not answer `RedisUnavailable`, both in one line that shows no password
and within about `_PROBE_SECONDS` a network address. Knows nothing of RQ but that it needs replies as bytes.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from rqmem import embedded_redis
from rqmem.errors import ConfigError, RedisUnavailable, RqmemError

_VARIABLES = ("RQMEM_REDIS_URL", "RQ_REDIS_URL", "REDIS_URL")
_SCHEMES = ("redis://", "rediss://", "unix://")
_PROBE_SECONDS = 3.0
_LONGEST_REASON = 200

_log = logging.getLogger("rqmem.redis")


@dataclass(frozen=True)
class Choice:
    """A Redis that somebody named: its URL, and where it was named (``--url`` or a variable)."""

    url: str = field(repr=False)
    source: str

    @property
    def shown(self) -> str:
        """The URL without its password, for people."""
        return mask(self.url)


def choose_url(url: str | None = None, environ: Mapping[str, str] = os.environ) -> Choice | None:
    """The Redis named by ``url`` or else by ``environ``; None: nobody named one, so the embedded one.

    Does not look at the URL: `check` and `connect` do. Empty values count as unset.
    """
    named = [("--url", url), *((name, environ.get(name)) for name in _VARIABLES)]
    for source, text in named:
        if text and text.strip():
            return Choice(text.strip(), source)
    return None


def connect(url: str | None = None, *, announce: Callable[[str], None] | None = None) -> redis.Redis:
    """The Redis that rqmem's commands use, tried and ready; replies are bytes, as RQ demands.

    Args:
        url: as ``--url``; None: the environment decides, else the embedded server.
        announce: told one line when the embedded server is used; by default that line is logged.

    Raises `ConfigError`, `RedisUnavailable` or, about the embedded server, `EmbeddedRedisError`.
    """
    choice = choose_url(url)
    if choice is None:
        server = embedded_redis.start()
        (announce or _log.info)(_announcement(server))
        return _client(server.url)
    _probe(choice)
    return _client(choice.url)


def check(choice: Choice) -> None:
    """Raise `ConfigError` when the URL cannot be used; contacts nobody."""
    _options(choice)


def mask(url: str) -> str:
    """``url`` with passwords as ``***``, also where it is malformed; rather hides too much."""
    url = re.sub(r"^((?:\w+://)?(?:[^:@/]*:)?).*@", r"\1***@", url)
    return re.sub(r"([?&][^=&]*password=)[^&]*", r"\1***", url)


def _announcement(server: embedded_redis.Server) -> str:
    data = os.path.relpath(server.data)
    return (
        f"rqmem: using the embedded Redis {server.version} at {server.url} (data in {data}); "
        "set RQMEM_REDIS_URL to use another"
    )


def _client(url: str) -> redis.Redis:
    """A client for ``url`` with redis-py's own timeouts, which RQ raises where it blocks for longer."""
    # As RQ's own connections, without retries: a resent enqueue or commit would happen twice.
    return redis.Redis.from_url(url)


def _probe(choice: Choice) -> None:
    """PING through a connection of its own, with short timeouts and no retry."""
    hasty = {
        "socket_timeout": _PROBE_SECONDS,
        "socket_connect_timeout": _PROBE_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
    options = _options(choice)
    try:
        with redis.Redis.from_pool(redis.ConnectionPool(**options | hasty)) as client:
            client.ping()
    except (TypeError, ValueError) as error:  # an option that redis-py does not know, a host no DNS takes
        raise _refused(choice, _reason(error, options)) from None
    except (redis.RedisError, OSError, AttributeError) as error:
        raise _explained(choice, error, _reason(error, options)) from error


def _explained(choice: Choice, error: Exception, reason: str) -> RqmemError:
    where = f"Redis at {choice.shown} ({choice.source})"
    # redis-py reads the handshake's reply unchecked: AttributeError when it is no map.
    if isinstance(error, (redis.InvalidResponse, AttributeError)):
        return RedisUnavailable(f"{where}: what answers there is not Redis; check host and port")
    if isinstance(error, (redis.AuthenticationError, redis.exceptions.NoPermissionError)):
        return RedisUnavailable(f"{where} refuses us: {reason}; check user and password in the URL")
    if isinstance(error, redis.BusyLoadingError):
        return RedisUnavailable(f"{where} is still loading its data; try again when it has")
    if isinstance(error, redis.ResponseError) and "DB index" in reason:
        return _refused(choice, f"{reason}; use a smaller database number")
    if isinstance(error, redis.TimeoutError):
        reason = f"no answer within {_PROBE_SECONDS:g} s"
    return RedisUnavailable(
        f"{where} cannot be used: {reason}; start it, or name another with --url or RQMEM_REDIS_URL"
    )


def _options(choice: Choice) -> dict[str, Any]:
    """What redis-py makes of the URL, after what it would pass over in silence is refused."""
    try:
        return _parse(choice.url)
    except ValueError as error:
        raise _refused(choice, str(error)) from None


def _parse(url: str) -> dict[str, Any]:
    """Options of a connection; raises `ValueError` with a text that shows no part of a password."""
    if not url.startswith(_SCHEMES):
        raise ValueError(f"it must start with one of {', '.join(_SCHEMES)}")
    if "#" in url:
        raise ValueError("write # as %23")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("it cannot be read as a URL") from None
    if parts.scheme == "unix":
        _check_socket(parts.hostname, parts.path)
    else:
        _check_port(lambda: parts.port)
        _check_database(parts.path)
    options: dict[str, Any] = parse_url(url)
    if options.get("db", 0) < 0:
        raise ValueError("the database number must be 0 or more")
    for name in ("decode_responses", "retry"):
        if name in options:
            raise ValueError(f"the option {name} cannot be set: RQ needs replies as bytes, rqmem its retries")
    return options


def _check_port(port: Callable[[], int | None]) -> None:
    try:
        usable = port() != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("the port must be a number from 1 to 65535 (in a password, write / as %2F)")


def _check_database(path: str) -> None:
    if not re.fullmatch(r"/?[0-9]*/?", path):
        raise ValueError("what follows host and port must be a database number, as in redis://host:6379/0")


def _check_socket(host: str | None, path: str) -> None:
    if host or not path.strip("/"):
        raise ValueError("it must hold the socket's absolute path, as in unix:///run/redis.sock")


def _refused(choice: Choice, reason: str) -> ConfigError:
    return ConfigError(f"{choice.source} {choice.shown!r} cannot be used: {reason}")


def _reason(error: Exception, options: Mapping[str, Any]) -> str:
    """What went wrong in one line, without the password should a server send it back."""
    text = " ".join(str(error).split()) or type(error).__name__
    password = options.get("password")
    if password:
        text = text.replace(password, "***")
    return text[:_LONGEST_REASON]
