"""Redis that is away or refuses for now: which errors pass by themselves, and waiting until they have.

*Away*: the server is gone, or does not answer. *Refuses*: it answers, and says no for a reason that lies in the server
and not in what it was asked: after a failover, without memory, with a full disk, while it loads. Both are waited for
without end, since the one who waits holds the outcome of a job. Any other error is raised: it would come again.

A value larger than a server takes has it close the connection, as if it were away. So who writes what may be large
names the connection, and is told where that happens again and again though the server answers (`RedisTakesAllButThis`).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Literal, TypeVar
from weakref import WeakSet

from redis import ConnectionPool, Redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from rqmem import words
from rqmem.errors import RedisTakesAllButThis
from rqmem.rq_names import parse_connection

T = TypeVar("T")
State = Literal["away", "refuses"]

_CODES = (
    *("READONLY", "OOM", "MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "LOADING", "BUSY"),
    *("UNBLOCKED", "NOSCRIPT", "NOAUTH", "WRONGPASS", "NOPERM"),
)
_CLASSES: tuple[tuple[type[RedisError], str], ...] = (  # redis-py cuts the code off the text of these
    (ReadOnlyError, "READONLY"),
    (OutOfMemoryError, "OOM"),
    (MasterDownError, "MASTERDOWN"),
    (ClusterDownError, "CLUSTERDOWN"),
    (TryAgainError, "TRYAGAIN"),
    (BusyLoadingError, "LOADING"),
    (NoScriptError, "NOSCRIPT"),
    (NoPermissionError, "NOPERM"),
    (AuthenticationError, "NOAUTH"),
    (AuthorizationError, "NOAUTH"),
)
_WRAPPED = (
    re.compile(r".*of pipeline caused error: ", re.DOTALL),  # redis-py's
    re.compile(r"(?:EXECABORT )?Transaction discarded because of: "),
    re.compile(r"(?:ERR )?Error (?:running|compiling) script.*?@user_script: ?\d+: (?:@user_script: ?\d+: )?"),
)
_CODE = re.compile(rf"-?({'|'.join(_CODES)})(?![A-Z])")
_WITHOUT_CODE = (
    (re.compile(r"(?:ERR )?max number of clients"), "max number of clients"),
    (re.compile(r"(?:ERR )?The user executing the script can't"), "NOPERM"),
)

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0
_TOLD_CHANGES = 5
_LONGEST_REASON = 200
_TRIES_WHILE_IT_ANSWERS = 8  # some 8 s
_PROBE_SECONDS = 3.0
_log = logging.getLogger("rqmem.redis")
_in_use: WeakSet[Redis] = WeakSet()


def refusal(error: BaseException) -> str:
    """The code with which Redis refuses for now (``READONLY``, ``OOM``...); empty: it is no such error."""
    if not isinstance(error, RedisError):
        return ""
    text = _unwrapped(error)
    if found := _CODE.match(text):
        return found[1]
    for pattern, code in _WITHOUT_CODE:
        if pattern.match(text):
            return code
    return next((code for kind, code in _CLASSES if isinstance(error, kind)), "")


def unavailable(error: BaseException) -> State | None:
    """Whether this error says that Redis is away, or refuses for now; None: neither, and it would come again."""
    if refusal(error):
        return "refuses"
    return "away" if isinstance(error, RedisConnectionError | RedisTimeoutError) else None


def described(error: BaseException) -> str:
    """What Redis said, in one line that begins with its code; without the command, which may hold anything."""
    code, text = refusal(error), _unwrapped(error).lstrip("-")
    text = " ".join(text.split()) or type(error).__name__
    return (text if code in text else f"{code} {text}")[:_LONGEST_REASON]


def _unwrapped(error: BaseException) -> str:
    """The server's own words, without those of redis-py, a transaction or a script around them."""
    text = str(error)
    for wrapping in _WRAPPED:
        text = wrapping.sub("", text, count=1) if wrapping.match(text) else text
    return text


def reopen_at_failover(connection: Redis) -> None:
    """From now on, new connections are opened for it where the server says READONLY: it was the master once.

    A name is then resolved anew, and Sentinel asked again.
    """
    _in_use.add(connection)


def note(error: BaseException) -> None:
    """An error of Redis that somebody waits for by other means than `until_redis_answers`."""
    if refusal(error) == "READONLY":
        for connection in list(_in_use):
            connection.connection_pool.disconnect(inuse_connections=False)


class Wait:
    """One wait for Redis, told when it begins and when it ends, and a few times when its reason changes."""

    def __init__(self, what: str, large_on: Redis | None = None) -> None:
        self._what = what
        self._large_on = large_on
        self._pause = _FIRST_PAUSE_SECONDS
        self._since: float | None = None
        self._state: State = "away"
        self._told: list[str] = []
        self._failed_though_it_answers = 0

    def again(self, error: RedisError) -> None:
        """It failed with ``error``: pause if that may pass, else raise it."""
        state = unavailable(error)
        if state is None:
            raise error
        note(error)
        self._since = time.monotonic() if self._since is None else self._since
        if state == "away" and self._large_on is not None:
            self._failed_though_it_answers += 1 if _answers(self._large_on) else -self._failed_though_it_answers
            if self._failed_though_it_answers >= _TRIES_WHILE_IT_ANSWERS:
                raise RedisTakesAllButThis(
                    f"Redis answers, and yet it has closed the connection {self._failed_though_it_answers} times when "
                    f"it was to {self._what} ({described(error)}): a result, an error or an argument is larger than it "
                    "takes (its proto-max-bulk-len)"
                ) from error
        self._state = state
        reason = f"{state} {refusal(error)}"
        if reason not in self._told and len(self._told) < _TOLD_CHANGES:
            self._told.append(reason)
            _log.warning("%s (%s): waiting for it to %s", words.REDIS_GONE[state], described(error), self._what)
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)

    def over(self) -> None:
        """It succeeded."""
        if self._since is not None and self._state is not None:
            passed = time.monotonic() - self._since
            _log.warning("%s after %.1f s: could %s", words.REDIS_BACK[self._state], passed, self._what)


def until_redis_answers(step: Callable[[], T], what: str, large_on: Redis | None = None) -> T:
    """Repeat ``step`` while Redis is away or refuses; one line when the wait begins and one when it ends.

    The step may have been done although its reply was lost, so it must bear being repeated. Whatever else
    it raises is raised here too. ``large_on``: the connection over which it writes what a user made, and may be large.

    Raises:
        RedisTakesAllButThis: that fails again and again, and Redis is there.
    """
    wait = Wait(what, large_on)
    while True:
        try:
            result = step()
        except RedisError as error:
            wait.again(error)
            continue
        wait.over()
        return result


def connection_with_short_timeout(connection: Redis, seconds: float) -> Redis:
    """One of its own to the same server, which fails soon."""
    connection_class, pool_class, kwargs = parse_connection(connection)
    kwargs.update(socket_timeout=seconds, socket_connect_timeout=seconds)
    return connection_class(connection_pool=ConnectionPool(connection_class=pool_class, **kwargs))


def _answers(connection: Redis) -> bool:
    """Whether the server answers a PING, over a new connection."""
    try:
        with connection_with_short_timeout(connection, _PROBE_SECONDS) as probe:
            return bool(probe.ping())
    except RedisError:
        return False
