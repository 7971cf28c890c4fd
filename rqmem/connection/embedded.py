"""The embedded Redis: one server for each (user, directory), started when it is first needed.

Its data are in ``<directory>/.rqmem/redis`` (append-only file, log, locks); it listens on a Unix
socket in a private directory and on no port. It outlives the command that started it, until `stop`.
What cannot be done raises `EmbeddedRedisError` in one line.

Who may do what is settled by two locks (``flock``: the kernel opens them when a process dies,
however it dies), not by pid files:

* ``command.lock`` is held by one `start`, `stop` or `status` at a time;
* ``server.lock`` is handed down to the server, which holds it while it lives. It contains the
  path of the server's socket, since another environment (cron, sudo) would choose another path.
  So two servers never write one append-only file, and a server whose socket was deleted is found.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rqmem import own_files
from rqmem.connection import embedded_files as files
from rqmem.errors import EmbeddedRedisError
from rqmem.values import dataclass

_ANSWER_SECONDS = 2.0
_START_SECONDS = 30.0
_STOP_SECONDS = 30.0
_DYING_SECONDS = 0.5  # a killed process answers no more a while before its locks open
_POLL_SECONDS = 0.01
_SETTINGS = {
    "daemonize": "yes",
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "save": "",
    "stream-node-max-bytes": "256",  # else a finished job's result takes a stream node of 4 KB
    "pidfile": "redis.pid",  # unused; the default is the system server's
}


@dataclass(frozen=True)
class Server:
    """A running embedded server, as it describes itself. ``started``: by this very call."""

    url: str
    version: str
    pid: int
    data: Path
    memory_bytes: int
    uptime_seconds: int
    keys: int
    started: bool = False


def start(directory: Path | None = None) -> Server:
    """The running server of ``directory`` (default: the current one), started first if there is none."""
    place = files.locate(directory)
    with files.explained(place.data):
        files.make_directories(place)
        with files.turn(place.data):
            if _lives(place) and not _comes_true(_listening_at(place).exists, _ANSWER_SECONDS):
                _end(place)  # out of reach: systemd deletes $XDG_RUNTIME_DIR at logout
            return _answer(place) or _spawn(place)


def stop(directory: Path | None = None) -> bool:
    """End the server, its data saved, and wait until it has gone; False when none ran."""
    place = files.locate(directory)
    with files.explained(place.data):
        files.check_directories(place)
        if not place.server_lock.exists():
            return False
        with files.turn(place.data):
            if not _lives(place):
                return False
            _end(place)
            with contextlib.suppress(OSError):
                _listening_at(place).parent.rmdir()
            return True


def status(directory: Path | None = None) -> Server | None:
    """The running server; None when there is none. Raises when one runs but does not answer."""
    place = files.locate(directory)
    with files.explained(place.data):
        files.check_directories(place)
        if not place.server_lock.exists():
            return None
        with files.turn(place.data):
            if not _lives(place):
                return None
            try:
                return _ask(place)
            except redis.RedisError as error:
                if _is_gone_within(place, _DYING_SECONDS):
                    return None
                raise EmbeddedRedisError(
                    f"the embedded Redis in {place.data} runs but does not answer ({error}); "
                    "wait if it is loading, or end it with `rqmem redis stop`"
                ) from error


def _lives(place: files.Location) -> bool:
    return files.is_held(place.server_lock)


def _listening_at(place: files.Location) -> Path:
    return files.socket_in(place.server_lock)


def _spawn(place: files.Location) -> Server:
    """Start a server that is detached from this process, and wait until it answers."""
    program = files.find_program()
    files.refuse_older_program(program, place.data)
    files.make_socket_directory(place.socket)
    _end_stray(place.socket)
    lock = files.take(place.server_lock)
    if lock is None:
        raise EmbeddedRedisError(f"another process holds {place.server_lock}; end it first")
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, os.fsencode(place.socket), 0)
        _run(program, place, lock)
    finally:
        os.close(lock)  # the server has it too
    server = _answer(place)
    if server is None:
        raise EmbeddedRedisError(
            f"the embedded Redis ended at its start: {files.last_line(place.log)} (see {place.log})"
        )
    return replace(server, started=True)


def _run(program: str, place: files.Location, lock: int) -> None:
    # With options and no file name, redis-server reads no redis.conf. Names are relative to its cwd.
    settings = {**_SETTINGS, "unixsocket": str(place.socket), "logfile": place.log.name}
    command = [program]
    for name, value in settings.items():
        command += [f"--{name}", value]
    with os.fdopen(own_files.open_ours(place.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as log:
        try:
            subprocess.run(
                command,
                cwd=place.data,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                start_new_session=True,
                timeout=_START_SECONDS,
                check=False,  # whether it lives is seen by its lock
            )
        except subprocess.TimeoutExpired:
            raise EmbeddedRedisError(f"{program} did not go to the background; see {place.log}") from None


def _end_stray(socket: Path) -> None:
    """End our server whose data directory was moved or deleted and who still listens at ``socket``."""
    with contextlib.suppress(redis.RedisError), _client(socket) as client:
        client.ping()
        client.shutdown()


def _answer(place: files.Location) -> Server | None:
    """The server once it has loaded its data and answers; None when there is none, or no more."""
    deadline = time.monotonic() + _START_SECONDS
    while _lives(place):
        try:
            return _ask(place)
        except redis.RedisError as error:
            reason = error
        if time.monotonic() > deadline:
            raise EmbeddedRedisError(
                f"the embedded Redis does not answer after {_START_SECONDS:g} s: {reason} (see {place.log})"
            )
        time.sleep(_POLL_SECONDS)
    return None


def _ask(place: files.Location) -> Server:
    socket = _listening_at(place)
    with _client(socket) as client:
        client.ping()
        info: Any = client.info()
    return Server(
        url=files.socket_url(socket),
        version=info["redis_version"],
        pid=info["process_id"],
        data=place.data,
        memory_bytes=info["used_memory"],
        uptime_seconds=info["uptime_in_seconds"],
        keys=sum(value["keys"] for name, value in info.items() if re.fullmatch(r"db\d+", name)),
    )


def _client(socket: Path) -> redis.Redis:
    return redis.Redis(
        unix_socket_path=str(socket),
        socket_timeout=_ANSWER_SECONDS,
        socket_connect_timeout=_ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


def _end(place: files.Location) -> None:
    """Ask the server to save and end, over its socket or else by a signal, and wait until it has."""
    try:
        with _client(_listening_at(place)) as client:
            client.ping()  # shutdown() takes a server out of reach for one that ended
            client.shutdown()
    except redis.RedisError:
        for pid in files.holders(place.server_lock):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    if not _is_gone_within(place, _STOP_SECONDS):
        raise EmbeddedRedisError(
            f"the embedded Redis (process {files.holders(place.server_lock)}) has not ended after "
            f"{_STOP_SECONDS:g} s; see {place.log}"
        )


def _is_gone_within(place: files.Location, seconds: float) -> bool:
    return _comes_true(lambda: not _lives(place), seconds)


def _comes_true(condition: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
