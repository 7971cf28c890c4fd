"""Whether a job should make children (`rqmem.job.children`), and how what is left after a breach is cut in two."""

from __future__ import annotations

import logging
from itertools import islice
from typing import Any

from rqmem.errors import ItemTooLarge
from rqmem.job.child_enqueuer import arguments_of
from rqmem.job.children import enqueue_children
from rqmem.job.parent import ParentJob
from rqmem.job.run import JobRun
from rqmem.policy import splitting
from rqmem.policy.splitting import Decision
from rqmem.sources import Cuttable
from rqmem.store import execution_reader, ledger
from rqmem.store.execution_records import Pending
from rqmem.units import show_mb, to_mb
from rqmem.worker.horse.user_code import Horse

_log = logging.getLogger("rqmem.jobs")


def should_split(run: JobRun, job: ParentJob, count: int | None, bytes_per_item: float | None) -> Decision:
    """See `rqmem.MemoryAwareJob.should_split_job`."""
    if run.horse is None:
        reason = "only a MemoryWorker can wait for child jobs"
        _log.warning("%s is not split: %s", job.path(), reason)
        return Decision(False, reason)
    decision = splitting.should_split(
        count,
        _bytes_per_item(run, job) if bytes_per_item is None else bytes_per_item,
        ceiling_bytes=run.checkpoints.ceiling.bytes,
        used_bytes=run.checkpoints.usage_bytes(),
        warning_fraction=run.config.warning_threshold,
        split_above_items=job.split_above_items,
        auto_split_enabled=run.config.auto_split_enabled,
        max_items_per_child=job.items_per_child or run.config.max_items_per_child,
    )
    level, answer = (logging.INFO, "yes") if decision.yes else (logging.DEBUG, "no")
    _log.log(level, "%s splits: %s: %s", job.path(), answer, decision.reason)
    if run.record.split is not None and not decision.yes:
        return Decision(True, "an execution that was cut off has begun to")
    return decision


def fitting_items(run: JobRun, job: ParentJob) -> int:
    """Items of a child of a job that names no number and has not asked whether to split."""
    return splitting.fitting_items(
        _bytes_per_item(run, job), run.checkpoints.room_bytes(), run.config.max_items_per_child
    )


def _bytes_per_item(run: JobRun, job: ParentJob) -> float | None:
    return job.bytes_per_item if job.bytes_per_item is not None else run.bytes_per_item()


def cut_in_two(run: JobRun, job: ParentJob, rest: Cuttable[Any], position: str) -> Pending | None:
    """Make two children of the job's own class for what is left after a breach; one, for a single item after others.

    None where nothing is left: the breach came after the last chunk.

    Raises:
        ItemTooLarge: one item is all there was, or the job has been cut too often.
        SourceError: the rest cannot be cut.
    """
    horse, record = run.waiting_horse(), run.record
    left = len(list(islice(rest.slices(parts=2), 2)))
    begun = record.split is not None and record.split.cut_stage is not None  # by an execution that was cut off
    if left == 0 and not begun:
        return None
    done = record.items.get(record.cut_stage, 0) if record.cut_stage is not None else 0
    cuts = horse.ask("count cuts", ledger.count_cut)
    parts = splitting.parts_of_rest(max(1, left), done or int(begun), cuts - 1)
    if parts == 0:
        raise _too_large(run, job, horse, rest, position, single=left <= 1)
    job_class: Any = type(job)
    arguments = arguments_of(job, job_class, None)
    return enqueue_children(run, rest, job_class, job_class, arguments, parts=parts, cut_stage=record.cut_stage)


def _too_large(
    run: JobRun, job: ParentJob, horse: Horse, rest: Cuttable[Any], position: str, *, single: bool
) -> ItemTooLarge:
    position = rest.begins_at() or position
    if not single:
        return ItemTooLarge(
            f"{job.path()}: cut in two {splitting.MOST_CUTS:,} times, and {position} still breaches: that is no single "
            f"item which does not fit; give the job a higher ceiling"
        )
    limit = show_mb(to_mb(run.checkpoints.ceiling.bytes))
    item = next((f"{item!r:.80}" for item, _ in rest.items_after(None)), "")
    breaches = horse.ask("read breaches", execution_reader.breaches)
    # The item is alone in its chunk by now, and was stopped on its way up.
    needed_mb = splitting.item_mb(breaches[0]) if breaches else None
    needed = f", it takes {show_mb(needed_mb)} MB at least" if needed_mb is not None else ""
    return ItemTooLarge(
        f"{job.path()}: {position} ({item}) does not fit alone below its ceiling of {limit} MB{needed}: "
        "give the job more, or leave that item out"
    )
