"""What runs of each job type need, by their last runs, for a worker that expects it of the next one."""

from __future__ import annotations

from contextlib import suppress

from redis import Redis
from redis.exceptions import ResponseError

from rqmem.store.history import history_reader
from rqmem.store.history.history_records import OK, Run

_MOST_TYPES = 100


class KnownPeaks:
    """What jobs of each type need, by their last runs that ended well. Read again every ten minutes."""

    _SECONDS = 600.0

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, float, float]] = {}

    def knows(self, job_type: str) -> bool:
        """Whether `of` can answer without Redis."""
        return job_type in self._known

    def of(self, connection: Redis | None, job_type: str, initial_mb: float, now: float) -> float:
        """MB that a run will probably use if it begins at ``initial_mb``; 0 if nothing is known.

        ``connection``: None to answer without Redis. Raises redis-py's errors.
        """
        at, peak_mb, grown_mb = self._known.get(job_type, (float("-inf"), 0.0, 0.0))
        if connection is not None and now - at >= self._SECONDS:
            peak_mb = grown_mb = 0.0
            with suppress(ResponseError):  # what Redis refuses is reported when it is written
                for run in history_reader.runs(connection, job_type):
                    peak_mb, grown_mb = _with(run, peak_mb, grown_mb)
            if len(self._known) >= _MOST_TYPES:
                self._known.clear()
            self._known[job_type] = now, peak_mb, grown_mb
        return max(peak_mb, initial_mb + grown_mb) if peak_mb else 0.0

    def ran(self, run: Run) -> None:
        if run.job in self._known:
            at, peak_mb, grown_mb = self._known[run.job]
            self._known[run.job] = at, *_with(run, peak_mb, grown_mb)


def _with(run: Run, peak_mb: float, grown_mb: float) -> tuple[float, float]:
    """The highest peak and growth, with those of this run if it ended well."""
    if run.layer or run.outcome != OK:
        return peak_mb, grown_mb
    return max(peak_mb, run.peak_mb), max(grown_mb, run.peak_mb - run.initial_mb)
