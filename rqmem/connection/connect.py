"""Which Redis to use, and a tried connection to it.

The order is ``--url``, ``RQMEM_REDIS_URL``, what RQ's settings file names (``-c MODULE``, or ``RQ_CONFIG``; also a
Sentinel), ``RQ_REDIS_URL`` (which RQ's own commands read), ``REDIS_URL``, else the embedded server of the current
directory (`rqmem.connection.embedded`), started when needed. Promises: a URL that cannot be
used raises `ConfigError` and a Redis that does not answer `RedisUnavailable`, both in one line that shows no password
and within about `_PROBE_SECONDS` a network address. Knows nothing of RQ but that it needs replies as bytes.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit
from weakref import WeakKeyDictionary

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from rqmem import named_code
from rqmem.connection import embedded
from rqmem.errors import ConfigError, RedisUnavailable, RqmemError
from rqmem.values import dataclass, field

MODULE_VARIABLE = "RQ_CONFIG"
_HOST_NAMES = ("REDIS_HOST", "REDIS_PORT", "REDIS_DB", "REDIS_PASSWORD", "REDIS_SSL")
_SCHEMES = ("redis://", "rediss://", "unix://")
_PROBE_SECONDS = 3.0
_LONGEST_REASON = 200

_log = logging.getLogger("rqmem.redis")
_siblings: WeakKeyDictionary[redis.ConnectionPool, redis.Redis] = WeakKeyDictionary()


@dataclass(frozen=True)
class Choice:
    """A Redis that somebody named, and where: ``--url``, a variable or a settings file of RQ's.

    Attributes:
        url: its URL; empty where the settings file names it otherwise.
        settings: of that file, where there is no URL.
    """

    url: str = field(repr=False)
    source: str
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def shown(self) -> str:
        """The URL without its password, or what names the server otherwise, for people."""
        if self.url:
            return mask(self.url)
        sentinel = self.settings.get("SENTINEL")
        if sentinel is None:
            return f"redis://{self.settings.get('REDIS_HOST', 'localhost')}:{self.settings.get('REDIS_PORT', 6379)}"
        places = sentinel.get("INSTANCES", [("localhost", 26379)])
        where = ", ".join(":".join(map(str, place)) for place in places)
        return f"{sentinel.get('MASTER_NAME', 'mymaster')} of the Sentinels {where}"

    def client(self, connection_class: type[redis.Redis] = redis.Redis) -> redis.Redis:
        """A client with redis-py's own timeouts, which RQ raises where it blocks for longer. Raises `ConfigError`."""
        if self.url:  # as RQ's own connections, without retries: a resent enqueue or commit would happen twice
            return name_the_driver_once(connection_class.from_url(self.url))
        from rqmem.rq_cli_names import get_redis_from_config

        try:
            return get_redis_from_config(self.settings, connection_class)
        except Exception as error:  # noqa: BLE001  what a person wrote there may be anything
            raise ConfigError(
                f"{self.source} names no Redis that can be used: {type(error).__name__}: {error}"
            ) from None


def choose_url(url: str | None = None, environ: Mapping[str, str] = os.environ) -> Choice | None:
    """The Redis named by ``url`` or else by ``environ``; None: nobody named one, so the embedded one.

    Does not look at the URL: `check` and `connect` do. Empty values count as unset.
    """
    first = [("--url", url), ("RQMEM_REDIS_URL", environ.get("RQMEM_REDIS_URL"))]
    last = [(name, environ.get(name)) for name in ("RQ_REDIS_URL", "REDIS_URL")]
    module = environ.get(MODULE_VARIABLE, "").strip()
    return _named(first) or (_named_in(module) if module else None) or _named(last)


def in_bytes(connection: redis.Redis) -> redis.Redis:
    """A connection that somebody else made, with replies as bytes, as RQ and rqmem read them.

    One with ``decode_responses`` has a sibling to the same server, with a pool of its own, that lives as long.
    """
    pool: redis.ConnectionPool | None = getattr(connection, "connection_pool", None)
    if pool is None or not pool.connection_kwargs.get("decode_responses"):
        return connection
    if pool not in _siblings:
        made = copy(pool)
        made.connection_kwargs = {**pool.connection_kwargs, "decode_responses": False}
        made.reset()
        _siblings[pool] = type(connection)(connection_pool=made)
    return _siblings[pool]


def name_the_driver_once(connection: redis.Redis) -> redis.Redis:
    """The same client, whose new connections need not look up redis-py's version for ``CLIENT SETINFO``.

    The lookup reads the package's metadata: 0.4 ms for each connection, and 1.7 MB of a forked worker's shared pages.
    """
    options = connection.connection_pool.connection_kwargs
    with suppress(ImportError):  # before redis-py 7.2
        from redis.driver_info import DriverInfo

        if not {"driver_info", "lib_name", "lib_version"} & set(options):
            options["driver_info"] = DriverInfo()
    return connection


