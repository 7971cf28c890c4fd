"""What the journal has of a job type as `rqmem.policy.recommendation` takes it, and the chunk size advised on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from rqmem.errors import JournalVersionError
from rqmem.journal import history_reader
from rqmem.journal.history_reader import DAY_SECONDS, DAYS_KEPT
from rqmem.policy import histogram
from rqmem.policy.recommendation import Day, Past, Recommendation, recommend

if TYPE_CHECKING:
    from redis import Redis

_KNOWN_SECONDS = 60.0
_MOST_TYPES = 100
_known: dict[str, tuple[float, int | None]] = {}


def past(connection: Redis, job_type: str, now: float, known_since: float) -> Past:
    """All that is remembered of it, which begins at ``known_since`` (epoch seconds). Raises redis-py's errors."""
    days = history_reader.tallies(connection, job_type, now - DAYS_KEPT * DAY_SECONDS, now, by_day=True)
    runs = history_reader.runs(connection, job_type)
    totals = history_reader.totals(connection, [job_type]).get(job_type)
    if totals is not None:  # the hour or day of its first run began before it
        known_since = max(known_since, totals.since)
    seconds, items = (sum(getattr(run, field) for run in runs if run.items) for field in ("seconds", "items"))
    return Past(
        days=[Day((now - at) / DAY_SECONDS, each.peaks, each.breached) for at, each in days],
        history_days=(now - known_since) / DAY_SECONDS,
        limit_mb=next((run.limit_mb for run in runs if run.limit_mb), None),
        initial_mb=_median(run.initial_mb for run in runs),
        costs=histogram.summed((each.costs, histogram.weight(now - at)) for at, each in days),
        seconds_per_item=seconds / items if items else None,
        largest_chunk=max((run.largest_chunk for run in runs), default=0),
    )


def advised_chunk_size(connection: Redis, job_type: str, warning_fraction: float, now: float) -> int | None:
    """What ``rqmem recommend`` says, read once a minute at most; None where it says none, or Redis does not answer."""
    at, size = _known.get(job_type, (float("-inf"), None))
    if now - at < _KNOWN_SECONDS:
        return size
    try:
        history_reader.check_version(connection)
        found = recommend(past(connection, job_type, now, now), warning_fraction)
        size = found.chunk_size if isinstance(found, Recommendation) else None
    except (RedisError, JournalVersionError):
        size = None
    if len(_known) >= _MOST_TYPES:
        _known.clear()
    _known[job_type] = (now, size)
    return size


def _median(values: Iterable[float]) -> float:
    inorder = sorted(values)
    return inorder[len(inorder) // 2] if inorder else 0.0
