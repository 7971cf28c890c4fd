"""The children of a job: slices of its data, each a job of its own that the job waits for. None is made twice.

A child carries its slice as JSON, its parent's id, its number and, where that is known before they are made, how many
there are. RQ has the children of a job as a `rq.group.Group` under the parent's id.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, Generic, TypeVar

from rqmem import child_ids, events
from rqmem.errors import ConfigError, RunTakenOver, SourceChanged, SourceError
from rqmem.job import tree
from rqmem.job.child_enqueuer import ITEMS, SLICE, ChildEnqueuer, arguments_of, check_sendable
from rqmem.job.enqueue import Enqueueable
from rqmem.job.parent import ParentJob
from rqmem.job.run import JobRun
from rqmem.rq_names import Execution, Job, NoSuchJobError, Queue
from rqmem.sources import Concat, Cuttable, Source, as_source, describe_slice, open_slice
from rqmem.sources.contract import parts_for
from rqmem.store import ledger
from rqmem.store.execution_records import Pending
from rqmem.store.retrying import until_redis_answers
from rqmem.values import dataclass, field
from rqmem.worker.horse.user_code import Horse

T = TypeVar("T")

_BATCH = 200


@dataclass(frozen=True)
class ChildJob(Generic[T]):
    """A child that may be enqueued: its number, its slice, and its other arguments."""

    number: int
    items: Cuttable[T]
    kwargs: Mapping[str, Any]
    _all: ChildJobs[T] = field(repr=False, compare=False)

    def enqueue(self) -> Job:
        """Enqueue this one, once; the job waits for those that are enqueued when its ``handle`` returns, and gathers.

        Where ``handle`` raises an exception instead, they are undone.

        Raises:
            ConfigError: this execution has split otherwise already, or it is the gather.
        """
        return self._all.enqueue_one(self)


class ChildJobs(Generic[T]):
    """The children that a job can be split into, made from slices as they are looked at.

    `enqueue` makes all of them jobs, `ChildJob.enqueue` one. Its length is how many there are.
    """

    def __init__(
        self, run: JobRun, parent: ParentJob, job_class: type[Enqueueable],
        source: Cuttable[T], arguments: dict[str, Any], items_per_child: int, queue: str | None,
    ) -> None:  # fmt: skip
        self._run, self._horse, self._parent, self._job_class = run, run.waiting_horse(), parent, job_class
        self._arguments, self._items_per_child, self._queue = arguments, items_per_child, queue
        # Where an execution that was cut off has left children, the data are what they were for that one.
        self._made = None if self._has_split() else _made(self._horse)
        self._first = source.first_cursor() if self._made is None else self._made.first
        self._source = source if self._first is None else source.rest(self._first)
        self._length: int | None = None
        self._enqueued: set[int] = set()
        self._enqueuer: ChildEnqueuer | None = None

    def __iter__(self) -> Iterator[ChildJob[T]]:
        left, begin = self._left()
        yield from self._made_before(begin)
        for number, each in enumerate(left.slices(self._items_per_child), start=begin):
            yield ChildJob(number, each, self._arguments, self)

    def _made_before(self, end: int) -> Iterator[ChildJob[T]]:
        """The children that an execution which was cut off has made or skipped, with the slices that they have."""
        last = None
        for number in range(end):
            each = _slice_of(self._horse, number)
            if each is None:
                left = self._source if last is None else self._source.beyond(last)
                each = next(iter(left.slices(self._items_per_child)), None)
            if each is not None:
                yield ChildJob(number, each, self._arguments, self)
                last = each

    def __len__(self) -> int:
        if self._length is None:
            left, number = self._left()
            counted = _number_of_slices(left, self._items_per_child)
            self._length = sum(1 for _ in self) if counted is None else number + counted
        return self._length

    def _left(self) -> tuple[Cuttable[T], int]:
        """The data after the children that an execution which was cut off has made, and the number of the next child.

        If data that have changed were cut again from the beginning, numbers would get other slices.
        """
        if self._made is None:
            return self._source, 0
        return self._source.beyond(open_slice(self._made.last)), self._made.end

    def __bool__(self) -> bool:
        return True  # there is one at least

    def enqueue(self) -> int:
        """Enqueue them all; the job that made them waits for them when its ``handle`` returns, and gathers.

        Once in an execution: `gather` knows the children of one split.

        Returns:
            How many there are.

        Raises:
            ConfigError: this execution has split already, or it is the gather. Nothing is enqueued.
        """
        if self._enqueued:  # some were, one by one
            for child in self:
                child.enqueue()
            return len(self._enqueued)
        self._check_that_it_may_split()
        self._run.pending = enqueue_children(
            self._run, self._source, type(self._parent), self._job_class, self._arguments,
            items_per_child=self._items_per_child, queue=self._queue, first=self._first,
        )  # fmt: skip
        return self._run.pending.total

    def enqueue_one(self, child: ChildJob[T]) -> Job:
        if self._enqueuer is None:
            self._check_that_it_may_split()
            _begin(self._horse)
            _open(self._horse, None, self._first)
            parent_class = type(self._parent)
            self._enqueuer = ChildEnqueuer(self._horse, parent_class, self._job_class, self._arguments, self._queue)
            self._run.open_split = self
        if child.number not in self._enqueued:
            self._run.checkpoints.raise_swallowed()  # while its items were made
            self._enqueuer.add([(child.number, describe_slice(child.items))])
            self._enqueued.add(child.number)
            self._run.checkpoints.check(f"child jobs made: {len(self._enqueued)}")
        return self._enqueuer.job(child.number)

    def seal(self) -> Pending:
        """``handle`` has returned: wait for those that were enqueued, also by an execution that was cut off."""
        numbers = self._horse.ask("count children", ledger.numbers)
        self._run.reporter.report(events.Split, children=len(numbers))
        return Pending(len(numbers), 1 + numbers[-1])

    def undo(self) -> None:
        """``handle`` has failed: undo those that were enqueued one by one."""
        _give_up(self._horse)

    def _has_split(self) -> bool:
        run = self._run
        sealed = run.record.split is not None and run.record.split.sealed
        return run.pending is not None or run.open_split is not None or sealed

    def _check_that_it_may_split(self) -> None:
        if self._has_split():
            raise ConfigError(
                f"{self._parent.path()} has split already, and a job splits once: "
                f"put both together (rqmem.sources.Concat), or have a child split again"
            )


def child_jobs(
    run: JobRun,
    parent: ParentJob,
    data: Source[T] | Iterable[T],
    job_class: type[Enqueueable],
    *,
    items_per_child: int,
    kwargs: Mapping[str, Any] | None = None,
    queue: str | None = None,
) -> ChildJobs[T]:
    """Children of ``job_class`` for ``data``. Raises as `MemoryAwareJob.create_child_jobs`."""
    horse, source = run.waiting_horse(), as_source(data, must_resume=True)
    arguments = arguments_of(parent, job_class, kwargs)
    check_sendable(horse, job_class, arguments)
    children = ChildJobs(run, parent, job_class, source, arguments, items_per_child, queue)
    first = next(iter(children), None)
    if first is not None:
        describe_slice(first.items)  # raises before anything is enqueued
    elif run.record.split is None:  # else an execution that was cut off has made them all
        raise ConfigError(f"{parent.path()}: there is nothing to split: the data is empty; look before you split")
    return children


def enqueue_children(
    run: JobRun,
    source: Cuttable[Any],
    parent_class: type,
    job_class: type[Enqueueable],
    arguments: dict[str, Any],
    *,
    items_per_child: int | None = None,
    parts: int | None = None,
    queue: str | None = None,
    cut_stage: int | None = None,
    first: Any = None,
) -> Pending:
    """Cut ``source`` (what is left of ``cut_stage``, if given) and enqueue a child of ``job_class`` for each slice.

    If an execution that was cut off has left children, this one goes on after the last of them. An error undoes all.
    ``first``: the first cursor of the source, if it has one, for an execution that goes on with it.
    """
    horse = run.waiting_horse()
    made = _begin(horse)
    try:
        if made is not None:
            source = source.beyond(open_slice(made.last))
        total = made.children if made is not None else 0
        expected = _number_of_slices(source, items_per_child)
        of = None if expected is None else total + expected
        enqueuer = ChildEnqueuer(horse, parent_class, job_class, arguments, queue, of)
        slices = source.slices(items_per_child, parts=parts)
        while batch := [describe_slice(each) for each in islice(slices, _BATCH)]:
            run.checkpoints.raise_swallowed()  # in the source
            if total == 0:
                _open(horse, cut_stage, first)
            enqueuer.add(list(enumerate(batch, start=total)))
            total += len(batch)
            run.checkpoints.check(f"child jobs made: {total}")
    except RunTakenOver:
        raise
    except Exception:
        _give_up(horse)
        raise
    run.reporter.report(events.Split, children=total)
    return Pending(total, total)


def begins_again(run: JobRun, error: SourceChanged) -> SourceChanged:
    """The error with the command that helps. It names the job at the top of the tree, which has cut the data."""
    if run.horse is None:
        return error
    return SourceChanged(f"{error}: 'rqmem retry --from-start {child_ids.top_of(run.horse.job_id)}' does so")


def _begin(horse: Horse) -> ledger.Made | None:
    """The children that an execution which was cut off has left; what is left of undone ones is removed."""
    made = _made(horse)
    if made is None:
        _undo(horse)
    return made


def _made(horse: Horse) -> ledger.Made | None:
    return horse.ask("look for children", ledger.made)


def _slice_of(horse: Horse, number: int) -> Cuttable[Any] | None:
    """The slice of a child that was made; None if there is no child of that number (any more)."""
    try:
        job = Job.fetch(
            child_ids.child_id(horse.job_id, number), connection=horse.connection, serializer=horse.serializer
        )
    except NoSuchJobError:
        return None
    return open_slice(job.kwargs[ITEMS][SLICE])


def _give_up(horse: Horse) -> None:
    """The job fails before it has split: undo its children."""
    execution = Execution(horse.execution_id, horse.job_id, horse.connection)
    until_redis_answers(partial(ledger.give_up, horse.job_id, execution), f"undo children of job {horse.job_id}")
    _undo(horse)


def _undo(horse: Horse) -> None:
    horse.ask("undo children", tree.undo, horse.serializer)


def _number_of_slices(source: Cuttable[Any], items_per_child: int | None) -> int | None:
    """How many slices there will be; None if that is known only when they are made."""
    if items_per_child is None or isinstance(source, Concat):  # its slices end with each of its sources
        return None
    try:
        count = source.count()
    except SourceError:  # it cannot count
        return None
    return parts_for(count.items, items_per_child) if count.items is not None and count.how == "exact" else None


def _open(horse: Horse, cut_stage: int | None, first: Any) -> None:
    own = Queue(horse.queue, connection=horse.connection)
    horse.ask("begin the split", ledger.open_split, own, time.time(), cut_stage, first)
