"""A transaction that watches one key, and does not hide that Redis is away."""

from __future__ import annotations

from collections.abc import Callable

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import WatchError

from rqmem.store.retrying import unavailable


def watching(connection: Redis, key: str, change: Callable[[Pipeline], None]) -> None:
    """As redis-py's `Redis.transaction`: ``change`` reads, calls `multi` and writes; again if the key has changed.

    redis-py's repeats it also if the connection is lost, without a pause: for ever where the server closes it each
    time, as it does at a value that is too large. Here that is raised, and `unavailable` knows it.
    """
    with connection.pipeline() as pipeline:
        while True:
            try:
                pipeline.watch(key)
                change(pipeline)
                pipeline.execute()
            except WatchError as error:
                if unavailable(error) is not None:
                    raise
            else:
                return
