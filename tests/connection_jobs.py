"""Jobs that leave the connection which they are given in another state."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from redis import Redis
from rq import get_current_job
from rq.job import Job


def state() -> tuple[Any, ...]:
    """Of the connection that this job gets, as the server sees it."""
    connection = _connection()
    info = connection.client_info()
    return info["db"], info["user"], info["flags"], info.get("resp"), info["multi"], connection.ping()


def leave(what: str) -> None:
    WAYS[what](_connection())


def leave_in_failure_callback(job: Job, connection: Redis, *error: object) -> None:
    _select(connection)


def leave_in_success_callback(job: Job, connection: Redis, result: object) -> None:
    _select(connection)


def fail() -> None:
    raise ValueError("on purpose")


def succeed() -> None:
    pass


def _connection() -> Redis:
    job = get_current_job()
    assert job is not None
    return job.connection


def _select(connection: Redis) -> None:
    connection.execute_command("SELECT", 5)


def _raw(*commands: str) -> Callable[[Redis], None]:
    def send(connection: Redis) -> None:
        used = connection.connection_pool.get_connection()
        for command in commands:
            used.send_command(*command.split())
        connection.connection_pool.release(used)

    return send


def _another_user(connection: Redis) -> None:
    connection.acl_setuser("of_a_job", enabled=True, nopass=True, commands=["+ping", "+client"])
    connection.execute_command("AUTH", "of_a_job", "any")


def _close_sockets(connection: Redis) -> None:
    connection.ping()
    server = {connection.client_info()["laddr"]}
    for number in range(3, 256):
        try:
            with socket.socket(fileno=os.dup(number)) as found:
                peer = found.getpeername()
        except OSError:
            continue
        if isinstance(peer, tuple) and f"{peer[0]}:{peer[1]}" in server:
            os.close(number)


def _other_answers(connection: Redis) -> None:
    connection.connection_pool.connection_kwargs.update(db=5, decode_responses=True)
    connection.connection_pool.disconnect()


def _no_pool(connection: Redis) -> None:
    connection.connection_pool = None  # type: ignore[assignment]


WAYS: dict[str, Callable[[Redis], Any]] = {
    "another database": _select,
    "no replies": _raw("CLIENT REPLY OFF"),
    "a reply unread": _raw("PING", "PING"),
    "a transaction": _raw("MULTI"),
    "a watched key": _raw("WATCH a"),
    "a subscription": _raw("SUBSCRIBE a"),
    "monitor": _raw("MONITOR"),
    "another protocol": _raw("HELLO 3"),
    "another user": _another_user,
    "never evicted": _raw("CLIENT NO-EVICT on"),
    "tracking": _raw("HELLO 3", "CLIENT TRACKING on"),
    "a closed pool": lambda connection: connection.connection_pool.disconnect(),
    "a closed client": lambda connection: connection.close(),
    "closed sockets": _close_sockets,
    "killed by the server": lambda connection: connection.client_kill_filter(_type="normal", skipme=False),
    "other settings": _other_answers,
    "no pool": _no_pool,
    "no callbacks": lambda connection: connection.response_callbacks.clear(),
    "another encoder": lambda connection: connection.connection_pool.connection_kwargs.update(encoding="utf-16"),
}
"""Name -> what leaves it so."""
