"""The events of one run of a job, thinned where there would be thousands. Nothing is read here."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from rqmem import events
from rqmem.policy.thinning import LastLine, worth_a_line
from rqmem.units import to_mb

_clock = time.monotonic
_CHUNK_SECONDS = 1.0  # between two events about chunks


class Reporter:
    """Emits the events of a run.

    Args:
        warning_fraction: of the ceiling. Usage above it is one warning, until it has been below it again.
        brief: what each run reports (`routine`) waits until there is something else to report, and may be left out.
    """

    def __init__(self, about: dict[str, Any], warning_fraction: float, *, brief: bool = False) -> None:
        self.about = about
        self._waiting: list[tuple[type[events.Event], dict[str, Any]]] | None = [] if brief else None
        self._warning_fraction = warning_fraction
        self._last_line: LastLine | None = None
        self._unlogged: events.Checkpoint | None = None
        self._warned = False
        self._chunk_at = float("-inf")

    def report(self, kind: type[events.Event], **figures: Any) -> None:
        self.report_routine()
        events.emit(kind(**figures, **self.about))

    def routine(self, kind: type[events.Event], **figures: Any) -> None:
        """Emit an event of a kind that each run reports."""
        if self._waiting is not None:
            self._waiting.append((kind, figures))
        else:
            events.emit(kind(**figures, **self.about))

    @property
    def has_reported(self) -> bool:
        return self._waiting is None

    def report_routine(self) -> None:
        """Emit what waits. From here on nothing does."""
        waiting, self._waiting = self._waiting, None
        for kind, figures in waiting or ():
            events.emit(kind(**figures, **self.about))

    def checkpoint(self, operation: str, usage_bytes: int, peak_bytes: int, limit_bytes: int) -> None:
        """Emit a checkpoint. It is notable if it is the first of its kind, 5 % above the last notable one, or 10 s
        after it."""
        self.report_routine()
        fraction = usage_bytes / limit_bytes
        notable, self._last_line = worth_a_line(self._last_line, fraction, _clock(), operation)
        checkpoint = events.Checkpoint(
            operation=operation,
            current_memory_mb=to_mb(usage_bytes),
            peak_memory_mb=to_mb(peak_bytes),
            memory_limit_mb=to_mb(limit_bytes),
            notable=notable,
            **self.about,
        )
        events.emit(checkpoint)
        self._unlogged = None if notable else checkpoint
        high = fraction > self._warning_fraction
        if high and not self._warned:
            self.report(
                events.UsageWarning,
                operation=operation,
                current_memory_mb=checkpoint.current_memory_mb,
                memory_limit_mb=checkpoint.memory_limit_mb,
                threshold_percentage=round(100 * self._warning_fraction, 1),
            )
        self._warned = high

    def chunk(self, items: int, items_done: int, usage_bytes: int) -> None:
        """Emit a finished chunk, at most one a second."""
        now = _clock()
        if now - self._chunk_at >= _CHUNK_SECONDS:
            self._chunk_at = now
            self.routine(events.ChunkDone, items=items, items_done=items_done, memory_mb=to_mb(usage_bytes))

    def end(self, **figures: Any) -> None:
        """Emit the last checkpoint, if it was not notable, and then the figures of the run."""
        if self._unlogged is not None:
            events.emit(replace(self._unlogged, notable=True, again=True))
        self.report(events.RunEnded, **figures)
