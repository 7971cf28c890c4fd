"""Child jobs: slices of a job's data, each as a job of its own that the job will wait for. Made twice is made once.

A child carries its slice as JSON, its parent's id, its number and, where that is known before they are made, how many
there are; RQ has the children of a job as a `rq.group.Group` under the parent's id.
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rqmem import events
from rqmem.errors import ConfigError, RqmemError, RunTakenOver, SourceChanged, SourceError
from rqmem.job import tree
from rqmem.job.enqueue import AT_FRONT, Enqueueable, is_at_front
from rqmem.job.run import MemoryContext
from rqmem.rq_names import Execution, Job, NoSuchJobError, Queue, get_current_job
from rqmem.sources import Concat, Cuttable, Source, as_source, describe_slice, open_slice
from rqmem.sources.contract import parts_for
from rqmem.store import ledger
from rqmem.store.execution_records import Pending
from rqmem.store.retrying import until_redis_answers

if TYPE_CHECKING:
    from rqmem.job.base import MemoryAwareJob
    from rqmem.rq_names import EnqueueData
    from rqmem.worker.horse.user_code import Horse

T = TypeVar("T")

ITEMS = "items"
"""The argument in which a child gets its slice."""

_SLICE = "rqmem_slice"
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
        self, context: MemoryContext, parent: MemoryAwareJob, job_class: type[MemoryAwareJob],
        source: Cuttable[T], arguments: dict[str, Any], items_per_child: int, queue: str | None,
    ) -> None:  # fmt: skip
        self._context, self._parent, self._job_class = context, parent, job_class
        self._arguments = arguments
        self._items_per_child, self._queue = items_per_child, queue
        # An execution that was cut off has left children: the data are what they were for that one.
        self._made = None if self._has_split() else _made(horse_of(context))
        self._first = source.first_cursor() if self._made is None else self._made.first
        self._source = source if self._first is None else source.rest(self._first)

        self._length: int | None = None
        self._enqueued: set[int] = set()
        self._making: _Making | None = None

    def __iter__(self) -> Iterator[ChildJob[T]]:
        left, begin = self._left()
        yield from self._made_before(begin)
        for number, each in enumerate(left.slices(self._items_per_child), start=begin):
            yield ChildJob(number, each, self._arguments, self)

    def _made_before(self, end: int) -> Iterator[ChildJob[T]]:
        """Those that an execution which was cut off has made, with the slices that they have, and has passed over."""
        here, last = horse_of(self._context), None
        for number in range(end):
            each = _slice_of(here, number)
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
        """What lies behind the children that an execution which was cut off has made, and the number of its first. Cut
        again from the beginning, data that have changed would have other slices under their numbers."""
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
        self._parent._pending = enqueue_children(
            self._context, self._source, type(self._parent), self._job_class, self._arguments,
            items_per_child=self._items_per_child, queue=self._queue, first=self._first,
        )  # fmt: skip
        return self._parent._pending.total

    def enqueue_one(self, child: ChildJob[T]) -> Job:
        """See `ChildJob.enqueue`."""
        here = horse_of(self._context)
        if self._making is None:
            self._check_that_it_may_split()
            _begin_one_by_one(here, self._first)
            self._making = _Making(here, type(self._parent), self._job_class, self._arguments, self._queue)
            self._parent._children = self
        if child.number not in self._enqueued:
            self._making.add([(child.number, describe_slice(child.items))])
            self._enqueued.add(child.number)
            self._context.checkpoint(f"child {len(self._enqueued)}")
        return self._making.job(child.number)

    def seal(self) -> Pending:
        """``handle`` has returned: those that were enqueued one by one, here or by an execution that was cut off."""
        here = horse_of(self._context)
        numbers = until_redis_answers(lambda: ledger.numbers(here.connection, here.job_id), "count children")
        self._context.tell(events.Split, children=len(numbers))
        return Pending(len(numbers), 1 + numbers[-1])

    def undo(self) -> None:
        """``handle`` has failed: those that were enqueued one by one go."""
        give_up(horse_of(self._context))

    def _has_split(self) -> bool:
        run, parent = self._context.run, self._parent
        sealed = run.split is not None and run.split.sealed
        return parent._pending is not None or parent._children is not None or sealed

    def _check_that_it_may_split(self) -> None:
        if self._has_split():
            raise ConfigError(
                f"{self._parent.path()} has split already, and a job splits once: "
                f"put both together (rqmem.sources.Concat), or have a child split again"
            )


def child_jobs(
    context: MemoryContext,
    parent: MemoryAwareJob,
    data: Source[T] | Iterable[T],
    job_class: type[MemoryAwareJob],
    *,
    items_per_child: int,
    kwargs: Mapping[str, Any] | None = None,
    queue: str | None = None,
) -> ChildJobs[T]:
    """Children of ``job_class`` for ``data``. Raises as `MemoryAwareJob.create_child_jobs`."""
    here = horse_of(context)
    source = as_source(data, must_resume=True)
    arguments = arguments_of(parent, job_class, kwargs)
    _check_that_they_can_be_sent(here, job_class, arguments)
    children = ChildJobs(context, parent, job_class, source, arguments, items_per_child, queue)
    first = next(iter(children), None)
    if first is not None:
        describe_slice(first.items)  # what cannot be cut or sent is said before anything is enqueued
    elif context.run.split is None:  # else an execution that was cut off has made them all
        raise ConfigError(f"{parent.path()}: there is nothing to split: the data is empty; look before you split")
    return children


def enqueue_children(
    context: MemoryContext,
    source: Any,
    parent_class: type[MemoryAwareJob],
    job_class: type[MemoryAwareJob],
    arguments: dict[str, Any],
    *,
    items_per_child: int | None = None,
    parts: int | None = None,
    queue: str | None = None,
    cut_stage: int | None = None,
    first: Any = None,
) -> Pending:
    """Cut ``source`` (what is left of ``cut_stage``, if given) and enqueue a child of ``job_class`` for each slice.

    An execution that was cut off has left children: this one goes on behind the last of them. An error undoes them all.
    ``first``: the first cursor of the source, if it has one, for an execution that goes on with it.
    """
    here = horse_of(context)
    made = _made(here)
    if made is None:
        _undo(here)  # what an undoing that was cut short has left
    try:
        if made is not None:
            source = source.beyond(open_slice(made.last))
        total = made.children if made is not None else 0
        expected = _number_of_slices(source, items_per_child)
        making = _Making(
            here, parent_class, job_class, arguments, queue, None if expected is None else total + expected
        )
        slices = source.slices(items_per_child, parts=parts)
        while batch := [describe_slice(each) for each in islice(slices, _BATCH)]:
            if total == 0:
                _open(here, cut_stage, first)
            making.add(list(enumerate(batch, start=total)))
            total += len(batch)
            context.checkpoint(f"child {total}")
    except RunTakenOver:
        raise
    except Exception:
        give_up(here)
        raise
    context.tell(events.Split, children=total)
    return Pending(total, total)


class _Making:
    """How the children of one job are made jobs.

    Options with which the job was enqueued reach them: ``at_front``, ``job_timeout``, ``result_ttl``, ``failure_ttl``,
    ``meta``, and its queue; what a class of their own declares stands above that. Its ``ttl``, ``retry``,
    ``repeat``, ``rate_limit``, callbacks and webhooks are about the job as a whole.
    """

    def __init__(
        self, here: Horse, parent_class: type[MemoryAwareJob], job_class: type[MemoryAwareJob],
        arguments: dict[str, Any], queue: str | None, of: int | None = None,
    ) -> None:  # fmt: skip
        self._here, self._parent_class, self._job_class = here, parent_class, job_class
        self._arguments, self._of = arguments, of
        self._parent = get_current_job(here.connection)
        own = None if self._is_parents("queue") else job_class.queue
        self._queue = Queue(queue or own or here.queue, connection=here.connection, serializer=here.serializer)

    def add(self, described: list[tuple[int, Any]]) -> None:
        """Enqueue those children (number, description of the slice) that are not there yet, all or none."""
        here = self._here
        execution = Execution(here.execution_id, here.job_id, here.connection)
        children = {number: self._child(number, slice_) for number, slice_ in described}
        add = partial(ledger.add_children, self._queue, here.job_id, execution, children, described[-1][1])
        until_redis_answers(add, f"make children of job {here.job_id}", here.connection)

    def job(self, number: int) -> Job:
        """A child, as RQ's job; not read from Redis."""
        job_id = ledger.child_id(self._here.job_id, number)
        return self._queue.job_class(job_id, connection=self._here.connection, serializer=self._here.serializer)

    def _is_parents(self, option: str) -> bool:
        """Whether what the children's class says of that option is nothing, or what their parent's class says too."""
        where = next(each for each in self._job_class.__mro__ if option in vars(each))
        return where in self._parent_class.__mro__  # `Enqueueable` is

    def _option(self, option: str, inherited: Any) -> Any:
        return inherited if self._is_parents(option) else getattr(self._job_class, option)

    def _child(self, number: int, described: Any) -> EnqueueData:
        parent, job_class, text = self._parent, self._job_class, json.dumps(described)
        meta: dict[str, Any] = {"parent": self._here.job_id, "child": number}
        if self._of is not None:
            meta["total"] = self._of
        at_front = parent is not None and is_at_front(parent)
        if at_front:
            meta[AT_FRONT] = True
        timeout: Any = self._option("job_timeout", parent.timeout if parent else None)  # RQ takes a text too
        return self._queue.prepare_data(
            f"{job_class.path()}.run",
            kwargs={**self._arguments, ITEMS: {_SLICE: described}},
            job_id=ledger.child_id(self._here.job_id, number),
            description=f"{job_class.path()}({ITEMS}={text:.75})",
            meta={**(parent.meta if parent else {}), "rqmem": meta},
            timeout=timeout,
            retry=job_class.retry,
            result_ttl=self._option("result_ttl", parent.result_ttl if parent else None),
            failure_ttl=parent.failure_ttl if parent else None,
            at_front=at_front,
        )