def _named(texts: Iterable[tuple[str, str | None]]) -> Choice | None:
    return next((Choice(text.strip(), source) for source, text in texts if text and text.strip()), None)


def _named_in(module: str) -> Choice | None:
    """What RQ's settings file names; None: it names no Redis. Raises `ConfigError`."""
    settings, source = read_module(module), f"-c {module}"
    if settings.get("REDIS_URL"):
        return Choice(str(settings["REDIS_URL"]), source)
    names = [name for name in ("SENTINEL", *_HOST_NAMES) if settings.get(name) is not None]
    return Choice("", source, settings) if names else None


def read_module(module: str) -> dict[str, Any]:
    """The upper-case variables of RQ's settings file, a module as ``rq worker -c`` takes it. Raises `ConfigError`."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    found = named_code.module(module, f"-c {module} (or {MODULE_VARIABLE})")
    return {name: value for name, value in vars(found).items() if name == name.upper()}


def connect(
    url: str | None = None,
    *,
    announce: Callable[[str], None] | None = None,
    connection_class: type[redis.Redis] = redis.Redis,
) -> redis.Redis:
    """The Redis that rqmem's commands use, tried and ready; replies are bytes, as RQ demands.

    Args:
        url: as ``--url``; None: the environment decides, else the embedded server.
        announce: told one line when the embedded server is used; by default that line is logged.
        connection_class: of the client, as RQ's ``--connection-class``.

    Raises `ConfigError`, `RedisUnavailable` or, about the embedded server, `EmbeddedRedisError`.
    """
    choice = choose_url(url)
    if choice is None:
        server = embedded.start()
        where = f"{server.url} (data in {os.path.relpath(server.data)})"
        say = announce or _log.info
        say(f"rqmem: using the embedded Redis {server.version} at {where}; set RQMEM_REDIS_URL to use another")
        return name_the_driver_once(connection_class.from_url(server.url))
    _probe(choice)
    return choice.client(connection_class)


def check(choice: Choice) -> None:
    """Raise `ConfigError` when the URL or the settings cannot be used; contacts nobody."""
    if choice.url:
        _options(choice)
    else:
        choice.client()


def mask(url: str) -> str:
    """``url`` with passwords as ``***``, also where it is malformed; rather hides too much."""
    url = re.sub(r"^((?:\w+://)?(?:[^:@/]*:)?).*@", r"\1***@", url)
    return re.sub(r"([?&][^=&]*password=)[^&]*", r"\1***", url)


def _probe(choice: Choice) -> None:
    """PING through a connection of its own, with short timeouts and no retry."""
    options: Mapping[str, Any] = _options(choice) if choice.url else choice.settings.get("SENTINEL") or {}
    try:
        with hasty_client(choice, _PROBE_SECONDS) as client:
            client.ping()
    except (TypeError, ValueError) as error:  # an option that redis-py does not know, a host no DNS takes
        raise _refused(choice, _reason(error, options)) from None
    except (redis.RedisError, OSError, AttributeError) as error:
        raise _explained(choice, error, _reason(error, options)) from error


def hasty_client(choice: Choice, seconds: float) -> redis.Redis:
    """A client whose commands fail within that time and are not repeated, nor are questions to Sentinels."""
    client = choice.client()
    pools = [client.connection_pool]
    if isinstance(client.connection_pool, SentinelConnectionPool):
        pools += [each.connection_pool for each in client.connection_pool.sentinel_manager.sentinels]
    for pool in pools:  # they have no connection yet
        pool.connection_kwargs.update(
            socket_timeout=seconds, socket_connect_timeout=seconds, retry=Retry(NoBackoff(), 0)
        )
    return client


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
        f"{where} cannot be used: {reason.rstrip('.')}; start it, or name another with --url or RQMEM_REDIS_URL"
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
        if parts.hostname or not parts.path.strip("/"):
            raise ValueError("it must hold the socket's absolute path, as in unix:///run/redis.sock")
    elif not _has_port(parts):
        raise ValueError("the port must be a number from 1 to 65535 (in a password, write / as %2F)")
    elif not re.fullmatch(r"/?[0-9]*/?", parts.path):
        raise ValueError("what follows host and port must be a database number, as in redis://host:6379/0")
    options: dict[str, Any] = parse_url(url)
    if options.get("db", 0) < 0:
        raise ValueError("the database number must be 0 or more")
    for name in ("decode_responses", "retry"):
        if name in options:
            raise ValueError(f"the option {name} cannot be set: RQ needs replies as bytes, rqmem its retries")
    return options


def _has_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False


def _refused(choice: Choice, reason: str) -> ConfigError:
    return ConfigError(f"{choice.source} {choice.shown!r} cannot be used: {reason}")


def _reason(error: Exception, options: Mapping[str, Any]) -> str:
    """What went wrong in one line, without the password should a server send it back."""
    text = " ".join(str(error).split()) or type(error).__name__
    for password in (options.get("password"), options.get("PASSWORD")):
        if password:
            text = text.replace(str(password), "***")
    return text[:_LONGEST_REASON]
