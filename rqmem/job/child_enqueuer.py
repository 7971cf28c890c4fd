"""How a slice becomes a child job: with which arguments, on which queue, with which of RQ's options."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from rqmem import child_ids
from rqmem.errors import ConfigError
from rqmem.job.enqueue import AT_FRONT, Enqueueable, is_at_front
from rqmem.job.parent import ParentJob
from rqmem.meta_of_jobs import TENANT
from rqmem.rq_names import EnqueueData, Execution, Job, Queue, get_current_job
from rqmem.sources import as_source, open_slice
from rqmem.store import ledger
from rqmem.store.retrying import until_redis_answers
from rqmem.worker.horse.user_code import Horse

_SHOWN_SLICE = 75  # characters
ITEMS = "items"
"""The argument in which a child gets its slice."""

SLICE = "rqmem_slice"
"""Key of what is sent in that argument; its value is the slice as JSON."""


class ChildEnqueuer:
    """Enqueues the children of one job. ``of``: how many there will be; None: that is not known yet.

    Which of the job's options reach them: `rqmem.MemoryAwareJob.create_child_jobs`.
    """

    def __init__(
        self, horse: Horse, parent_class: type, job_class: type[Enqueueable],
        arguments: dict[str, Any], queue: str | None, of: int | None = None,
    ) -> None:  # fmt: skip
        self._horse, self._parent_class, self._job_class = horse, parent_class, job_class
        self._arguments, self._of = arguments, of
        self._parent = get_current_job(horse.connection)
        own = None if self._is_parents("queue") else job_class.queue
        self._queue = Queue(queue or own or horse.queue, connection=horse.connection, serializer=horse.serializer)

    def add(self, described: list[tuple[int, Any]]) -> None:
        """Enqueue those children (number, description of the slice) that are not there yet, all or none."""
        horse = self._horse
        execution = Execution(horse.execution_id, horse.job_id, horse.connection)
        children = {number: self._child(number, slice_) for number, slice_ in described}
        add = partial(ledger.add_children, self._queue, horse.job_id, execution, children, described[-1][1])
        until_redis_answers(add, f"make children of job {horse.job_id}", horse.connection)

    def job(self, number: int) -> Job:
        """A child, as RQ's job; not read from Redis."""
        job_id = child_ids.child_id(self._horse.job_id, number)
        return self._queue.job_class(job_id, connection=self._horse.connection, serializer=self._horse.serializer)

    def _is_parents(self, option: str) -> bool:
        """Whether the children's class inherits that option from a class that the parent has as well."""
        where = next(each for each in self._job_class.__mro__ if option in vars(each))
        return where in self._parent_class.__mro__  # `Enqueueable` is

    def _option(self, option: str, inherited: Any) -> Any:
        return inherited if self._is_parents(option) else getattr(self._job_class, option)

    def _child(self, number: int, described: Any) -> EnqueueData:
        parent, job_class, text = self._parent, self._job_class, json.dumps(described)
        meta: dict[str, Any] = {"parent": self._horse.job_id, "child": number}
        if self._of is not None:
            meta["total"] = self._of
        part = f"part {number + 1}{'' if self._of is None else f' of {self._of}'}"
        shown = text if len(text) <= _SHOWN_SLICE else part
        at_front = parent is not None and is_at_front(parent)
        if at_front:
            meta[AT_FRONT] = True
        if parent is not None and TENANT in parent.meta.get("rqmem", {}):
            meta[TENANT] = parent.meta["rqmem"][TENANT]
        timeout: Any = self._option("job_timeout", parent.timeout if parent else None)  # RQ takes a text too
        return self._queue.prepare_data(
            f"{job_class.path()}.run",
            kwargs={**self._arguments, ITEMS: {SLICE: described}},
            job_id=child_ids.child_id(self._horse.job_id, number),
            description=f"{job_class.path()}({ITEMS}={shown})",
            meta={**(parent.meta if parent else {}), "rqmem": meta},
            timeout=timeout,
            retry=job_class.retry,
            result_ttl=self._option("result_ttl", parent.result_ttl if parent else None),
            failure_ttl=parent.failure_ttl if parent else None,
            at_front=at_front,
        )


def opened(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with which ``handle`` is called: a slice among them as an opened source."""
    described = kwargs.get(ITEMS)
    if isinstance(described, dict) and SLICE in described:
        return {**kwargs, ITEMS: as_source(open_slice(described[SLICE]))}
    return dict(kwargs)


def arguments_of(parent: ParentJob, job_class: type[Enqueueable], kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments of each child except its items; by default the parent's own, as far as the child takes them."""
    if not (isinstance(job_class, type) and issubclass(job_class, Enqueueable)):
        raise ConfigError(f"{parent.path()}: {job_class!r:.100} cannot be a child: give a subclass of MemoryAwareJob")
    job_class.check_path()
    signature = inspect.signature(job_class.handle)
    if not _takes(signature, ITEMS):
        raise ConfigError(
            f"{job_class.path()}.handle takes no argument '{ITEMS}', in which a child gets its slice: add {ITEMS}=None"
        )
    if kwargs is None:
        bound = inspect.signature(parent.handle).bind(*parent.args, **parent.kwargs).arguments
        kwargs = {name: value for name, value in bound.items() if name != ITEMS and _takes(signature, name)}
    arguments = dict(kwargs)
    job_class.check_arguments((), {**arguments, ITEMS: None})
    return arguments


def _takes(signature: inspect.Signature, name: str) -> bool:
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in signature.parameters.values())
    return takes_any or name in signature.parameters


def check_sendable(horse: Horse, job_class: type[Enqueueable], arguments: dict[str, Any]) -> None:
    """Raise `ConfigError` for an argument that the queue's serializer does not take."""
    for name, value in arguments.items():
        try:
            horse.serializer.dumps(value)
        except Exception as error:  # pickle raises many kinds
            raise ConfigError(
                f"{job_class.path()}: argument {name!r} of the children cannot be sent by {horse.serializer.__name__} "
                f"({error}): give numbers, texts and the like, and have the child open what else it needs"
            ) from error
