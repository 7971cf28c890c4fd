"""Which job types have figures of their own: so many, and all others together are `OTHERS`.

Without a bound, figures would grow with the number of types, and a program can make types without end. A type that has
a place keeps it until it was not seen for a day and another one wants it: so one that runs each night stays. What is
known of a type that goes is added to the others, but for its last runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from rqmem.store import keys
from rqmem.store.keys import (
    DAY_SECONDS,
    DAYS_KEPT,
    HOUR_SECONDS,
    HOURS_KEPT,
    WEEK_SECONDS,
    WEEKS_KEPT,
)

if TYPE_CHECKING:
    from redis import Redis

OTHERS = "(others)"
KEPT_TYPES = 100
"""With `OTHERS`."""

_ABANDONED_SECONDS = DAY_SECONDS + 2 * HOUR_SECONDS
_FORGOTTEN_AT_ONCE = 100


def kept_as(connection: Redis, names: Iterable[str], now: float) -> dict[str, str]:
    """Job type -> itself, or `OTHERS`: under which name its figures are to be kept. "" is about no job, and stays."""
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
    """Forget types until there are so many, those first that were not seen for longest."""
    excess = connection.zcard(keys.TYPES) - count
    if excess > 0:
        excess += connection.zscore(keys.TYPES, OTHERS) is None  # which comes then
        _forget_oldest(connection, min(excess, _FORGOTTEN_AT_ONCE), float("inf"))


def _forget_oldest(connection: Redis, wanted: int, seen_before: float) -> int:
    """Forget so many that were last seen before that; how many there were."""
    found = cast("list[tuple[bytes, float]]", connection.zrange(keys.TYPES, 0, wanted, withscores=True))
    oldest = [(raw.decode(), seen) for raw, seen in found if raw != OTHERS.encode() and seen < seen_before][:wanted]
    gone = [(name, seen) for name, seen in oldest if connection.zrem(keys.TYPES, name)]  # else another worker does it
    for name, seen in gone:
        _add_to_others(connection, name, seen)
    return len(gone)


def _add_to_others(connection: Redis, name: str, seen: float) -> None:
    """``seen``: when last, epoch seconds; what is kept of it is older. A worker that dies in here loses its figures."""
    day, hour, week = (int(seen // seconds) for seconds in (DAY_SECONDS, HOUR_SECONDS, WEEK_SECONDS))
    summed = [(keys.totals(name), keys.totals(OTHERS), DAYS_KEPT * DAY_SECONDS)]
    for period, last, kept, seconds in (("d", day, DAYS_KEPT, DAY_SECONDS), ("h", hour, HOURS_KEPT, HOUR_SECONDS)):
        summed += [
            (keys.tally(name, period, number), keys.tally(OTHERS, period, number), seconds * (kept + 1))
            for number in range(last - kept, last + 2)
        ]
    with connection.pipeline(transaction=False) as pipeline:
        for source, _, _ in summed:
            pipeline.hgetall(source)
        read = cast("list[dict[bytes, bytes]]", pipeline.execute())
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
