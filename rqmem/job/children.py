"""Child jobs: slices of a job's data, each as a job of its own that the job will wait for. Made twice is made once.

A child carries its slice as JSON, its parent's id, its number and, where that is known before they are made, how many
there are; RQ has the children of a job as a `rq.group.Group` under the parent's id, for as long as the parent waits.
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rq import Queue
from rq.executions import Execution

from rqmem import events
from rqmem.errors import ConfigError, RqmemError, RunTakenOver, SourceError
from rqmem.job import family
from rqmem.job.context import MemoryContext
from rqmem.job.enqueueing import Enqueueable
from rqmem.journal import ledger
from rqmem.journal.patience import until_redis_answers
from rqmem.journal.records import Pending
from rqmem.sources import Concat, Cuttable, Source, as_source, describe_slice, open_slice
from rqmem.sources.contract import parts_for

if TYPE_CHECKING:
    from rq.queue import EnqueueData

    from rqmem.job.mixin import MemoryAwareJob
    from rqmem.runtime.horse import Horse

T = TypeVar("T")

ITEMS = "items"
"""The argument in which a child gets its slice."""

_SLICE = "rqmem_slice"
_BATCH = 200


@dataclass(frozen=True)
class ChildJob(Generic[T]):
    """A child that is not enqueued: its number, its slice, and its other arguments."""

    number: int
    items: Cuttable[T]
    kwargs: Mapping[str, Any]


class ChildJobs(Generic[T]):
    """The children that a job can be split into, made from slices as they are looked at. `enqueue` makes them jobs."""

    def __init__(
        self, context: MemoryContext, parent: MemoryAwareJob, job_class: type[MemoryAwareJob],
        source: Source[T], arguments: dict[str, Any], items_per_child: int, queue: str | None,
    ) -> None:  # fmt: skip
        self._context, self._parent, self._job_class = context, parent, job_class
        self._source, self._arguments = source, arguments
        self._items_per_child, self._queue = items_per_child, queue

    def __iter__(self) -> Iterator[ChildJob[T]]:
        slices: Iterable[Any] = self._source.slices(self._items_per_child)  # type: ignore[attr-defined]
        for number, each in enumerate(slices):
            yield ChildJob(number, each, self._arguments)

    def enqueue(self) -> int:
        """Enqueue them all; the job that made them waits for them when its ``handle`` returns, and gathers.

        Once in an execution: `gather` knows the children of one split.

        Returns:
            How many there are.

        Raises:
            ConfigError: this execution has split already, or it is the gather. Nothing is enqueued.
        """
        run = self._context.run
        if self._parent._pending is not None or (run.split is not None and run.split.sealed):
            raise ConfigError(
                f"{self._parent.path()} has split already, and a job splits once: "
                f"put both together (rqmem.sources.Concat), or have a child split again"
            )
        self._parent._pending = enqueue_children(
            self._context, self._source, self._job_class, self._arguments,
            items_per_child=self._items_per_child, queue=self._queue,
        )  # fmt: skip
        return self._parent._pending.total


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
    job_class: type[MemoryAwareJob],
    arguments: dict[str, Any],
    *,
    items_per_child: int | None = None,
    parts: int | None = None,
    queue: str | None = None,
    cut_stage: int | None = None,
) -> Pending:
    """Cut ``source`` (what is left of ``cut_stage``, if given) and enqueue a child of ``job_class`` for each slice.

    An execution that was cut off has left children: this one goes on behind the last of them. An error undoes them all.
    """
    here = horse_of(context)
    target = Queue(queue or here.queue, connection=here.connection, serializer=here.serializer)
    execution = Execution(here.execution_id, here.job_id, here.connection)
    made = until_redis_answers(lambda: ledger.made(here.connection, here.job_id), f"look for children of {here.job_id}")
    if made is None:
        _undo(here)  # what an undoing that was cut short has left
    try:
        if made is not None:
            source = source.beyond(open_slice(made.last))
        total = made.children if made is not None else 0
        expected = _number_of_slices(source, items_per_child)
        of = None if expected is None else total + expected
        slices = source.slices(items_per_child, parts=parts)
        while batch := [describe_slice(each) for each in islice(slices, _BATCH)]:
            if total == 0:
                _open(here, cut_stage)
            children = [
                _child(target, job_class, arguments, here.job_id, number, of, described)
                for number, described in enumerate(batch, start=total)
            ]
            add = partial(ledger.add_children, target, here.job_id, execution, total, children, batch[-1])
            until_redis_answers(add, f"make children of job {here.job_id}")
            total += len(children)
            context.checkpoint(f"child {total}")
    except RunTakenOver:
        raise
    except Exception:
        until_redis_answers(partial(ledger.give_up, here.job_id, execution), f"undo children of job {here.job_id}")
        _undo(here)
        raise
    context.tell(events.Split, children=total)
    return Pending(total)


def _undo(here: Horse) -> None:
    until_redis_answers(
        lambda: family.undo(here.connection, here.job_id, here.serializer), f"undo children of job {here.job_id}"
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


def _open(here: Horse, cut_stage: int | None) -> None:
    own = Queue(here.queue, connection=here.connection)
    until_redis_answers(
        lambda: ledger.open_split(here.connection, here.job_id, own, time.time(), cut_stage),
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
        return {**kwargs, ITEMS: open_slice(described[_SLICE])}
    return dict(kwargs)


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


def _child(
    queue: Queue,
    job_class: type[MemoryAwareJob],
    arguments: dict[str, Any],
    parent_id: str,
    number: int,
    of: int | None,
    described: Any,
) -> EnqueueData:
    text = json.dumps(described)
    meta = {"parent": parent_id, "child": number}
    timeout: Any = job_class.job_timeout  # RQ takes a text too
    return queue.prepare_data(
        f"{job_class.path()}.run",
        kwargs={**arguments, ITEMS: {_SLICE: described}},
        job_id=ledger.child_id(parent_id, number),
        description=f"{job_class.path()}({ITEMS}={text:.75})",
        meta={"rqmem": meta if of is None else {**meta, "total": of}},
        timeout=timeout,
        retry=job_class.retry,
        result_ttl=job_class.result_ttl,
    )
