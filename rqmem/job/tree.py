"""A job together with the children it has split into, and theirs: cancelled, undone, or run once more."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from rqmem.errors import RqmemError, UnknownName
from rqmem.rq_names import InvalidJobOperation, Job, JobStatus, NoSuchJobError, Queue, send_stop_job_command
from rqmem.store import execution_reader, executions, keys, ledger

if TYPE_CHECKING:
    from redis import Redis

_BATCH = 500
_STOP_SECONDS = 5.0
_TELL_AGAIN_SECONDS = 0.5
_ENDED = (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.STOPPED)


@dataclass(frozen=True)
class Cancelled:
    """How many jobs were taken back before they ran, and how many that run were told to stop."""

    taken_back: int = 0
    stopped: int = 0

    def plus(self, other: Cancelled) -> Cancelled:
        """Both together."""
        return Cancelled(self.taken_back + other.taken_back, self.stopped + other.stopped)


def cancel(connection: Redis, job_id: str) -> Cancelled:
    """Cancel what is left of a job and of all below it; what has ended stays.

    The job first, so that it makes no more children and none releases it.

    A job that failed while its children live is left failed, and they are cancelled.

    Raises:
        UnknownName: RQ knows no such job.
        RqmemError: it has ended, and so has all below it.
    """
    job = _fetch(connection, job_id)
    status = job.get_status()
    try:
        done = _end(connection, job)
    except InvalidJobOperation:
        raise RqmemError(f"job {job_id} ended meanwhile: there is nothing to cancel") from None
    known = sorted(set(ledger.outcomes(connection, job_id)), reverse=True)  # workers go the other way
    left = [ledger.child_id(job_id, number) for number, outcome in known if outcome != ledger.OK]  # failed ones too:
    running = {child_id for child_id in left if _status(connection, child_id) == JobStatus.STARTED}  # theirs may run
    for child_id in sorted(left, key=running.__contains__):  # those last, else the next ones begin
        done = done.plus(_cancel_child(connection, child_id))
    if done == Cancelled():
        raise RqmemError(f"job {job_id} is {status.value} already: there is nothing to cancel")
    return done


def _status(connection: Redis, job_id: str) -> str:
    status = cast("bytes | None", connection.hget(Job.key_for(job_id), "status"))
    return status.decode() if status is not None else ""


def _end(connection: Redis, job: Job) -> Cancelled:
    """Take the job back, or have it stopped and wait for that: until then one that is about to split makes children.

    Usually within 0.1 s. One that a worker has just taken is not taken back but stopped; one whose worker is dead
    waits in its queue again soon, or is marked as cancelled where nobody has found that out in time: whoever finds it
    then leaves it.
    """
    queue = Queue(job.origin, connection=connection)
    until, tell_at, stopped = time.monotonic() + _STOP_SECONDS, 0.0, 0
    while (status := job.get_status()) not in _ENDED:
        now = time.monotonic()
        if status == JobStatus.STARTED and now >= tell_at:
            with contextlib.suppress(InvalidJobOperation, NoSuchJobError):  # it has ended since
                send_stop_job_command(connection, job.id)
            stopped, tell_at = 1, now + _TELL_AGAIN_SECONDS
        if now >= until or (status != JobStatus.STARTED and (status != JobStatus.QUEUED or queue.remove(job))):
            job.cancel()
            return Cancelled(taken_back=1)
        time.sleep(0.02)
    return Cancelled(stopped=stopped)


def _cancel_child(connection: Redis, child_id: str) -> Cancelled:
    try:
        child = _fetch(connection, child_id)
        done = cancel(connection, child_id)
    except RqmemError:  # it ended meanwhile, or is gone
        return Cancelled()
    if child.get_status() == JobStatus.CANCELED:
        ledger.tell_parent(connection, child, "cancelled")
    return done


def undo(connection: Redis, job_id: str, serializer: Any = None) -> None:
    """Forget the children of a job, and theirs, as if it had not split; jobs that have ended stay with RQ.

    What waits is taken back, what runs is told to stop; going on, it commits nothing. Cut short, it can be repeated.
    """
    numbers = sorted({number for number, _ in ledger.outcomes(connection, job_id)})  # as queued: near the queue's head
    children = (ledger.child_id(job_id, number) for number in numbers)
    while batch := list(islice(children, _BATCH)):
        _undo_batch(connection, batch, serializer)
    ledger.begin_again(connection, job_id)


def _undo_batch(connection: Redis, children: list[str], serializer: Any) -> None:
    with connection.pipeline(transaction=False) as pipeline:
        for child_id in children:
            pipeline.hget(Job.key_for(child_id), "origin")
        origins = [origin.decode() if origin is not None else None for origin in pipeline.execute()]
    found = [(child_id, origin) for child_id, origin in zip(children, origins, strict=True) if origin is not None]
    ledger.take_back(connection, found)
    with connection.pipeline(transaction=False) as pipeline:
        for child_id in children:
            pipeline.hget(Job.key_for(child_id), "status")
            pipeline.exists(keys.children(child_id))
        looks = iter(pipeline.execute())
    left = [(child_id, status, split) for child_id, status, split in zip(children, looks, looks, strict=True)]
    open_ones = [child_id for child_id, status, _ in left if status is not None and status.decode() not in _ENDED]
    for child_id in open_ones:
        with contextlib.suppress(InvalidJobOperation, NoSuchJobError):
            send_stop_job_command(connection, child_id, serializer)
    until = time.monotonic() + _STOP_SECONDS
    while any(_status(connection, each) == JobStatus.STARTED for each in open_ones) and time.monotonic() < until:
        time.sleep(0.02)
    for child_id in open_ones:
        with contextlib.suppress(NoSuchJobError):
            job = Job.fetch(child_id, connection=connection, serializer=serializer)
            if job.get_status(refresh=False) not in _ENDED:
                job.delete()
                executions.disown(connection, child_id)
    for child_id, _, split in left:
        if split:
            undo(connection, child_id, serializer)


def retry_from_start(connection: Redis, job_id: str) -> None:
    """Run a job that failed, was stopped or was cancelled once more as if it had never run.

    Its next execution forgets cursors, saved results and children (`RunWriter.open`), which are undone: what of them
    waits is taken back, what runs is told to stop. Cut short, this can be repeated.

    Raises:
        UnknownName: RQ knows no such job.
        RqmemError: it runs, waits or has finished; or it is a child, whose slice begins where its parent has cut.
    """
    job = _fetch(connection, job_id)
    if (above := ledger.parent_of(job_id)) is not None:
        raise RqmemError(
            f"job {job_id} is a child, and its slice belongs to its parent: 'rqmem retry --from-start {above[0]}'"
        )
    status = job.get_status()
    if status == JobStatus.STARTED or execution_reader.owner(connection, job_id) is not None:
        raise RqmemError(f"job {job_id} is running, so it cannot begin again: 'rqmem cancel {job_id}' first")
    queue = Queue(job.origin, connection=connection)
    registry = queue.canceled_job_registry if status == JobStatus.CANCELED else queue.failed_job_registry
    try:
        if status not in (JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED) or job_id not in registry:
            raise InvalidJobOperation
        executions.begin_again(connection, job_id)
        registry.requeue(job)
    except InvalidJobOperation:
        raise RqmemError(
            f"job {job_id} is {job.get_status().value}: only one that has failed or was cancelled can begin again"
        ) from None


def retry(connection: Redis, job_id: str) -> int:
    """Run a failed job once more; of one that has split, only the children that failed. Returns how many those are.

    Raises:
        UnknownName: RQ knows no such job.
        RqmemError: it has not failed.
    """
    job = _fetch(connection, job_id)
    split = execution_reader.run(connection, job_id).split
    try:
        if job.get_status() not in (JobStatus.FAILED, JobStatus.STOPPED):  # RQ may have it as failed from before
            raise InvalidJobOperation
        job.requeue()
    except InvalidJobOperation:
        raise RqmemError(
            f"job {job_id} is {job.get_status().value}: only one that has failed can run once more"
        ) from None
    return split.failed if split is not None else 0


def _fetch(connection: Redis, job_id: str) -> Job:
    try:
        return Job.fetch(job_id, connection=connection)
    except (NoSuchJobError, ValueError):  # ValueError: an id that RQ does not take
        raise UnknownName(f"RQ knows no job {job_id!r}: it never was here, or its time to live is over") from None
