"""The checkpoints of one run: they read usage, give memory back near the ceiling, log, and stop a job above it.

They are the first of the three layers that keep a ceiling, and the only one that acts where the job is in a consistent
state. Without a `MemoryWorker` (a direct call, a stock ``rq worker``) they are the only layer.
"""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, ExitStack

from rqmem import events
from rqmem.config.settings import Config
from rqmem.errors import MemoryLimitExceeded
from rqmem.job.ceiling import Ceiling
from rqmem.job.run_events import Reporter
from rqmem.job.usage import RunUsage
from rqmem.text import shortened
from rqmem.units import to_mb
from rqmem.worker import evidence
from rqmem.worker.horse import object_kinds, source_lines, user_code

_clock = time.monotonic
_LONGEST_NAME = 500  # characters of a checkpoint's
_COLLECT_AGAIN_FRACTION = 0.05  # of the ceiling: growth since the last collection that makes another one worth it


class Checkpoints:
    """The checkpoints of a run.

    Attributes:
        usage: of this process and the processes that it has started.
        enabled: False: nothing is read and logged. The ceiling stays on.
    """

    def __init__(self, config: Config, horse: user_code.Horse | None, ceiling: Ceiling, reporter: Reporter) -> None:
        self._config, self._horse, self.ceiling, self._reporter = config, horse, ceiling, reporter
        page, meter = (horse.page, horse.meter) if horse is not None else (None, None)
        self.usage = RunUsage(config.growth_rate, page, meter)
        self.enabled = config.monitoring_enabled
        self._started = _clock()
        self._operation = ""
        self._collect_above_bytes = 0

    def raise_swallowed(self) -> None:
        """To be called before something counts as done. Raises a breach that was raised before and got lost."""
        if self._horse is not None:
            self._horse.raised.check()

    def check(self, operation: str) -> float:
        """A checkpoint: returns MB used. Raises `MemoryLimitExceeded` above the ceiling, also after a collection."""
        return to_mb(self._check(operation, always=True))

    def _check(self, operation: str, *, always: bool) -> int:
        """Returns the bytes used; 0 while monitoring is disabled. ``always``: report it in any case."""
        self.raise_swallowed()
        operation = self.at(operation)
        if not self.enabled:
            return 0
        limit, usage = self.ceiling.bytes, self.usage_bytes()
        if self._horse is not None:
            self._horse.page.add_checkpoint(operation, to_mb(usage))
        if usage >= max(self.ceiling.warning_fraction * limit, self._collect_above_bytes):
            always = True
            self.collect()
            usage = self.usage_bytes()
            self._collect_above_bytes = int(usage + _COLLECT_AGAIN_FRACTION * limit)
        if usage > limit:
            error = MemoryLimitExceeded(self._breach(operation, usage))
            raise self._horse.raised.new(error) if self._horse is not None else error
        if always or self._reporter.has_reported:
            self._reporter.checkpoint(operation, usage, self.usage.peak, limit)
        return usage

    def at(self, operation: str) -> str:
        """Name the place where the job is, for whoever stops it there. Returns the name, shortened if it is long."""
        self._operation = shortened(operation, _LONGEST_NAME)
        if self._horse is not None:
            self._horse.page.operation = self._operation
        return self._operation

    def begin_chunk(self, operation: str) -> int:
        """A chunk begins at this place: usage before it, in bytes."""
        self.at(operation)
        return self.read_bytes()

    def end_chunk(self, operation: str, items: int, items_done: int) -> int | None:
        """A chunk has ended: usage after its checkpoint, in bytes; None while monitoring is disabled."""
        usage = self._check(operation, always=False)
        if not self.enabled:
            return None
        self._reporter.chunk(items, items_done, usage)
        return usage

    def collect(self) -> float:
        """Collect garbage and give freed memory back to the kernel. Returns the MB that this freed."""
        freed, after = self.usage.collect()
        self._reporter.report(
            events.Collection,
            operation=self._operation,
            freed_mb=to_mb(freed),
            memory_mb=to_mb(after),
            collections=self.usage.collections,
        )
        return to_mb(freed)

    def disable(self) -> AbstractContextManager[object]:
        """Read and log nothing from here on, or until the returned context ends. The ceiling stays on."""
        context = ExitStack()
        context.callback(setattr, self, "enabled", self.enabled)
        self.enabled = False
        return context

    def usage_bytes(self) -> int:
        return self.usage.against(self.ceiling.bytes)

    def read_bytes(self) -> int:
        """Usage now; 0 while monitoring is disabled."""
        return self.usage_bytes() if self.enabled else 0

    def room_bytes(self) -> float:
        return self.ceiling.room_bytes(self.usage_bytes())

    def _breach(self, operation: str, usage: int) -> events.Breach:
        reading = self.usage.reading()
        page = self._horse.page if self._horse is not None else None
        return events.Breach(
            used_mb=to_mb(usage),
            limit_mb=to_mb(self.ceiling.bytes),
            peak_mb=to_mb(self.usage.peak),
            layer="checkpoint",
            processes=len(reading.by_pid),
            counted_whole=len(reading.whole),
            hidden=len(reading.hidden),
            operation=operation,
            where=source_lines.described(source_lines.line_of_user_code(sys._getframe())),
            from_mb=to_mb(self.usage.initial),
            growth_seconds=_clock() - self._started,
            grew=source_lines.described_growth(page) if page is not None else [],
            kinds=object_kinds.kinds_that_grew(sys._getframe(), self._config),
            checkpoints=page.checkpoints if page is not None else [],
            tree=evidence.tree(reading.by_pid),
            **self._reporter.about,
        )
