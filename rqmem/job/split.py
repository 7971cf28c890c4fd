"""Splitting: whether a job had better make children (`rqmem.job.children`), and what it does when they have ended.

The end of the parent's execution is committed by the worker (`rqmem.worker.settlement`), and so is each child's end.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from rqmem.errors import ChildFailure, ChildJobsFailed, ItemTooLarge
from rqmem.job.children import arguments_of, enqueue_children, horse_of
from rqmem.job.enqueue import is_at_front
from rqmem.job.run import MemoryContext
from rqmem.policy import splitting
from rqmem.policy.splitting import Decision
from rqmem.rq_names import get_current_job
from rqmem.sources import Count, Cuttable
from rqmem.store import execution_reader, ledger, parent_meta
from rqmem.store.execution_records import Pending, Split
from rqmem.store.retrying import until_redis_answers
from rqmem.units import show_mb, to_mb

if TYPE_CHECKING:
    from rqmem.job.base import MemoryAwareJob
    from rqmem.worker.horse.user_code import Horse

T = TypeVar("T")

_RESULTS_AT_ONCE = 500
_log = logging.getLogger("rqmem.jobs")


class Gathered(Cuttable[Any]):
    """What the children returned, in the order of slices, read a batch at a time; of those that failed nothing.

    ``failures`` has those. Where a job was cut after a breach, first comes what it had finished itself. As a source
    (``self.chunks(results)``) its cursor is the number of children read, failed ones with them.
    """

    def __init__(
        self, horse: Horse, end: int, failures: list[ChildFailure], before: list[Any], missing: Collection[int] = ()
    ) -> None:
        self._before = [before] if before else []
        self._horse = horse
        self._total = end
        self._failed = {*(each.number for each in failures), *missing}
        self.failures = failures

    def __len__(self) -> int:
        return self._total - len(self._failed) + len(self._before)

    def __iter__(self) -> Iterator[Any]:
        return (result for result, _ in self.items_after(None))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        position = range(len(self))[index] - len(self._before)
        if position < 0:
            return self._before[0]
        number = next(islice((each for each in range(self._total) if each not in self._failed), position, None))
        return next(self._read(number, number + 1))[0]

    def count(self) -> Count:
        return Count.exact(len(self))

    def items_after(self, cursor: Any) -> Iterator[tuple[Any, Any]]:
        if cursor is None:
            yield from ((each, 0) for each in self._before)
        yield from self._read(cursor or 0, self._total)

    def _read(self, first: int, end: int) -> Iterator[tuple[Any, int]]:
        loads = self._horse.serializer.loads
        here, what = self._horse, f"read results of children of job {self._horse.job_id}"
        for begin in range(first, end, _RESULTS_AT_ONCE):
            batch = partial(ledger.results, here.connection, here.job_id, min(begin + _RESULTS_AT_ONCE, end), begin)
            for number, raw in until_redis_answers(lambda: list(batch()), what):  # noqa: B023
                if number not in self._failed:
                    yield None if raw is None else loads(raw), number + 1


def gather(context: MemoryContext, parent: MemoryAwareJob, split: Split) -> Any:
    """All children have ended: `gather` of the job; or those that failed once more, where that was told before.

    Where some run (again), because the job was queued all the same, or died while it had them run: waits for them.

    Raises `ChildJobsFailed` where some failed and the job does not go on without them.
    """
    here = horse_of(context)
    here.page.gathers = True
    _keep_in_meta(here)
    failures = _failures(here) if split.failed else []
    fails = bool(failures) and parent.on_child_failure == "fail"
    if fails and split.reported:
        return _run_again(here, split, failures)
    if not split.complete:
        return Pending(split.total, split.end)
    if fails:
        until_redis_answers(lambda: ledger.report(here.connection, here.job_id), f"fail job {here.job_id}")
        raise ChildJobsFailed(here.job_id, split.total, failures)
    context.begin_gather()
    before = [] if split.cut_stage is None else context.saved_results(split.cut_stage)
    missing = until_redis_answers(lambda: ledger.missing(here.connection, here.job_id, split), "list children")
    return parent.gather(Gathered(here, split.end, failures, before, missing))


def _keep_in_meta(here: Horse) -> None:
    """How the children ended, in RQ's record of the job, and in RQ's object, which the job may save."""
    figures = until_redis_answers(
        lambda: parent_meta.write(here.connection, here.job_id, here.serializer, None), "keep how children have ended"
    )
    if (job := get_current_job(here.connection)) is not None:
        job.meta["rqmem"] = {**job.meta.get("rqmem", {}), **figures}


def _failures(here: Horse) -> list[ChildFailure]:
    found = until_redis_answers(
        lambda: dict(ledger.outcomes(here.connection, here.job_id)),
        f"look for failed children of job {here.job_id}",
    )
    ended = ((number, text) for number, text in sorted(found.items()) if text != ledger.WAITING)
    return [ChildFailure(number, text) for number, text in ended if text != ledger.OK]


def _run_again(here: Horse, split: Split, failures: list[ChildFailure]) -> Pending:
    """Enqueue the failed children once more, and wait for them. Cut short, the next execution does the rest.

    Raises `ChildJobsFailed` where one is gone for good, before any of them runs.
    """
    connection, what = here.connection, f"run failed children of job {here.job_id} once more"
    parent = get_current_job(connection)
    at_front = parent is not None and is_at_front(parent)
    queues = [
        until_redis_answers(partial(ledger.can_run_again, connection, ledger.child_id(here.job_id, each.number)), what)
        for each in failures
    ]
    if lost := [failure for failure, queue in zip(failures, queues, strict=True) if queue is None]:
        raise ChildJobsFailed(here.job_id, split.total, lost)
    for failure, queue in zip(failures, queues, strict=True):
        if queue is not None:
            until_redis_answers(partial(ledger.run_again, queue, here.job_id, failure.number, at_front=at_front), what)
    return Pending(split.total, split.end)


def joined(results: Iterable[Any]) -> list[Any]:
    """Lists one after the other, others as they are; None is left out."""
    together: list[Any] = []
    for result in results:
        if isinstance(result, list):
            together.extend(result)
        elif result is not None:
            together.append(result)
    return together


def should_split(context: MemoryContext, job: MemoryAwareJob, count: int, bytes_per_item: float | None) -> Decision:
    """See `rqmem.MemoryAwareJob.should_split_job`."""
    if context.here is None:
        reason = "only a MemoryWorker can wait for child jobs"
        _log.warning("%s is not split: %s", job.path(), reason)
        return Decision(False, reason)
    decision = splitting.should_split(
        count,
        bytes_per_item if bytes_per_item is not None else context.bytes_per_item_before(),
        ceiling_bytes=context.limit_bytes,
        used_bytes=context.usage_bytes(),
        warning_fraction=context.warning_fraction,
        split_above_items=job.split_above_items,
        auto_split_enabled=context.config.auto_split_enabled,
        max_items_per_child=job.items_per_child or context.config.max_items_per_child,
    )
    _log.log(logging.INFO if decision.yes else logging.DEBUG, "%s splits: %s: %s",
             job.path(), "yes" if decision.yes else "no", decision.reason)  # fmt: skip
    if context.run.split is not None and not decision.yes:
        return Decision(True, "an execution that was cut off has begun to")
    return decision


def fitting_items(context: MemoryContext, job: MemoryAwareJob) -> int:
    """Items of a child of a job that names none and has not asked whether to split."""
    cost = job.bytes_per_item if job.bytes_per_item is not None else context.bytes_per_item_before()
    return splitting.fitting_items(cost, context.room_bytes(), context.config.max_items_per_child)


def cut_in_two(context: MemoryContext, job: MemoryAwareJob, rest: Cuttable[Any], position: str) -> Pending | None:
    """What is left after a breach, as two children of the job's own class; one item, as one, where others are done.

    None where nothing is left: the breach came after the last chunk.

    Raises:
        ItemTooLarge: one item is all there was, or the job has been cut too often.
        SourceError: the rest cannot be cut.
    """
    here, run = horse_of(context), context.run
    left = len(list(islice(rest.slices(parts=2), 2)))
    begun = run.split is not None and run.split.cut_stage is not None  # by an execution that was cut off
    if left == 0 and not begun:
        return None
    done = run.items.get(run.cut_stage, 0) if run.cut_stage is not None else 0
    cuts = until_redis_answers(lambda: ledger.count_cut(here.connection, here.job_id), f"cut job {here.job_id}")
    parts = splitting.parts_of_rest(max(1, left), done or int(begun), cuts - 1)
    if parts == 0:
        position = rest.begins_at() or position
    if parts == 0 and left > 1:
        raise ItemTooLarge(
            f"{job.path()}: cut in two {splitting.MOST_CUTS:,} times, and {position} still breaches: that is no single "
            f"item which does not fit; give the job a higher ceiling"
        )
    if parts == 0:
        limit = show_mb(to_mb(context.limit_bytes))
        shown = next((f"{item!r:.80}" for item, _ in rest.items_after(None)), "")
        raise ItemTooLarge(
            f"{job.path()}: {position} ({shown}) does not fit alone below its ceiling of {limit} MB"
            f"{_estimated(here)}: give the job more, or leave that item out"
        )
    arguments = arguments_of(job, type(job), None)
    return enqueue_children(context, rest, type(job), type(job), arguments, parts=parts, cut_stage=run.cut_stage)


def _estimated(here: Horse) -> str:
    """What the item takes, by the breach that it has just been isolated with: it was stopped on its way up."""
    last = next(
        iter(until_redis_answers(lambda: execution_reader.breaches(here.connection, here.job_id), "size an item")), None
    )
    needed_mb = splitting.item_mb(last) if last is not None else None
    return f", it takes {show_mb(needed_mb)} MB at least" if needed_mb is not None else ""
