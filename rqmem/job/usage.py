"""How much memory a run uses: read as cheaply as its ceiling allows, the highest seen, and what a collection gave back.

Nothing is decided or reported here.
"""

from __future__ import annotations

import time

from rqmem.measure.meter import FullReading
from rqmem.measure.own_process import Meter, meter_of_this_process
from rqmem.measure.trim import collect_and_trim
from rqmem.worker.shared_memory import SharedPage

_clock = time.monotonic
_FRESH_SECONDS = 0.001


class RunUsage:
    """Of this process and what it started, while one run lasts. All figures are bytes.

    Args:
        meter: of this process, for several short runs; by default one of this run's own.
    """

    def __init__(self, growth_bytes_per_second: float, page: SharedPage | None, meter: Meter | None = None) -> None:
        self._meter = meter or meter_of_this_process(growth_bytes_per_second)
        self._is_own = meter is None
        self._rate = growth_bytes_per_second
        self._page = page
        self._highest = self._last = 0
        self._read_at = float("-inf")
        self.initial = self.exact() if meter is None or page is None else self.against(page.ceiling_bytes)
        self.collections = self.freed = 0

    def against(self, limit: int) -> int:
        """Usage now: estimated if the estimate proves that it is at most ``limit``, else `exact`.

        Of several short runs, where a reading would take as long as they do, it is that of a millisecond ago.
        """
        now = _clock()
        most = self._last + self._rate * _FRESH_SECONDS
        if not self._is_own and now - self._read_at < _FRESH_SECONDS and most <= limit:
            return self._last
        raw = self._meter.raw()
        usage = self._meter.estimate(raw)
        proven = 0 < usage <= limit and not self._meter.doubtful(raw, limit, now)
        if not proven or self._meter.wants_full(raw, now):
            return self.exact()
        return self._noted(usage)

    def exact(self) -> int:
        """Usage now, by all that can be read."""
        usage = self._meter.full(_clock).usage_bytes
        if usage == 0 and self._page is not None:  # the job has cut us off from /proc; the watcher still reads it
            usage = self._page.usage_bytes
        return self._noted(usage)

    def _noted(self, usage: int) -> int:
        self._highest, self._last, self._read_at = max(self._highest, usage), usage, _clock()
        return usage

    def reading(self) -> FullReading:
        return self._meter.full(_clock)

    @property
    def peak(self) -> int:
        """The highest usage seen from in here or by the watcher, which looks more often."""
        return max(self._highest, self._page.peak_of_job if self._page is not None else 0)

    def collect(self) -> tuple[int, int]:
        """Collect garbage and give freed memory back to the kernel; what that freed, and usage after it."""
        before = self.exact()
        collect_and_trim()
        after = self.exact()
        freed = max(0, before - after)
        self.collections += 1
        self.freed += freed
        return freed, after

    def close(self) -> None:
        if self._is_own:
            self._meter.close()
