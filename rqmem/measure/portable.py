"""How much memory this process and what it started use, where `rqmem.measure.meter` cannot read: by psutil.

Less exact, in both directions. Read is what belongs to a process alone (USS), of other processes only where the
system lets us (macOS: for root), else what is resident (RSS, mapped files and shared pages included). Pages
that a fork shares with its parent count in neither; what the system has compressed or swapped out does not count.
A process that cannot be read counts as nothing. psutil is imported when the first meter is made.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from rqmem.measure.meter import FullReading

if TYPE_CHECKING:
    import psutil

T = TypeVar("T")

_STEP_BYTES = 4 * 2**20
_STEP_SECONDS = 0.25  # a child that has just started may go unseen for this time
_FULL_SHARE = 20  # full readings take a twentieth of the time at most


class PortableMeter:
    """Meters this process and its descendants, with the methods of `rqmem.measure.meter.TreeMeter`.

    Quick (some 10 µs a process): RSS of those known, less what the last full reading found to be shared. Full
    (milliseconds): looks for new processes too.
    """

    def __init__(self) -> None:
        import psutil

        self._unreadable = (psutil.Error, OSError)
        self._own = _or_none(lambda: psutil.Process(os.getpid()), self._unreadable)
        self._processes = [self._own] if self._own is not None else []
        self._offset = 0
        self._full_raw = 0
        self._full_at = float("-inf")
        self._full_cost = 0.0

    def raw(self) -> int:
        """What is resident, in bytes, mapped files included, shared pages counted once per sharer."""
        return sum(self._resident(process) or 0 for process in self._processes)

    def estimate(self, raw: int) -> int:
        return max(0, raw - self._offset)

    def doubtful(self, raw: int, ceiling_bytes: int, now: float) -> bool:
        """Whether ``raw`` is above the ceiling and the last full reading is no longer new."""
        return raw > ceiling_bytes and now - self._full_at >= _FULL_SHARE * self._full_cost

    def wants_full(self, raw: int, now: float) -> bool:
        """Whether a full reading would better what is reported: much has changed, or children may have been born."""
        age = now - self._full_at
        due = age >= _STEP_SECONDS or abs(raw - self._full_raw) >= _STEP_BYTES
        return due and age >= _FULL_SHARE * self._full_cost

    def full(self, clock: Callable[[], float]) -> FullReading:
        """The full reading; also renews the processes that are known and what of them is shared."""
        started = clock()
        own = self._own
        if own is not None:
            self._processes = [own, *(_or_none(lambda: own.children(recursive=True), self._unreadable) or [])]
        by_pid: dict[int, int] = {}
        for process in self._processes:
            usage = self._usage(process)
            if usage is not None:
                by_pid[process.pid] = usage
        usage_bytes = sum(by_pid.values())
        self._full_raw = self.raw()
        self._offset = max(0, self._full_raw - usage_bytes)
        self._full_at = clock()
        self._full_cost = self._full_at - started
        return FullReading(usage_bytes, by_pid)

    def close(self) -> None:
        """Nothing is kept open."""

    def _usage(self, process: psutil.Process) -> int | None:
        """USS, else RSS, else None."""
        unique = _or_none(lambda: int(process.memory_full_info().uss), (*self._unreadable, AttributeError))
        return self._resident(process) if unique is None else unique

    def _resident(self, process: psutil.Process) -> int | None:
        return _or_none(lambda: int(process.memory_info().rss), self._unreadable)


def _or_none(read: Callable[[], T], errors: tuple[type[BaseException], ...]) -> T | None:
    try:
        return read()
    except errors:
        return None
