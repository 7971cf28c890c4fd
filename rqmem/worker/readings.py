"""What is read of one job while it runs: its peaks and curves, and the lines of code where it grew.

The shared page has what others look at meanwhile. Nothing is decided here.
"""

from __future__ import annotations

import time
from typing import Any

from rqmem.measure import linux, procfs
from rqmem.measure.meter import TreeMeter
from rqmem.policy.memory_curve import MemoryCurve
from rqmem.units import MB, to_mb
from rqmem.worker.evidence import Growth, LastSeconds
from rqmem.worker.horse.source_lines import described_growth
from rqmem.worker.horse.user_code import SAMPLE_SIGNAL
from rqmem.worker.shared_memory import SharedPage

_clock = time.monotonic


class Readings:
    """Of one job, from now on.

    Attributes:
        started: when the job began, on the monotonic clock.
        whole_time: usage in MB since then.
    """

    def __init__(
        self, page: SharedPage, horse_pid: int, meter: TreeMeter, step_bytes: int, baseline_bytes: int
    ) -> None:
        self._page = page
        self._horse_pid = horse_pid
        self._meter = meter
        self._baseline = baseline_bytes
        self._peak = 0
        self.started = _clock()
        self.whole_time = MemoryCurve()
        self._growth = Growth(step_bytes, baseline_bytes, page.samples)
        self._last_seconds = LastSeconds(self.started, baseline_bytes)

    def note(self, usage: int, now: float) -> None:
        page = self._page
        self.whole_time.add(now - self.started, usage / MB)
        if usage > self._peak:
            self._peak = page.peak_bytes = usage
        if page.chunks != page.chunk_peak_of:
            page.chunk_peak_bytes, page.chunk_peak_of = usage, page.chunks
        elif usage > page.chunk_peak_bytes:
            page.chunk_peak_bytes = usage
        self._last_seconds.add(now, usage)

    def note_mark(self, *, look: bool = False) -> None:
        """What the horse used between two readings, by the kernel's own mark."""
        mark, page = self._meter.take_mark(self._horse_pid, look=look), self._page
        if mark is None:  # it has ended, or become another program
            page.peak_sampled |= look
            return
        if mark > self._peak:
            self._peak = page.peak_bytes = mark
            self.whole_time.add(_clock() - self.started, mark / MB)
        if page.chunks == page.chunk_peak_of:
            page.chunk_peak_bytes = max(page.chunk_peak_bytes, mark)

    def take_sample(self) -> None:
        if self._growth.take(self._page.samples, self._page.line, self._page.waits):
            self._page.grew = [(to_mb(grown), line) for grown, line in self._growth.lines()]

    def sample(self, usage: int) -> None:
        self.take_sample()
        if not (self._page.in_user_code and self._growth.wants_sample(usage)):
            return
        thread = procfs.read_main_thread(self._horse_pid)
        if thread is not None and thread.catches(SAMPLE_SIGNAL):  # after an exec it would end the job
            self._growth.asked(usage, None if thread.waits else thread.waits_so_far)
            linux.tell_main_thread(self._horse_pid, SAMPLE_SIGNAL)

    def evidence(self) -> dict[str, Any]:
        """The fields of a `Breach` that say how the job grew."""
        now, page = _clock(), self._page
        since, lowest = self._last_seconds.growth_start(now)
        return {
            "baseline_mb": to_mb(self._baseline) if self._baseline else None,
            "from_mb": to_mb(lowest),
            "growth_seconds": now - since,
            "curve": self._last_seconds.curve(now),
            "grew": described_growth(page),
            "checkpoints": page.checkpoints,
        }
