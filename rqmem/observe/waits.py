"""What keeps jobs waiting that could run: RQ's limits (``concurrency``) and the budgets of pools. Only reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from redis import Redis

from rqmem.observe.model import Limit, Pool
from rqmem.rq_names import RQ_KEY_PREFIX, RateLimitRegistry
from rqmem.store.history import history_reader
from rqmem.store.unreadable import readable

_MOST_KEYS = 1000  # that are looked at; a type with a concurrency_key has one for each value
_MOST_LIMITS = 50


def read_limits(connection: Redis) -> list[Limit]:
    """The limits that hold jobs back, those with most of them first."""
    raw = cast("set[bytes]", connection.smembers(RateLimitRegistry.rl_keys_key))
    names = sorted(readable(bytes.decode, raw, RateLimitRegistry.rl_keys_key))[:_MOST_KEYS]
    if not names:
        return []
    with connection.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.zcard(_key(name, ":rate_limited"))
        counts = cast("list[int]", pipeline.execute())
    holding = sorted(((count, name) for count, name in zip(counts, names, strict=True) if count), reverse=True)
    return _read(connection, [name for _, name in holding[:_MOST_LIMITS]])


def read_limit_of(connection: Redis, job_key: str) -> Limit | None:
    """The limit of this job; None: it has none."""
    name = cast("bytes | None", connection.hget(job_key, "rate_limit_key"))
    return next(iter(_read(connection, [name.decode()])), None) if name else None


def _read(connection: Redis, names: list[str]) -> list[Limit]:
    with connection.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hget(_key(name), "concurrency")
            pipeline.zcard(_key(name, ":allowed"))
            pipeline.zcard(_key(name, ":rate_limited"))
            pipeline.zrange(_key(name, ":rate_limited"), 0, 0, withscores=True)
        answers: list[Any] = pipeline.execute() if names else []
    rows = zip(names, *[iter(answers)] * 4, strict=True)
    return readable(lambda row: _limit(*row), rows, _key("*"))


def _limit(name: str, most: bytes | None, admitted: int, waiting: int, first: list[tuple[bytes, float]]) -> Limit:
    since = first[0][1] if first and first[0][1] > 0 else None
    return Limit(name, int(most or 0), admitted, waiting, since)


def _key(name: str, part: str = "") -> str:
    return f"{RQ_KEY_PREFIX}:rl:{name}{part}"


def read_pools(connection: Redis, names: Iterable[str], now: float) -> list[Pool]:
    """The pools of these names of which a worker has told lately."""
    return [Pool(**vars(record), read_at=now) for record in history_reader.pools(connection, names)]
