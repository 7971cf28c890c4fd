"""What one run of a job tells of its memory: events, thinned where there would be thousands. Nothing is read here."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from rqmem import events
from rqmem.policy.thinning import LastLine, worth_a_line
from rqmem.units import to_mb

_clock = time.monotonic
_CHUNK_SECONDS = 1.0  # between two chunks that are told


class Teller:
    """Of one run.

    Args:
        whose: job, job_id, queue and worker of each event.
        warning_fraction: of the ceiling, above which a warning is told once until usage is below it again.
    """

    def __init__(self, whose: dict[str, Any], warning_fraction: float) -> None:
        self._whose = whose
        self._warning_fraction = warning_fraction
        self._last_line: LastLine | None = None
        self._untold: events.Checkpoint | None = None
        self._warned = False
        self._chunk_at = float("-inf")

    def tell(self, kind: type[events.Event], **figures: Any) -> None:
        """An event as it is."""
        events.emit(kind(**figures, **self._whose))

    def checkpoint(self, operation: str, usage_bytes: int, peak_bytes: int, limit_bytes: int) -> None:
        """The first of each kind of place, each new 5 % of the ceiling, one in ten seconds and the last are notable."""
        fraction = usage_bytes / limit_bytes
        notable, self._last_line = worth_a_line(self._last_line, fraction, _clock(), operation)
        told = events.Checkpoint(
            operation=operation,
            current_memory_mb=to_mb(usage_bytes),
            peak_memory_mb=to_mb(peak_bytes),
            memory_limit_mb=to_mb(limit_bytes),
            notable=notable,
            **self._whose,
        )
        events.emit(told)
        self._untold = None if notable else told
        high = fraction > self._warning_fraction
        if high and not self._warned:
            self.tell(
                events.UsageWarning,
                operation=operation,
                current_memory_mb=told.current_memory_mb,
                memory_limit_mb=told.memory_limit_mb,
                threshold_percentage=round(100 * self._warning_fraction, 1),
            )
        self._warned = high

    def chunk(self, items: int, items_done: int, usage_bytes: int) -> None:
        """A finished chunk, one a second at most."""
        now = _clock()
        if now - self._chunk_at >= _CHUNK_SECONDS:
            self._chunk_at = now
            self.tell(events.ChunkDone, items=items, items_done=items_done, memory_mb=to_mb(usage_bytes))

    def end(self, **figures: Any) -> None:
        """The run's figures, after its last checkpoint where that was not told."""
        if self._untold is not None:
            events.emit(replace(self._untold, notable=True, again=True))
        self.tell(events.RunEnded, **figures)
