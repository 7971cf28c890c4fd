"""Waiting for a Redis that is away or refuses, and which errors say so.

*Away*: the server is gone or does not answer. *Refuses*: it answers with an error whose reason lies in the server and
not in the command: after a failover, without memory, with a full disk, while it loads. `until_redis_answers` waits for
both without end, because the caller holds the outcome of a job. It raises every other error, which would come again;
after some seconds also in a process that cannot reach Redis for a reason of its own: it may open no more files, or code
of users has moved it to another network or root directory, or has given up rights.

A server closes the connection at a value that is too large, as if it were away. Whoever writes a value that may be
large names the connection, and gets `RedisTakesAllButThis` if that happens again and again although the server answers.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import resource
import time
from collections.abc import Callable
from pathlib import Path
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
    WatchError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from rqmem import words
from rqmem.errors import RedisTakesAllButThis, RedisUnavailable
from rqmem.measure import linux
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
_LOGGED_REASONS = 5
_LONGEST_REASON = 200
_TRIES_WHILE_IT_ANSWERS = 8  # some 8 s
_PROBE_SECONDS = 3.0
_RESERVED_FILES = 4
_log = logging.getLogger("rqmem.redis")
_spent_seconds = 0.0
_in_use: WeakSet[Redis] = WeakSet()
_reserved: list[int] = []
_cut_off = 0  # tries of a process that lacks its reach
_reach: tuple[object, ...] = ()  # as `_reach_now`, before code of users ran
_most_files: tuple[int, int] | None = None  # as it was before code of users ran


def refusal(error: BaseException) -> str:
    """The code with which Redis refuses (``READONLY``, ``OOM``...); empty for any other error."""
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
    """Whether this error says that Redis is away or refuses; None for an error that would come again."""
    if refusal(error):
        return "refuses"
    if isinstance(error, WatchError) and "occurred while watching" in str(error):
        return "away"  # so redis-py calls a connection that it lost in a transaction
    return "away" if isinstance(error, RedisConnectionError | RedisTimeoutError) else None


def described(error: BaseException) -> str:
    """What Redis said, in one line that begins with its code. Without the command, which may contain anything."""
    code, text = refusal(error), _unwrapped(error).lstrip("-")
    text = " ".join(text.split()) or type(error).__name__
    return (text if code in text else f"{code} {text}")[:_LONGEST_REASON]


def _unwrapped(error: BaseException) -> str:
    """The words of the server, without those that redis-py, a transaction or a script put around them."""
    text = str(error)
    for wrapping in _WRAPPED:
        text = wrapping.sub("", text, count=1) if wrapping.match(text) else text
    return text


def reopen_at_failover(connection: Redis) -> None:
    """Have this client open new connections when the server says READONLY: it was the master once.

    Then the name is resolved again, and Sentinel is asked again.
    """
    _in_use.add(connection)


def note(error: BaseException) -> None:
    """Take notice of an error that is not handled by `until_redis_answers`."""
    if refusal(error) == "READONLY":
        for connection in list(_in_use):
            connection.connection_pool.disconnect(inuse_connections=False)


def keep_reach() -> None:
    """Before code of users runs in this process, which may leave it unable to reach Redis.

    It may leave open as many files as are allowed: what is reserved is closed when no connection to Redis can be opened
    for that reason, and the limit is set back. It may leave the network: the process goes back there if it may.
    """
    global _most_files, _reach
    _reach = _reach_now()
    _most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError):
        _reserved.extend(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(_RESERVED_FILES))
    linux.keep_network()


def _reach_now() -> tuple[object, ...]:
    """What decides which addresses this process can reach."""
    try:
        status = Path("/proc/self/status").read_bytes()
        rights = [line for line in status.splitlines() if line.startswith((b"Uid:", b"Gid:", b"CapEff:", b"Seccomp"))]
        root = os.stat("/")  # noqa: PTH116
        return root.st_dev, root.st_ino, os.readlink("/proc/thread-self/ns/net"), rights  # noqa: PTH115
    except OSError:
        return ()


def _lacks_reach() -> bool:
    return bool(_reach) and _reach_now() != _reach


def _use_reserve() -> None:
    while _reserved:
        with contextlib.suppress(OSError):
            os.close(_reserved.pop())
    if _most_files is not None and resource.getrlimit(resource.RLIMIT_NOFILE) != _most_files:
        with contextlib.suppress(OSError, ValueError):  # a hard limit stays, for who has no privilege
            resource.setrlimit(resource.RLIMIT_NOFILE, _most_files)


def _lacks_files(error: RedisError) -> bool:
    """Whether this process may open no more files: then it is not Redis that is away."""
    cause = error.__context__
    return isinstance(cause, OSError) and cause.errno == errno.EMFILE


class Wait:
    """One wait for Redis. Logs its beginning, its end and the first few changes of its reason."""

    def __init__(self, what: str, large_on: Redis | None = None) -> None:
        self._what = what
        self._large_on = large_on
        self._pause = _FIRST_PAUSE_SECONDS
        self._since: float | None = None
        self._state: State = "away"
        self._logged: list[str] = []
        self._failed_though_it_answers = 0
        self._without_files = 0

    def again(self, error: RedisError) -> None:
        """Pause after this error, or raise it if it would come again."""
        state = unavailable(error)
        if state is None:
            raise error
        note(error)
        if _lacks_files(error):
            _use_reserve()
            self._without_files += 1
            if self._without_files > _TRIES_WHILE_IT_ANSWERS:
                raise error
        elif state == "away" and _lacks_reach():
            self._come_back(error)
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
        if reason not in self._logged and len(self._logged) < _LOGGED_REASONS:
            self._logged.append(reason)
            _log.warning("%s (%s): waiting for it to %s", words.REDIS_GONE[state], described(error), self._what)
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)

    @staticmethod
    def _come_back(error: RedisError) -> None:
        """This process has left the network, or given up the right to use it. What it waits for next waits no more."""
        global _cut_off
        linux.back_to_network()
        _cut_off += 1
        if _cut_off > _TRIES_WHILE_IT_ANSWERS:
            raise RedisUnavailable(
                "code of users has changed the network, the root directory or the rights of this process, which cannot "
                f"reach Redis any more: {described(error)}"
            ) from error

    def over(self) -> None:
        global _cut_off
        _cut_off = 0
        if self._since is not None and self._state is not None:
            passed = time.monotonic() - self._since
            _log.warning("%s after %.1f s: could %s", words.REDIS_BACK[self._state], passed, self._what)


def until_redis_answers(step: Callable[[], T], what: str, large_on: Redis | None = None) -> T:
    """Repeat ``step`` while Redis is away or refuses.

    Redis may have done the step although its reply was lost, so the step must be safe to repeat. Other errors are
    raised. ``large_on``: the connection over which the step writes values of users, which may be large.
    """
    global _spent_seconds
    wait, began = Wait(what, large_on), time.monotonic()
    try:
        while True:
            try:
                result = step()
            except RedisError as error:
                wait.again(error)
                continue
            wait.over()
            return result
    finally:
        _spent_seconds += time.monotonic() - began


def spent_seconds() -> float:
    """How long `until_redis_answers` has taken in this process, all calls together."""
    return _spent_seconds


def connection_with_short_timeout(connection: Redis, seconds: float) -> Redis:
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
