"""Which job types have figures of their own; all other types together are `OTHERS`.

A program can make job types without end, so their number is bounded. A type keeps its place until it was not seen for
a day and another type needs the place; a job that runs each night keeps it. The figures of a type that goes, except
its last runs, are added to those of `OTHERS`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from redis import Redis

from rqmem.store import keys
from rqmem.store.keys import DAY_SECONDS, DAYS_KEPT, HOUR_SECONDS, HOURS_KEPT, WEEK_SECONDS, WEEKS_KEPT
from rqmem.store.scripts import of_each

OTHERS = "(others)"
KEPT_TYPES = 100
"""How many types have figures, `OTHERS` included."""

_ABANDONED_SECONDS = DAY_SECONDS + 2 * HOUR_SECONDS
_FORGOTTEN_AT_ONCE = 100


def kept_as(connection: Redis, names: Iterable[str], now: float) -> dict[str, str]:
    """Job type -> the name under which its figures are kept: its own or `OTHERS`. "" (no job type) keeps its name."""
    asked = sorted({name for name in names if name not in ("", OTHERS)})
    if not asked:
        return {}
    with connection.pipeline(transaction=False) as pipeline:
        pipeline.zcard(keys.TYPES)
        pipeline.zscore(keys.TYPES, OTHERS)
        for name in asked:
            pipeline.zscore(keys.TYPES, name)
        count, others, *scores = pipeline.execute()
    new = [name for name, score in zip(asked, scores, strict=True) if score is None]
    room = KEPT_TYPES - 1 - (count - (others is not None))
    if len(new) > room:
        room += _forget_oldest(connection, len(new) - room, now - _ABANDONED_SECONDS)
    refused = set(new[max(0, room) :])
    return {name: OTHERS if name in refused else name for name in asked}


def forget_beyond(connection: Redis, count: int) -> None:
    """Forget the types that were not seen for longest, until ``count`` are left."""
    excess = connection.zcard(keys.TYPES) - count
    if excess > 0:
        excess += connection.zscore(keys.TYPES, OTHERS) is None  # `OTHERS` is added then
        _forget_oldest(connection, min(excess, _FORGOTTEN_AT_ONCE), float("inf"))


def _forget_oldest(connection: Redis, wanted: int, seen_before: float) -> int:
    """Forget up to ``wanted`` types that were last seen before that time; returns how many."""
    found = cast("list[tuple[bytes, float]]", connection.zrange(keys.TYPES, 0, wanted, withscores=True))
    oldest = [(raw.decode(), seen) for raw, seen in found if raw != OTHERS.encode() and seen < seen_before][:wanted]
    gone = [(name, seen) for name, seen in oldest if connection.zrem(keys.TYPES, name)]  # else another worker does
    for name, seen in gone:
        _add_to_others(connection, name, seen)
    return len(gone)


def _add_to_others(connection: Redis, name: str, seen: float) -> None:
    """Add the figures of a type, last ``seen`` then, to `OTHERS`. If the worker dies in here, they are lost."""
    day, hour, week = (int(seen // seconds) for seconds in (DAY_SECONDS, HOUR_SECONDS, WEEK_SECONDS))
    summed = [(keys.totals(name), keys.totals(OTHERS), DAYS_KEPT * DAY_SECONDS)]
    for period, last, kept, seconds in (("d", day, DAYS_KEPT, DAY_SECONDS), ("h", hour, HOURS_KEPT, HOUR_SECONDS)):
        summed += [
            (keys.tally(name, period, number), keys.tally(OTHERS, period, number), seconds * (kept + 1))
            for number in range(last - kept, last + 2)
        ]
    read = of_each(connection, Redis.hgetall, [source for source, _, _ in summed])
    with connection.pipeline(transaction=False) as pipeline:
        for (_, target, seconds), counts in zip(summed, read, strict=True):
            for field, amount in counts.items():
                if field != b"since":
                    pipeline.hincrbyfloat(target, field.decode(), float(amount))
            if counts:
                pipeline.expire(target, seconds)
        pipeline.zadd(keys.TYPES, {OTHERS: round(seen)}, nx=True)
        gone = [source for source, _, _ in summed]
        gone += [keys.grew(name, week - before) for before in range(-1, WEEKS_KEPT)]
        pipeline.unlink(keys.runs(name), *gone)
        pipeline.execute()
