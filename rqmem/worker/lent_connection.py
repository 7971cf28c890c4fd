"""Gives user code a Redis connection of its own as ``job.connection``.

User code may leave a connection in any state: another database, an open transaction, a subscription, another user. So
RQ's and rqmem's commands use a connection that no job gets, and each job gets a new one. Objects of redis-py that a
job keeps after its end stay usable.

Not covered: a job that changes the classes of redis-py.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Iterator
from typing import Any

from redis import Redis

from rqmem.rq_names import Job

_LENT = "_rqmem_lent"


def lend(job: Job) -> None:
    """Call this before user code that may use ``job``. It connects only when that code does."""
    values = vars(job)
    own = values.get("connection")
    if _LENT not in values and isinstance(own, Redis):  # a job of a lease may not have been read yet
        job.connection = lent = _another(own)
        values[_LENT] = own, lent.connection_pool


def take_back(job: Job) -> None:
    """Call this after such code. It may be called again."""
    own, pool = vars(job).pop(_LENT, (None, None))
    if own is not None:
        job.connection = own
        with contextlib.suppress(Exception):  # user code may have broken it
            pool.disconnect(inuse_connections=False)


@contextlib.contextmanager
def lent(job: Job) -> Iterator[None]:
    lend(job)
    try:
        yield
    finally:
        take_back(job)


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