def _begin_one_by_one(here: Horse, first: Any) -> None:
    """The first child is about to be enqueued."""
    made = _made(here)
    if made is None:
        _undo(here)  # what an undoing that was cut short has left
    _open(here, None, first)


def _slice_of(here: Horse, number: int) -> Cuttable[Any] | None:
    """That of a child which was made; None: there is none of that number (any more)."""
    try:
        job = Job.fetch(ledger.child_id(here.job_id, number), connection=here.connection, serializer=here.serializer)
    except NoSuchJobError:
        return None
    return open_slice(job.kwargs[ITEMS][_SLICE])


def _made(here: Horse) -> ledger.Made | None:
    """What an execution that was cut off has left."""
    return until_redis_answers(lambda: ledger.made(here.connection, here.job_id), f"look for children of {here.job_id}")


def give_up(here: Horse) -> None:
    """The job fails before it has split: its children go."""
    execution = Execution(here.execution_id, here.job_id, here.connection)
    until_redis_answers(partial(ledger.give_up, here.job_id, execution), f"undo children of job {here.job_id}")
    _undo(here)


def _undo(here: Horse) -> None:
    until_redis_answers(
        lambda: tree.undo(here.connection, here.job_id, here.serializer), f"undo children of job {here.job_id}"
    )


def _number_of_slices(source: Cuttable[Any], items_per_child: int | None) -> int | None:
    """How many slices there will be; None: that is known only when they are made."""
    if items_per_child is None or isinstance(source, Concat):  # whose slices end with each of its sources
        return None
    try:
        count = source.count()
    except SourceError:  # it cannot count
        return None
    return parts_for(count.items, items_per_child) if count.items is not None and count.how == "exact" else None


