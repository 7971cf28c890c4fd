"""The memory of one run, from inside the job: reading, logging, collecting, judging at checkpoints.

This is the first of the three layers that keep a ceiling, and the only one where the job is at a
consistent place. Works without a `MemoryWorker` too (a direct call, a stock ``rq worker``): then it is
the only layer, and nothing is saved to resume from.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rq import get_current_job

from rqmem import events, log
from rqmem.config import Config
from rqmem.errors import ConfigError, MemoryLimitExceeded, SourceError
from rqmem.journal import reader
from rqmem.journal.records import RunRecord
from rqmem.journal.writer import RunWriter
from rqmem.memory import tree
from rqmem.memory.meter import TreeMeter
from rqmem.memory.trim import collect_and_trim
from rqmem.policy.ceiling import effective_limit_mb
from rqmem.runtime import horse
from rqmem.units import MB, to_bytes, to_mb

_clock = time.monotonic
_COLLECT_AGAIN_FRACTION = 0.05  # of the ceiling: growth since the last collection that makes another worth it


@dataclass(frozen=True)
class Stage:
    """One call of ``process_in_chunks``: its number, chunk size, and where an earlier execution got to.

    ``saved``: its finished chunks are. A call within a chunk of another is not: that chunk is the unit.
    """

    number: int
    chunk_size: int
    saved: bool
    cursor: Any = None
    items_done: int = 0


class MemoryContext:
    """Memory work of one run of a job.

    Args:
        job: job type as a dotted path.
        declared_mb: the ceiling the job declares, in MB; None: it declares none.
        on_breach: the job's ``on_breach``.
    """

    def __init__(self, job: str, declared_mb: float | None, on_breach: str) -> None:
        events.subscribe(log.write_event)
        self._horse = horse.current()
        self._config = self._horse.config if self._horse else Config.from_environ(os.environ)
        self._about = self._whose(job)
        self._tree = _OwnTree()
        self._meter = TreeMeter(self._tree, self._config.growth_bytes_per_second)
        self._started = _clock()
        self._enabled = self._config.monitoring_enabled
        self._closed = False
        self._stages = 0
        self._depth = 0
        self._chunks = 0
        self._collections = 0
        self._freed_bytes = 0
        self._collect_above_bytes = 0
        # A job called by another's code is part of it: it saves nothing, and its ceiling ends with it.
        self._nested = self._horse is not None and self._horse.page.has_run
        self._ceiling_outside = self._horse.page.ceiling_bytes if self._horse is not None else 0
        self.set_limit(declared_mb)
        self._initial_bytes = self._peak_bytes = self._meter.full(_clock).usage_bytes
        self._run = RunRecord()
        self._writer: RunWriter | None = None
        if self._horse is not None and not self._nested:
            before = reader.run(self._horse.connection, self._horse.job_id)
            born = self._horse.job_created_at
            anew = before.finished or before.job_created_at not in ("", born)
            self._run = RunRecord() if anew else before
            self._writer = RunWriter(self._horse.connection, self._horse.job_id, self._horse.execution_id)
            self._writer.open(job, born, on_breach, anew=anew)
            self._horse.page.has_run = True
        self._resumable = self._writer is not None and on_breach == "resume"

    # The ceiling

    def set_limit(self, declared_mb: float | None) -> None:
        """The job declares this ceiling from now on; the worker's own is never exceeded."""
        limit_mb = effective_limit_mb(declared_mb, self._config.memory_mb, self._config.default_limit_mb)
        self._limit_bytes = to_bytes(limit_mb)
        if self._horse is None:
            return
        self._horse.page.declared_bytes = to_bytes(declared_mb or 0)
        self._horse.page.ceiling_bytes = self._limit_bytes
        if declared_mb and declared_mb > limit_mb and self._about["job"] not in self._horse.told_of_cut:
            events.emit(events.CeilingCut(declared_mb=declared_mb, allowed_mb=limit_mb, **self._about))

    # Checkpoints

    def checkpoint(self, operation: str) -> float:
        """Read usage, give memory back near the ceiling, log, and return MB used.

        Raises:
            MemoryLimitExceeded: it is above the ceiling, also after a collection.
        """
        self.at(operation)
        if not self._enabled:
            return 0.0
        usage = self._usage()
        if usage >= max(self._config.warning_threshold * self._limit_bytes, self._collect_above_bytes):
            self.collect()
            usage = self._usage()
            self._collect_above_bytes = int(usage + _COLLECT_AGAIN_FRACTION * self._limit_bytes)
        if usage > self._limit_bytes:
            raise MemoryLimitExceeded(self._breach(operation, usage))
        events.emit(
            events.Checkpoint(
                operation=operation,
                current_memory_mb=to_mb(usage),
                peak_memory_mb=to_mb(self._peak()),
                memory_limit_mb=to_mb(self._limit_bytes),
                **self._about,
            )
        )
        return to_mb(usage)

    def at(self, operation: str) -> None:
        """Name the place the job is at, for whoever stops it there."""
        if self._horse is not None:
            self._horse.page.operation = operation

    def collect(self) -> float:
        """Collect garbage, give freed memory back to the kernel; returns the MB that freed."""
        before = self._meter.full(_clock).usage_bytes
        collect_and_trim()
        freed = max(0, before - self._meter.full(_clock).usage_bytes)
        self._collections += 1
        self._freed_bytes += freed
        return to_mb(freed)

    def disable(self) -> None:
        """No more readings and lines; the ceiling itself stays on."""
        self._enabled = False

    # Chunks

    @property
    def resumable(self) -> bool:
        """Whether finished chunks are saved, so that a later execution goes on after them."""
        return self._resumable

    @contextmanager
    def stage(self, chunk_size: int | None) -> Iterator[Stage]:
        """A call of ``process_in_chunks``: it begins, or goes on where an earlier execution got to."""
        self._depth += 1
        try:
            yield self._begin_stage(chunk_size or self._config.default_chunk_size)
        finally:
            self._depth -= 1

    def _begin_stage(self, size: int) -> Stage:
        if self._depth > 1 or self._writer is None or not self._resumable:
            return Stage(-1, size, saved=False)
        number = self._stages
        self._stages += 1
        size = min(size, self._run.chunk_sizes.get(number, size))
        self._writer.begin_stage(number, size)
        return Stage(number, size, True, self._run.cursors.get(number), self._run.items.get(number, 0))

    def saved_results(self, stage: Stage) -> list[Any]:
        """What processors returned in chunks that earlier executions finished."""
        if not stage.saved or self._horse is None or stage.cursor is None:
            return []
        parts = reader.results(self._horse.connection, self._horse.job_id, stage.number)
        return [result for part in parts for result in self._horse.serializer.loads(part)]

    def finish_chunk(self, stage: Stage, cursor: Any, items: int, results: list[Any]) -> None:
        """A chunk is done: from here a resume goes on. Raises `SourceError`, `RunTakenOver`."""
        self._chunks += 1
        if stage.saved and self._writer is not None:
            self._writer.save_chunk(stage.number, cursor, items, self._serialised(results))

    # The end

    def close(self, outcome: str) -> None:
        """``handle`` ended: tell the whole run's figures, once."""
        if self._closed:
            return
        self._closed = True
        peak, seconds = self._peak(), _clock() - self._started
        events.emit(
            events.RunEnded(
                outcome=outcome,
                initial_memory_mb=to_mb(self._initial_bytes),
                peak_memory_mb=to_mb(peak),
                final_memory_mb=to_mb(self._usage()),
                memory_limit_mb=to_mb(self._limit_bytes),
                freed_mb=to_mb(self._freed_bytes),
                collections=self._collections,
                chunks=self._chunks,
                duration_seconds=round(seconds, 3),
                **self._about,
            )
        )
        self._meter.close()
        self._tree.close()
        if self._nested and self._horse is not None:
            self._horse.page.ceiling_bytes = self._ceiling_outside
        if self._writer is not None:
            unsaved = 0 if self._resumable else self._chunks
            self._writer.close(max(self._run.peak_mb, to_mb(peak)), seconds, unsaved)

    def _usage(self) -> int:
        now = _clock()
        raw = self._meter.raw()
        if self._meter.wants_full(raw, now) or self._meter.doubtful(raw, self._limit_bytes, now):
            usage = self._meter.full(_clock).usage_bytes
        else:
            usage = self._meter.estimate(raw)
        self._peak_bytes = max(self._peak_bytes, usage)
        return usage

    def _peak(self) -> int:
        """The highest usage seen from in here or by the watcher, which looks more often."""
        return max(self._peak_bytes, self._horse.page.peak_bytes if self._horse else 0)

    def _breach(self, operation: str, usage: int) -> events.Breach:
        return events.Breach(
            used_mb=to_mb(usage),
            limit_mb=to_mb(self._limit_bytes),
            peak_mb=to_mb(self._peak()),
            layer="checkpoint",
            processes=len(self._tree()),
            operation=operation,
            where=horse.described(horse.line_of_user_code(sys._getframe())),
            from_mb=to_mb(self._initial_bytes),
            growth_seconds=_clock() - self._started,
            **self._about,
        )

    def _serialised(self, results: list[Any]) -> bytes:
        if not results or self._horse is None:
            return b""
        try:
            return self._horse.serializer.dumps(results)
        except Exception as error:  # pickle raises many kinds
            raise SourceError(
                f"what the processor returned cannot be saved for a resume ({error}): return values that "
                f"{self._horse.serializer.__name__} takes, or pass collect=False"
            ) from error

    def _whose(self, job: str) -> dict[str, Any]:
        if self._horse is not None:
            here = self._horse
            return {"job": job, "job_id": here.job_id, "queue": here.queue, "worker": here.worker}
        rq_job = get_current_job()
        job_id = rq_job.id if rq_job else ""
        return {"job": job, "job_id": job_id, "queue": (rq_job.origin or "") if rq_job else "", "worker": ""}


def checked_limit(limit_mb: Any, whose: str) -> float | None:
    """A declared ceiling as MB; None stays None. Raises `ConfigError`."""
    if limit_mb is None:
        return None
    if isinstance(limit_mb, bool) or not isinstance(limit_mb, int | float) or not 0 < limit_mb < 2**63 / MB:
        raise ConfigError(f"{whose} is {limit_mb!r}: give a number of MB greater than 0, for example 256")
    return float(limit_mb)


class _OwnTree:
    """This process and what it started. (Orphans are the worker's to find.)"""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._below = tree.Members(self._pid)

    def __call__(self) -> list[int]:
        return [self._pid, *self._below()]

    def close(self) -> None:
        self._below.close()
