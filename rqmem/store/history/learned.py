"""What the history of a job type teaches: its recommendation, chunk sizes and costs per item."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from redis import Redis
from redis.exceptions import RedisError

from rqmem.errors import JournalVersionError
from rqmem.policy import histogram
from rqmem.policy.recommendation import COST_FRACTION, Day, Recommendation, TypeHistory, recommend
from rqmem.store.history import history_reader
from rqmem.store.keys import DAY_SECONDS, DAYS_KEPT

T = TypeVar("T")

_KNOWN_SECONDS = 60.0
_MOST_TYPES = 100
_known: dict[tuple[str, str], tuple[float, Any]] = {}


def past(connection: Redis, job_type: str, now: float, known_since: float) -> TypeHistory:
    """All that is remembered of a job type since ``known_since`` (epoch seconds). Raises redis-py's errors."""
    days = history_reader.tallies(connection, job_type, now - DAYS_KEPT * DAY_SECONDS, now, by_day=True)
    runs = history_reader.runs(connection, job_type)
    totals = history_reader.totals(connection, [job_type]).get(job_type)
    if totals is not None:  # the tally of its first run begins earlier
        known_since = max(known_since, totals.since)
    seconds, items = (sum(getattr(run, field) for run in runs if run.items) for field in ("seconds", "items"))
    return TypeHistory(
        days=[Day((now - at) / DAY_SECONDS, each.peaks, max(0, each.breached - each.escalations)) for at, each in days],
        history_days=(now - known_since) / DAY_SECONDS,
        limit_mb=next((run.limit_mb for run in runs if run.limit_mb), None),
        declared_mb=runs[0].declared_mb if runs else None,
        initial_mb=_median(run.initial_mb for run in runs),
        costs=histogram.summed((each.costs, histogram.weight(now - at)) for at, each in days),
        seconds_per_item=seconds / items if items else None,
        largest_chunk=max((run.largest_chunk for run in runs), default=0),
        needed=histogram.summed((each.needed, 1.0) for _, each in days),
    )


def advised_chunk_size(connection: Redis, job_type: str, warning_fraction: float, now: float) -> int | None:
    """The chunk size that ``rqmem recommend`` advises; None where it advises none, or Redis does not answer."""

    def read() -> int | None:
        found = recommend(past(connection, job_type, now, now), warning_fraction)
        return found.chunk_size if isinstance(found, Recommendation) else None

    return _cached("chunk size", connection, job_type, now, read)


def kb_per_item(connection: Redis, job_type: str, now: float) -> float | None:
    """A high percentile of KB per item, for the first chunk of a run; None: not known, or Redis does not answer."""
    return _cached(
        "KB per item", connection, job_type, now,
        lambda: histogram.percentile(history_reader.decayed_costs(connection, job_type, now), COST_FRACTION),
    )  # fmt: skip


def needed(connection: Redis, job_type: str, now: float) -> Mapping[float, float]:
    """The last runs of a job type by the ceiling in MB that they needed; none where Redis does not answer."""
    counts = _cached(
        "needed", connection, job_type, now,
        lambda: Counter(run.needed_mb for run in history_reader.runs(connection, job_type) if run.needed_mb),
    )  # fmt: skip
    return counts or {}


def _cached(what: str, connection: Redis, job_type: str, now: float, read: Callable[[], T | None]) -> T | None:
    """What ``read`` returns, read at most once a minute; None where the journal cannot be read."""
    at, value = _known.get((what, job_type), (float("-inf"), None))
    if now - at >= _KNOWN_SECONDS:
        try:
            history_reader.check_version(connection)
            value = read()
        except (RedisError, JournalVersionError):
            value = None
        if len(_known) >= _MOST_TYPES:
            _known.clear()
        _known[what, job_type] = (now, value)
    return value


def _median(values: Iterable[float]) -> float:
    inorder = sorted(values)
    return inorder[len(inorder) // 2] if inorder else 0.0
