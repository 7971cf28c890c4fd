"""The memory of one run, from inside the job: reading, logging, collecting, judging at checkpoints.

This is the first of the three layers that keep a ceiling, and the only one where the job is at a
consistent place. Works without a `MemoryWorker` too (a direct call, a stock ``rq worker``): then it is
the only layer, and nothing is saved to resume from.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from rqmem import events, log
from rqmem.config.load import load
from rqmem.config.settings import Config
from rqmem.errors import ConfigError, HorseTooHeavy, MemoryLimitExceeded, SplitInstead
from rqmem.job import tree
from rqmem.job.chunk_progress import SavedStage, Stage, results_of
from rqmem.job.run_events import Teller
from rqmem.job.usage import Usage
from rqmem.policy import chunk_size as chunk_size_policy
from rqmem.policy import recycling
from rqmem.policy.ceiling import effective_limit_mb
from rqmem.rq_names import get_current_job
from rqmem.sources import Cuttable
from rqmem.store import execution_reader
from rqmem.store.execution_records import GATHER, RunRecord
from rqmem.store.executions import RunWriter
from rqmem.store.history import item_costs
from rqmem.store.history.learned import advised_chunk_size
from rqmem.store.retrying import until_redis_answers
from rqmem.text import shortened
from rqmem.units import MB, show_mb, to_bytes, to_mb
from rqmem.worker import evidence
from rqmem.worker.horse import user_code

_clock = time.monotonic
_LONGEST_NAME = 500  # characters of a checkpoint's
_COLLECT_AGAIN_FRACTION = 0.05  # of the ceiling: growth since the last collection that makes another worth it


class Paused:
    """Monitoring that was switched off; as a context manager it goes on afterwards as it was before."""

    def __init__(self, context: MemoryContext, enabled_before: bool) -> None:
        self._context = context
        self._enabled_before = enabled_before

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> None:
        self._context.enable(self._enabled_before)


class MemoryContext:
    """Memory work of one run of a job.

    Args:
        job: job type as a dotted path.
        declared_mb: the ceiling the job declares, in MB; None: it declares none.
        on_breach: the job's ``on_breach``.
    """

    def __init__(self, job: str, declared_mb: float | None, on_breach: str) -> None:
        events.subscribe(log.write_event)
        self._horse = user_code.current()
        self._config = self._horse.config if self._horse else load(os.environ).config
        self.configured = self._config.of_job(job)  # above what the job declares
        declared_mb = self.configured.get("memory_limit_mb", declared_mb)
        self._about = self._whose(job)
        self._told = Teller(self._about, self._config.warning_threshold)
        self._usage = Usage(self._config.growth_rate, self._horse.page if self._horse else None)
        self._started = _clock()
        self._enabled = self._config.monitoring_enabled
        self._closed = False
        self._stages = 0
        self._depth = 0
        self._open_stages: list[Stage] = []
        self._chunks = self._items = self._own_items = self._largest_chunk = 0
        self._growth_per_item: float | None = None
        self._collect_above_bytes = 0
        # A job called by another's code is part of it: it saves nothing, and its ceiling ends with it.
        self._nested = self._horse is not None and self._horse.page.has_run
        self._ceiling_outside = self._horse.page.ceiling_bytes if self._horse is not None else 0
        if self._horse is not None and not self._nested:
            self._check_that_it_can_hold(declared_mb, self._horse)
        self.set_limit(declared_mb)
        self._run = RunRecord()
        self.run_id = uuid4().hex  # of a call that nobody goes on with
        self._writer: RunWriter | None = None
        here = self._horse
        if here is not None and not self._nested:
            before = until_redis_answers(
                lambda: execution_reader.run(here.connection, here.job_id), f"read the run of job {here.job_id}"
            )
            anew = before.finished or before.job_created_at not in ("", here.job_created_at)
            self._run = RunRecord() if anew else before
            if anew and before.split is not None and not before.finished:
                until_redis_answers(
                    lambda: tree.undo(here.connection, here.job_id, here.serializer),
                    f"forget the children of an earlier job {here.job_id}",
                )
            self._writer = RunWriter(here.connection, here.job_id, here.execution_id)
            self.run_id = self._run.run_id or here.execution_id
            self._writer.open(job, here.job_created_at, self.run_id, on_breach, anew=anew)
            here.page.has_run = True
        self._resumable = self._writer is not None and on_breach in ("resume", "split")
        self.cutter: Callable[[Cuttable[Any], str], bool] | None = None
        self._operation = ""
        self._told.tell(
            events.JobStarted, memory_mb=to_mb(self._usage.initial), memory_limit_mb=to_mb(self._limit_bytes)
        )

    # The ceiling

    def _effective_mb(self, declared_mb: float | None) -> float:
        return effective_limit_mb(declared_mb, self._config.memory_mb, self._config.default_limit_mb)

    def _check_that_it_can_hold(self, declared_mb: float | None, here: user_code.Horse) -> None:
        """Before anything is done: `HorseTooHeavy`, or in a new horse `ConfigError`, for one already above it."""
        limit_mb, used_mb = self._effective_mb(declared_mb), to_mb(self._usage.initial)
        page = here.page
        page.declared_bytes = to_bytes(declared_mb or 0)
        if not page.fresh and page.job == self._about["job"]:  # else it is called by a job that has begun
            need = page.need_bytes if page.need_bytes >= 0 else None
            before = recycling.Fit(page.held_before, page.left_before, need)
            if used_mb >= limit_mb or recycling.crowded(before, to_bytes(limit_mb)):
                raise HorseTooHeavy
        if used_mb < limit_mb or not page.fresh:
            return
        raise ConfigError(
            f"a ceiling of {show_mb(limit_mb)} MB cannot hold for {self._about['job']}: a new horse uses "
            f"{show_mb(used_mb)} MB before the job begins (what is imported and preloaded); declare more"
        )

    def set_limit(self, declared_mb: float | None) -> None:
        """The job declares this ceiling from now on; the worker's own is never exceeded."""
        limit_mb = self._effective_mb(declared_mb)
        self._limit_bytes = to_bytes(limit_mb)
        if self._horse is None:
            return
        self._horse.page.declared_bytes = to_bytes(declared_mb or 0)
        if self._horse.page.ceiling_bytes != self._limit_bytes:
            self._horse.set_ceiling(self._limit_bytes)
        if declared_mb and declared_mb > limit_mb and self._about["job"] not in self._horse.told_of_cut:
            self._told.tell(events.CeilingCut, declared_mb=declared_mb, allowed_mb=limit_mb)

    # Checkpoints

    def checkpoint(self, operation: str) -> float:
        """Read usage, give memory back near the ceiling, log, and return MB used.

        Raises:
            MemoryLimitExceeded: it is above the ceiling, also after a collection.
        """
        if self._horse is not None:
            self._horse.raised.check()
        operation = self.at(operation)
        if not self._enabled:
            return 0.0
        usage = self.usage_bytes()
        if self._horse is not None:
            self._horse.page.add_checkpoint(operation, to_mb(usage))
        if usage >= max(self._config.warning_threshold * self._limit_bytes, self._collect_above_bytes):
            self.collect()
            usage = self.usage_bytes()
            self._collect_above_bytes = int(usage + _COLLECT_AGAIN_FRACTION * self._limit_bytes)
        if usage > self._limit_bytes:
            error = MemoryLimitExceeded(self._breach(operation, usage))
            raise self._horse.raised.new(error) if self._horse is not None else error
        self._told.checkpoint(operation, usage, self._usage.peak, self._limit_bytes)
        return to_mb(usage)

    def at(self, operation: str) -> str:
        """Name the place the job is at, for whoever stops it there. Returns the name as it is told, of some length."""
        self._operation = shortened(operation, _LONGEST_NAME)
        if self._horse is not None:
            self._horse.page.operation = self._operation
        return self._operation

    def collect(self) -> float:
        """Collect garbage, give freed memory back to the kernel; returns the MB that freed."""
        freed, after = self._usage.collect()
        self._told.tell(
            events.Collection,
            operation=self._operation,
            freed_mb=to_mb(freed),
            memory_mb=to_mb(after),
            collections=self._usage.collections,
        )
        return to_mb(freed)

    def tell(self, kind: type[events.Event], **figures: Any) -> None:
        """An event of this run."""
        self._told.tell(kind, **figures)

    def cut(self, rest: Cuttable[Any], position: str) -> None:
        """What is left, from that position, becomes child jobs; this execution ends, unless nothing is left."""
        assert self.cutter is not None  # a job that can be resumed has one
        if self.cutter(rest, position):
            raise SplitInstead

    def disable(self) -> Paused:
        """No more readings and lines, or none until the returned block is left; the ceiling itself stays on."""
        before, self._enabled = self._enabled, False
        return Paused(self, before)

    def enable(self, enabled: bool) -> None:
        """Readings and lines again, or not."""
        self._enabled = enabled

    # Chunks

    @property
    def resumable(self) -> bool:
        """Whether finished chunks are saved, so that a later execution goes on after them."""
        return self._resumable

    @contextmanager
    def stage(self, chunk_size: int | None, *, adaptive: bool) -> Iterator[Stage]:
        """A call of ``process_in_chunks``: it begins, or goes on where an earlier execution got to.

        One within a chunk of another saves nothing: that chunk is the unit.
        """
        self._depth += 1
        stage = self._begin_stage(chunk_size or self._config.default_chunk_size, adaptive)
        self._open_stages.append(stage)
        try:
            yield stage
            self._note_growth(stage.confirmed_growth())
        except MemoryLimitExceeded:
            self._note_growth(stage.growth.per_item())
            raise
        finally:
            self._depth -= 1
            self._open_stages.remove(stage)

    def _note_growth(self, bytes_per_item: float | None) -> None:
        """What stays of each item of a stage that has ended; the largest of the run is told."""
        if bytes_per_item is not None and self._depth == 1:
            self._growth_per_item = max(self._growth_per_item or 0.0, bytes_per_item)

    def _begin_stage(self, size: int, adaptive: bool) -> Stage:
        prior = self._cost_before() if adaptive else None
        if self._depth > 1 or self._writer is None or self._horse is None or not self._resumable:
            return Stage(self, size, adaptive=adaptive, prior_kb_per_item=prior)
        number = self._stages
        self._stages += 1
        return SavedStage(
            self, size, adaptive=adaptive, prior_kb_per_item=prior,
            number=number, run=self._run, writer=self._writer, horse=self._horse,
        )  # fmt: skip

    def _cost_before(self) -> float | None:
        """KB an item of this job type has cost, by the journal."""
        if self._horse is None or not self._config.journal_enabled:
            return None
        return item_costs.kb_per_item(self._horse.connection, self._about["job"], time.time())

    def advised_chunk_size(self) -> int | None:
        """Items per chunk by the journal, on a worker with ``--auto`` and where the config file names none."""
        if self._horse is None or not (self._config.auto and self._config.journal_enabled):
            return None
        if "chunk_size" in self.configured:
            return None
        return advised_chunk_size(
            self._horse.connection, self._about["job"], self._config.warning_threshold, time.time()
        )

    def begin_gather(self) -> None:
        """From here on it is `gather` that works: its stages are other ones than ``handle``'s."""
        self._stages = GATHER

    def saved_results(self, stage: int) -> list[Any]:
        """What earlier executions had finished of a stage."""
        return [] if self._horse is None else results_of(self._horse, stage)

    def bytes_per_item_before(self) -> float | None:
        """What an item of this job type has cost, by the journal, in bytes."""
        cost = self._cost_before()
        return None if cost is None else 1024 * cost

    def usage_bytes(self) -> int:
        """Usage now."""
        return self._usage.against(self._limit_bytes)

    @property
    def here(self) -> user_code.Horse | None:
        """The horse, if this is one."""
        return self._horse

    @property
    def run(self) -> RunRecord:
        """What earlier executions left."""
        return self._run

    @property
    def config(self) -> Config:
        """The worker's settings, or the environment's."""
        return self._config

    @property
    def limit_bytes(self) -> int:
        """The ceiling now."""
        return self._limit_bytes

    @property
    def warning_fraction(self) -> float:
        """Of the ceiling."""
        return self._config.warning_threshold

    def read_bytes(self) -> int:
        """Usage; 0 while nobody reads."""
        return self.usage_bytes() if self._enabled else 0

    def room_bytes(self) -> float:
        """What a chunk may take, from here."""
        return chunk_size_policy.room(self.usage_bytes(), self._limit_bytes, self._config.warning_threshold)

    def chunk_peak_bytes(self) -> int:
        """The highest usage that the watcher saw during the last chunk; 0 where it did not look."""
        page = self._horse.page if self._horse is not None else None
        return page.chunk_peak_bytes if page is not None and page.chunk_peak_of == self._chunks - 1 else 0

    def chunk_finished(self, operation: str, items: int, items_done: int) -> int | None:
        """A chunk of so many items is done: count it, checkpoint; usage after it, None while nobody reads."""
        self._chunks += 1
        self._items += items
        self._own_items += items if self._depth == 1 else 0  # else a chunk within one, whose items count
        self._largest_chunk = max(self._largest_chunk, items)
        if self._horse is not None:
            page = self._horse.page
            page.chunks, page.items, page.largest_chunk = self._chunks, self._items, self._largest_chunk
            if self._depth == 1:
                page.items_done = items_done
        self.checkpoint(operation)
        if not self._enabled:
            return None
        usage = self.usage_bytes()
        self._told.chunk(items, items_done, usage)
        return usage

    # The end

    def close(self, outcome: str) -> None:
        """``handle`` ended: tell the whole run's figures, once."""
        if self._closed:
            return
        self._closed = True
        for stage in self._open_stages:  # of generators that nobody has closed yet
            stage.save()
        peak, seconds = self._usage.peak, _clock() - self._started
        self._told.end(
            outcome=outcome,
            initial_memory_mb=to_mb(self._usage.initial),
            peak_memory_mb=to_mb(peak),
            final_memory_mb=to_mb(self.usage_bytes()),
            memory_limit_mb=to_mb(self._limit_bytes),
            freed_mb=to_mb(self._usage.freed),
            collections=self._usage.collections,
            chunks=self._chunks,
            duration_seconds=round(seconds, 3),
            items=self._items,
            largest_chunk=self._largest_chunk,
            growth_kb_per_item=None if self._growth_per_item is None else round(self._growth_per_item / 1024, 3),
        )
        self._usage.close()
        if self._nested and self._horse is not None:
            self._horse.set_ceiling(self._ceiling_outside)
        if self._writer is not None:
            chunks, items = (0, 0) if self._resumable else (self._chunks, self._own_items if outcome == "ok" else 0)
            items = 0 if self._stages >= GATHER else items  # those are results
            self._writer.close(max(self._run.peak_mb, to_mb(peak)), seconds, chunks, items)

    def _breach(self, operation: str, usage: int) -> events.Breach:
        reading = self._usage.reading()
        return events.Breach(
            used_mb=to_mb(usage),
            limit_mb=to_mb(self._limit_bytes),
            peak_mb=to_mb(self._usage.peak),
            layer="checkpoint",
            processes=len(reading.by_pid),
            counted_whole=len(reading.whole),
            hidden=len(reading.hidden),
            operation=operation,
            where=user_code.described(user_code.line_of_user_code(sys._getframe())),
            from_mb=to_mb(self._usage.initial),
            growth_seconds=_clock() - self._started,
            grew=user_code.described_growth(self._horse.page) if self._horse else [],
            kinds=user_code.kinds_that_grew(sys._getframe(), self._config),
            checkpoints=self._horse.page.checkpoints if self._horse else [],
            tree=evidence.tree(reading.by_pid),
            **self._about,
        )

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
