"""One run of a job: its settings, its ceiling and checkpoints, its calls that work in chunks, and its record in Redis.

It works without a `MemoryWorker` too (a direct call, a stock ``rq worker``). Then nothing is saved to resume from.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from rqmem import events, log
from rqmem.config.load import load
from rqmem.errors import MemoryLimitExceeded, RqmemError, SplitInstead
from rqmem.job import tree
from rqmem.job.ceiling import Ceiling
from rqmem.job.checkpoints import Checkpoints
from rqmem.job.chunk_progress import ChunkCounts, ChunkProgress, SavedChunkProgress
from rqmem.job.parent import OpenSplit
from rqmem.job.run_events import Reporter
from rqmem.policy import chunk_size as chunk_size_policy
from rqmem.policy import escalation
from rqmem.policy.after_breach import GOES_ON
from rqmem.policy.ceiling import effective_limit_mb
from rqmem.policy.escalation import Step
from rqmem.rq_names import get_current_job
from rqmem.sources import Cuttable
from rqmem.store import execution_reader
from rqmem.store.execution_records import GATHER, Pending, RunRecord
from rqmem.store.executions import RunWriter, opening
from rqmem.store.held_run import RunFigures
from rqmem.store.history import learned
from rqmem.units import to_mb
from rqmem.worker.horse import user_code

_clock = time.monotonic
_LONG_SECONDS = 1.0  # such a run is always reported


class JobRun:
    """One run of a job.

    Args:
        on_breach: the job's ``on_breach``; ``steps``: its ``escalate_to``, with ``"escalate"``.

    Attributes:
        configured: what the config file says of the job type, by attribute of the job.
        resumable: finished chunks are saved, so that a later execution goes on after them.
        cut_rest: makes children of the rest of a source, which begins at a position; None if there is no rest.
        horse: the horse that runs the job; None without a `MemoryWorker`.
        record: what earlier executions left.
        pending: the children, once this execution has made them all.
        open_split: the children, where this execution enqueues them one by one.
    """

    def __init__(self, job: str, declared_mb: float | None, on_breach: str, steps: Sequence[Step] = ()) -> None:
        events.subscribe(log.write_event)
        horse = self.horse = user_code.current()
        self.config = horse.config if horse is not None else load(os.environ).config
        self.configured = self.config.of_job(job)
        declared_mb = self.configured.get("memory_limit_mb", declared_mb)
        self._job, self._started, self._closed = job, _clock(), False
        brief = horse is not None and horse.brief
        self.reporter = Reporter(_about(job, horse), self.config.warning_threshold, brief=brief)
        self.ceiling = Ceiling(self.config, horse, self.reporter)
        self.checkpoints = Checkpoints(self.config, horse, self.ceiling, self.reporter)
        self.counts = ChunkCounts(horse.page if horse is not None else None)
        self._calls = 0  # of those whose chunks are saved
        self._open_calls: list[ChunkProgress] = []
        # A job that another job's code calls is part of that one: it saves nothing, and its ceiling ends with it.
        self._nested = horse is not None and horse.page.has_run
        self._steps = steps if horse is not None and not self._nested else ()
        self._declared_mb, step_mb = declared_mb, self._step_mb(declared_mb)
        if horse is not None and not self._nested:
            self.ceiling.check_fit(declared_mb, step_mb, self.checkpoints.usage.initial)
        self.ceiling.set(declared_mb, step_mb)
        self.record = RunRecord()
        self.run_id = uuid4().hex  # of a run that no later execution continues
        self._writer: RunWriter | None = None
        if horse is not None and not self._nested:
            self._open_record(horse, on_breach)
        self.resumable = self._writer is not None and on_breach in GOES_ON
        if horse is not None and self._writer is not None:
            horse.page.resumable = self.resumable
        self.pending: Pending | None = None
        self.open_split: OpenSplit | None = None
        self.cut_rest: Callable[[Cuttable[Any], str], Pending | None] | None = None
        self.reporter.routine(
            events.JobStarted,
            memory_mb=to_mb(self.checkpoints.usage.initial),
            memory_limit_mb=to_mb(self.ceiling.bytes),
        )

    def _open_record(self, horse: user_code.Horse, on_breach: str) -> None:
        """Go on with the record that earlier executions left, or begin a new one."""
        anew = True
        if horse.held is None:  # else it is the first execution of the job
            before = horse.ask("read the run", execution_reader.run)
            anew = before.is_over(horse.job_created_at)
            if anew and before.split is not None and not before.finished:
                horse.ask("forget the children of an earlier run", tree.undo, horse.serializer)
            self.record = RunRecord() if anew else before
        self.run_id = self.record.run_id or horse.execution_id
        self._writer = RunWriter(horse.connection, horse.job_id, horse.execution_id, horse.held)
        steps, page = escalation.written(self._steps), horse.page
        self._writer.open(opening(self._job, on_breach, steps, horse.job_created_at, self.run_id), anew=anew)
        page.has_run = True
        page.opening = "\n".join((self._job, on_breach, steps))

    def waiting_horse(self) -> user_code.Horse:
        """The horse of a job that waits for children. Raises `RqmemError` where nobody could wait."""
        if self.horse is None or not self.horse.page.has_run:
            raise RqmemError(
                "only a MemoryWorker can wait for child jobs, and this is none: run the job with 'rqmem worker', "
                "or ask should_split_job first, which says no here"
            )
        return self.horse

    @property
    def tenant(self) -> str:
        """For whom the job works; empty: for nobody. A job that another one calls works for the same."""
        return self.horse.page.tenant if self.horse is not None else ""

    @tenant.setter
    def tenant(self, name: str) -> None:
        if self.horse is not None and not self._nested:
            self.horse.page.tenant = name
            self.ceiling.bound_by_tenant(name)

    # Escalation

    def _step_mb(self, declared_mb: float | None) -> float | None:
        """The ceiling of ``escalate_to`` that this execution begins with; None: the declared one.

        It is the one that a breach has led to, else, on a worker with ``--auto``, the one that most runs needed.
        """
        if not self._steps or self.horse is None:
            return None
        if self.horse.held is None:  # else it is the first execution of the job
            before = self.horse.ask("read the ceiling", execution_reader.run)
            if before.escalated_mb and not before.is_over(self.horse.job_created_at):
                return before.escalated_mb
        if not (self.config.auto and self.config.journal_enabled):
            return None
        counts = learned.needed(self.horse.connection, self._job, time.time())
        return escalation.begin_with(self._ceilings(declared_mb), counts, self.config.memory_mb)

    def _ceilings(self, declared_mb: float | None) -> list[float]:
        """All that the job may have, in MB, lowest first."""
        first = effective_limit_mb(declared_mb, None, self.config.memory_mb or self.config.default_limit_mb)
        return [first, *(step.ceiling_mb for step in self._steps if step.ceiling_mb > first)]

    def _needed_mb(self, peak_bytes: int) -> float | None:
        """The lowest ceiling that this run would have kept; None: it does not escalate."""
        if not self._steps or self.horse is None:
            return None
        peak_mb = to_mb(max(peak_bytes, self.horse.page.peak_bytes))
        return escalation.needed_mb(self._ceilings(self._declared_mb), peak_mb)

    # Chunks

    @contextmanager
    def chunk_progress(self, chunk_size: int | None, *, adaptive: bool) -> Iterator[ChunkProgress]:
        """A call of ``process_in_chunks`` begins, or goes on where an earlier execution got to.

        A call within a chunk of another call saves nothing: that chunk is the unit.
        """
        progress = self._begin_call(chunk_size or self.config.default_chunk_size, adaptive)
        self._open_calls.append(progress)
        try:
            yield progress
            progress.note_growth(finished=True)
        except MemoryLimitExceeded:
            progress.note_growth(finished=False)
            raise
        finally:
            self._open_calls.remove(progress)

    def _begin_call(self, declared: int, adaptive: bool) -> ChunkProgress:
        kb_per_item = self._kb_per_item() if adaptive else None
        _, size = chunk_size_policy.start(declared, kb_per_item, self.checkpoints.room_bytes(), adaptive)
        outermost = not self._open_calls
        if not outermost or self._writer is None or self.horse is None or not self.resumable:
            return ChunkProgress(self.checkpoints, self.counts, size, outermost=outermost)
        self._calls += 1
        return SavedChunkProgress(
            self.checkpoints, self.counts, size,
            number=self._calls - 1, record=self.record, writer=self._writer, horse=self.horse,
        )  # fmt: skip

    def cut(self, rest: Cuttable[Any], position: str) -> None:
        """Make child jobs of the rest and end this execution; go on if there is no rest."""
        assert self.cut_rest is not None  # a job that can be resumed has set it
        self.pending = self.cut_rest(rest, position)
        if self.pending is not None:
            raise SplitInstead

    def begin_gather(self) -> None:
        """From here on `gather` runs: its calls are counted apart from those of ``handle``."""
        self._calls = GATHER

    # History

    def advised_chunk_size(self) -> int | None:
        """The recommended chunk size, on a worker with ``--auto``, unless the config file names one."""
        if self.horse is None or "chunk_size" in self.configured:
            return None
        if not (self.config.auto and self.config.journal_enabled):
            return None
        return learned.advised_chunk_size(self.horse.connection, self._job, self.config.warning_threshold, time.time())

    def bytes_per_item(self) -> float | None:
        """What an item of this job type has cost so far; None where the journal does not know."""
        cost = self._kb_per_item()
        return None if cost is None else 1024 * cost

    def _kb_per_item(self) -> float | None:
        if self.horse is None or not self.config.journal_enabled:
            return None
        return learned.kb_per_item(self.horse.connection, self._job, time.time())

    # The end

    def close(self, outcome: str) -> None:
        """``handle`` has ended: report and save the figures of the run, once."""
        if self._closed:
            return
        self._closed = True
        for progress in self._open_calls:  # of generators that nobody has closed yet
            progress.save()
        usage, counts, seconds = self.checkpoints.usage, self.counts, _clock() - self._started
        peak_mb = to_mb(usage.peak)
        needed_mb = self._needed_mb(usage.peak) if outcome == "ok" else None
        if outcome != "ok" or seconds >= _LONG_SECONDS:
            self.reporter.report_routine()
        if self.reporter.has_reported:
            self._report_end(outcome, peak_mb, seconds, needed_mb)
        usage.close()
        if self._nested:
            self.ceiling.restore()
        if self._writer is not None:
            unsaved_chunks = 0 if self.resumable else counts.chunks
            results = self._calls >= GATHER  # items of `gather` are results of children
            unsaved_items = 0 if self.resumable or results or outcome != "ok" else counts.own_items
            self._writer.close(max(self.record.peak_mb, peak_mb), seconds, unsaved_chunks, unsaved_items)
            if self.horse is not None and self.horse.held is not None and outcome == "ok":
                self.horse.held.figures = RunFigures(
                    counts.own_items, peak_mb, counts.chunks, counts.items, counts.largest, usage.collections,
                    to_mb(usage.freed), needed_mb,
                )  # fmt: skip

    def _report_end(self, outcome: str, peak_mb: float, seconds: float, needed_mb: float | None) -> None:
        usage, counts = self.checkpoints.usage, self.counts
        growth = counts.growth_per_item
        self.reporter.end(
            outcome=outcome,
            initial_memory_mb=to_mb(usage.initial),
            peak_memory_mb=peak_mb,
            final_memory_mb=to_mb(self.checkpoints.usage_bytes()),
            memory_limit_mb=to_mb(self.ceiling.bytes),
            freed_mb=to_mb(usage.freed),
            collections=usage.collections,
            chunks=counts.chunks,
            duration_seconds=round(seconds, 3),
            items=counts.items,
            largest_chunk=counts.largest,
            growth_kb_per_item=None if growth is None else round(growth / 1024, 3),
            needed_mb=needed_mb,
        )


def _about(job: str, horse: user_code.Horse | None) -> dict[str, Any]:
    """The fields of each event that name the run."""
    if horse is not None:
        return {"job": job, "job_id": horse.job_id, "queue": horse.queue, "worker": horse.worker}
    rq_job = get_current_job()
    job_id, queue = (rq_job.id, rq_job.origin or "") if rq_job else ("", "")
    return {"job": job, "job_id": job_id, "queue": queue, "worker": ""}
