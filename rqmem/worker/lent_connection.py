"""The connection that code of users gets as ``job.connection``: one of its own.

Such code may leave anything on a connection: another database, an open transaction, a subscription, another user. The
process goes on with a connection that no job has had, and the next job gets a new one. Objects of redis-py that a job
keeps go on too, in the state in which its client was made.

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
    """Code of users runs next, and may use ``job``. Nothing connects before it does."""
    values = vars(job)
    own = values.get("connection")
    if _LENT not in values and isinstance(own, Redis):  # a job of a lease may not have been read yet
        job.connection = lent = _another(own)
        values[_LENT] = own, lent.connection_pool


def take_back(job: Job) -> None:
    """Such code has ended. Again is harmless."""
    own, pool = vars(job).pop(_LENT, (None, None))
    if own is not None:
        job.connection = own
        with contextlib.suppress(Exception):  # code of users has had it
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
