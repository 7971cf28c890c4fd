"""Gives user code a Redis connection of its own as ``job.connection``.

User code may leave a connection in any state: another database, an open transaction, a subscription, another user. So
RQ's and rqmem's commands use a connection that no job gets, and each job gets a new one. Objects of redis-py that a
job keeps after its end stay usable.

Not covered: a job that changes the classes of redis-py.
"""

from __future__ import annotations

import contextlib
import copy
import os
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

from redis import Redis

from rqmem.rq_names import Job

_LENT = "_rqmem_lent"


class _Unused(NamedTuple):
    """A client that was made for a job that did not use it, and what it was made of: making one takes 60 us."""

    own: Redis
    client: Redis
    client_state: dict[str, Any]
    pool_state: dict[str, Any]

    def is_untouched(self) -> bool:
        if vars(self.client) != self.client_state:
            return False
        pool = self.client.connection_pool
        return vars(pool) == self.pool_state and pool.pid == os.getpid()


_unused: _Unused | None = None


def lend(job: Job) -> None:
    """Call this before user code that may use ``job``. It connects only when that code does."""
    values = vars(job)
    own = values.get("connection")
    if _LENT not in values and isinstance(own, Redis):  # a job of a lease may not have been read yet
        job.connection = lent = _client_for(own)
        values[_LENT] = own, lent.connection_pool


def take_back(job: Job) -> None:
    """Call this after such code. It may be called again."""
    own, pool = vars(job).pop(_LENT, (None, None))
    if own is not None:
        job.connection = own
        if _unused is None or pool is not _unused.client.connection_pool or not _unused.is_untouched():
            with contextlib.suppress(Exception):  # user code may have broken it
                pool.disconnect(inuse_connections=False)


@contextlib.contextmanager
def lent(job: Job) -> Iterator[None]:
    lend(job)
    try:
        yield
    finally:
        take_back(job)


def _client_for(own: Redis) -> Redis:
    global _unused
    if _unused is None or _unused.own is not own or not _unused.is_untouched():
        client = _another(own)
        pool = client.connection_pool
        pool_state = dict(vars(pool))
        for name, value in pool_state.items():
            if type(value) in (list, set, dict):  # connections that are made, and how: a job may change them in place
                pool_state[name] = value.copy()
        _unused = _Unused(own, client, {**vars(client), "response_callbacks": own.response_callbacks}, pool_state)
    return _unused.client


def _another(client: Redis) -> Redis:
    """A client like this one, with its own pool of connections."""
    other = copy.copy(client)
    other.connection = None
    other.response_callbacks = copy.copy(client.response_callbacks)
    other.connection_pool = _like(client.connection_pool)
    return other


def _like(pool: Any) -> Any:
    other = copy.copy(pool)
    other.connection_kwargs = kwargs = dict(pool.connection_kwargs)
    for name in ("_lock", "_fork_lock"):
        if (lock := getattr(pool, name, None)) is not None:
            setattr(other, name, type(lock)())
    if "connection_pool" in kwargs:  # Sentinel's: it tells connections where the master is
        other.proxy = kwargs["connection_pool"] = copy.copy(pool.proxy)
        other.proxy.connection_pool_ref = weakref.ref(other)
    other.reset()
    return other
