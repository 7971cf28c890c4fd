"""What an item of a job type has cost, by the journal, for the first chunk of a run. Read once a minute at most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from rqmem.errors import JournalVersionError
from rqmem.policy.histogram import percentile
from rqmem.store.history import history_reader

if TYPE_CHECKING:
    from redis import Redis

_FRACTION = 0.9
_KNOWN_SECONDS = 60.0
_MOST_TYPES = 100
_known: dict[str, tuple[float, float | None]] = {}


def kb_per_item(connection: Redis, job_type: str, now: float) -> float | None:
    """A high percentile of KB per item; None where nothing is known, or Redis does not say."""
    at, cost = _known.get(job_type, (float("-inf"), None))
    if now - at < _KNOWN_SECONDS:
        return cost
    try:
        history_reader.check_version(connection)
        cost = percentile(history_reader.decayed(connection, job_type, now)[2], _FRACTION)
    except (RedisError, JournalVersionError):
        cost = None
    if len(_known) >= _MOST_TYPES:
        _known.clear()
    _known[job_type] = (now, cost)
    return cost
