"""Queues that are paused: rqmem's workers take no job from them. A stock ``rq worker`` does not know of it."""

from __future__ import annotations

from typing import cast

from redis import Redis

from rqmem.store import keys


def pause(connection: Redis, queue: str) -> bool:
    """Stop a queue. Jobs that run go on. Returns False if it was paused already."""
    return bool(connection.sadd(keys.PAUSED, queue))


def resume(connection: Redis, queue: str) -> bool:
    """Let workers take jobs from it again. Returns False if it was not paused."""
    return bool(connection.srem(keys.PAUSED, queue))


def paused(connection: Redis) -> set[str]:
    return {name.decode() for name in cast("set[bytes]", connection.smembers(keys.PAUSED))}