def _open(here: Horse, cut_stage: int | None, first: Any) -> None:
    own = Queue(here.queue, connection=here.connection)
    until_redis_answers(
        lambda: ledger.open_split(here.connection, here.job_id, own, time.time(), cut_stage, first),
        f"begin to split job {here.job_id}",
    )


def horse_of(context: MemoryContext) -> Horse:
    """Raises `RqmemError` where nobody could wait for children."""
    if context.here is None or not context.here.page.has_run:
        raise RqmemError(
            "only a MemoryWorker can wait for child jobs, and this is none: run the job with 'rqmem worker', "
            "or ask should_split_job first, which says no here"
        )
    return context.here


def opened(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with which ``handle`` is called: a slice among them as an opened source."""
    described = kwargs.get(ITEMS)
    if isinstance(described, dict) and _SLICE in described:
        return {**kwargs, ITEMS: as_source(open_slice(described[_SLICE]))}
    return dict(kwargs)


def begins_again(context: MemoryContext, error: SourceChanged) -> SourceChanged:
    """The error with what a person can do, for the job or the one at the top of its tree: the cuts are that one's."""
    if context.here is None:
        return error
    top = ledger.top_of(context.here.job_id)
    return SourceChanged(f"{error}: 'rqmem retry --from-start {top}' does so")


def arguments_of(
    parent: MemoryAwareJob, job_class: type[MemoryAwareJob], kwargs: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Of each child, but for its items; by default the parent's own, as far as the child takes them."""
    if not (isinstance(job_class, type) and issubclass(job_class, Enqueueable)):
        raise ConfigError(f"{parent.path()}: {job_class!r:.100} cannot be a child: give a subclass of MemoryAwareJob")
    job_class.check_path()
    signature = inspect.signature(job_class.handle)
    if ITEMS not in signature.parameters and not _takes_any(signature):
        raise ConfigError(
            f"{job_class.path()}.handle takes no argument '{ITEMS}', in which a child gets its slice: add {ITEMS}=None"
        )
    if kwargs is not None:
        arguments = dict(kwargs)
    else:
        bound = inspect.signature(parent.handle).bind(*parent.args, **parent.kwargs).arguments
        arguments = {
            name: value for name, value in bound.items()
            if name != ITEMS and (name in signature.parameters or _takes_any(signature))
        }  # fmt: skip
    job_class.check_arguments((), {**arguments, ITEMS: None})
    return arguments


def _check_that_they_can_be_sent(here: Horse, job_class: type[MemoryAwareJob], arguments: dict[str, Any]) -> None:
    """Raise `ConfigError` for an argument that the queue's serializer does not take."""
    for name, value in arguments.items():
        try:
            here.serializer.dumps(value)
        except Exception as error:  # pickle raises many kinds
            raise ConfigError(
                f"{job_class.path()}: argument {name!r} of the children cannot be sent by {here.serializer.__name__} "
                f"({error}): give numbers, texts and the like, and have the child open what else it needs"
            ) from error


def _takes_any(signature: inspect.Signature) -> bool:
    return any(each.kind is inspect.Parameter.VAR_KEYWORD for each in signature.parameters.values())
