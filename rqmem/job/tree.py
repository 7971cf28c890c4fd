"""Cancels, undoes or repeats a job together with its children and theirs. Arguments and meta are not deserialised."""

from __future__ import annotations

import contextlib
import time
from itertools import islice
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.exceptions import WatchError

from rqmem import child_ids
from rqmem.errors import RqmemError, UnknownName
from rqmem.rq_names import InvalidJobOperation, Job, JobStatus, NoSuchJobError, Queue, now, send_stop_job_command
from rqmem.store import execution_reader, executions, keys, ledger
from rqmem.store.retrying import unavailable
from rqmem.store.scripts import answers
from rqmem.store.watching import watching
from rqmem.values import dataclass

if TYPE_CHECKING:
    from redis.client import Pipeline

_BATCH = 500
_TRIES = 20
_STOP_SECONDS = 5.0
_STOP_AGAIN_SECONDS = 0.5
_LOOK_SECONDS = 0.02
_ENDED = (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.STOPPED)


@dataclass(frozen=True)
class Cancelled:
    """How many jobs were taken back before they ran, and how many that ran were stopped."""

    taken_back: int = 0
    stopped: int = 0

    def plus(self, other: Cancelled) -> Cancelled:
        return Cancelled(self.taken_back + other.taken_back, self.stopped + other.stopped)


def cancel(connection: Redis, job_id: str) -> Cancelled:
    """Cancel what is left of a job and of all below it. What has ended stays.

    The job is cancelled first, so that it makes no more children and none releases it. A job that failed while its
    children live stays failed, and they are cancelled.

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
    # Children that failed may have children that still run.
    left = [child_ids.child_id(job_id, number) for number, outcome in known if outcome != ledger.OK]
    statuses = _fields(connection, left, "status")
    # A worker whose job is stopped takes the next one, so those that run are stopped last.
    for child_id in sorted(left, key=lambda child_id: statuses.get(child_id) == JobStatus.STARTED):
        done = done.plus(_cancel_child(connection, child_id))
    if done == Cancelled():
        raise RqmemError(f"job {job_id} is {status.value} already: there is nothing to cancel")
    return done


def _end(connection: Redis, job: Job) -> Cancelled:
    """Take the job back, or have it stopped and wait for that: a job that is about to split makes children until then.

    This usually takes 0.1 s. A job that a worker has just taken is stopped. A job whose worker is dead is in its queue
    again soon. If nobody has found the dead worker in time, the job is marked as cancelled, and whoever finds it leaves
    it alone.
    """
    queue = Queue(job.origin, connection=connection)
    until, stop_at, stopped = time.monotonic() + _STOP_SECONDS, 0.0, 0
    while (status := job.get_status()) not in _ENDED:
        now = time.monotonic()
        if status == JobStatus.STARTED and now >= stop_at:
            with contextlib.suppress(InvalidJobOperation, NoSuchJobError):  # it has ended since
                send_stop_job_command(connection, job.id, _Unread)
            stopped, stop_at = 1, now + _STOP_AGAIN_SECONDS
        if status == JobStatus.QUEUED and _take_back(queue, job):
            return Cancelled(taken_back=1)
        if now >= until or status not in (JobStatus.STARTED, JobStatus.QUEUED):
            job.cancel()
            return Cancelled(taken_back=1)
        time.sleep(_LOOK_SECONDS)
    return Cancelled(stopped=stopped)


def _take_back(queue: Queue, job: Job) -> bool:
    """Cancel the job if it is in its queue still, and no worker has it.

    In one transaction, so that it is not left in no queue, as queued, where the connection is lost in between. In a
    queue that changes all the time it is in two.
    """
    with job.connection.pipeline() as pipeline:
        for _ in range(0 if job.has_rate_limit else _TRIES):
            try:
                pipeline.watch(queue.key)
                if pipeline.lpos(queue.key, job.id) is None:
                    return False
                pipeline.multi()
                job.cancel(pipeline=pipeline)
                pipeline.execute()
            except WatchError as error:
                if unavailable(error) is not None:
                    raise
            else:
                return True
    if not queue.remove(job):
        return False
    job.cancel()
    return True


def _cancel_child(connection: Redis, child_id: str) -> Cancelled:
    try:
        child = _fetch(connection, child_id)
        done = cancel(connection, child_id)
    except RqmemError:  # it ended meanwhile, or is gone
        return Cancelled()
    if child.get_status() == JobStatus.CANCELED:
        ledger.tell_parent(connection, child, "cancelled")
    return done


def delete(connection: Redis, job_id: str) -> None:
    """Have RQ forget a job. One that has not ended is cancelled first, with all below it, so that nobody waits for it.

    Raises `UnknownName` for a job that RQ does not know.
    """
    job = _fetch(connection, job_id)
    if job.get_status() not in _ENDED:
        with contextlib.suppress(RqmemError):  # it ended meanwhile
            cancel(connection, job_id)
        if job.get_status() == JobStatus.CANCELED and child_ids.parent_of(job_id) is not None:
            ledger.tell_parent(connection, job, "cancelled")
    job.delete()


def undo(connection: Redis, job_id: str, serializer: Any = None) -> None:
    """Forget the children of a job, and theirs, as if it had not split. Jobs that have ended stay with RQ.

    Waiting jobs are taken back. Running jobs are asked to stop, and can no longer commit anything. If this is cut
    short, it can be repeated.
    """
    numbers = sorted({number for number, _ in ledger.outcomes(connection, job_id)})  # as queued: near the queue's head
    children = (child_ids.child_id(job_id, number) for number in numbers)
    while batch := list(islice(children, _BATCH)):
        _undo_batch(connection, batch, serializer)
    ledger.begin_again(connection, job_id)


def _undo_batch(connection: Redis, children: list[str], serializer: Any) -> None:
    ledger.take_back(connection, list(_fields(connection, children, "origin").items()))
    running = [child_id for child_id, status in _fields(connection, children, "status").items() if status not in _ENDED]
    for child_id in running:
        with contextlib.suppress(InvalidJobOperation, NoSuchJobError):
            send_stop_job_command(connection, child_id, serializer)
    until = time.monotonic() + _STOP_SECONDS
    while JobStatus.STARTED in _fields(connection, running, "status").values() and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
    for child_id in running:
        _delete_unless_ended(connection, child_id, serializer)
    for child_id in answers(connection, Redis.exists, keys.children, children):
        undo(connection, child_id, serializer)


def _delete_unless_ended(connection: Redis, job_id: str, serializer: Any) -> None:
    with contextlib.suppress(NoSuchJobError):
        job = Job.fetch(job_id, connection=connection, serializer=serializer)
        if job.get_status(refresh=False) not in _ENDED:
            job.delete()
            executions.release(connection, job_id)


def _fields(connection: Redis, job_ids: list[str], name: str) -> dict[str, str]:
    """A field of RQ's record of each of these jobs that has it."""
    found = answers(connection, Redis.hget, Job.key_for, job_ids, name)
    return {job_id: value.decode() for job_id, value in found.items()}


def retry_from_start(connection: Redis, job_id: str) -> None:
    """Run a job that failed, was stopped or was cancelled once more as if it had never run.

    Its next execution forgets cursors and saved results (`RunWriter.open`), and undoes the children (`undo`).

    Raises:
        UnknownName: RQ knows no such job.
        RqmemError: it runs, waits or has finished, or it is a child: its parent has cut its slice.
    """
    job = _fetch(connection, job_id)
    if (above := child_ids.parent_of(job_id)) is not None:
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
        _requeue(registry, job)
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
        _requeue(job.failed_job_registry, job)
    except InvalidJobOperation:
        raise RqmemError(
            f"job {job_id} is {job.get_status().value}: only one that has failed can run once more"
        ) from None
    return split.failed if split is not None else 0


def _requeue(registry: Any, job: Job) -> None:
    """RQ's `requeue`, in one transaction: cut off in the middle of RQ's, the job would be nowhere, and stay there."""
    if job.has_rate_limit:
        registry.requeue(job)
        return
    queue = Queue(job.origin, connection=job.connection)
    job.started_at = job.ended_at = None
    job.enqueued_at = now()

    def change(pipeline: Pipeline) -> None:
        if pipeline.zscore(registry.key, job.id) is None:
            raise InvalidJobOperation
        pipeline.multi()
        pipeline.zrem(registry.key, job.id)
        job.set_status(JobStatus.QUEUED, pipeline=pipeline)
        job.save(pipeline=pipeline)
        job.cleanup(ttl=job.ttl, pipeline=pipeline)
        queue.push_job_id(job.id, pipeline=pipeline)

    watching(job.connection, job.key, change)


class _Unread:
    """RQ's serializer of jobs whose arguments and meta stay as they are: nothing is loaded, since that may run code."""

    @staticmethod
    def loads(data: bytes) -> Any:
        raise ValueError("it is not to be loaded")

    @staticmethod
    def dumps(value: Any) -> bytes:
        raise ValueError("it is not to be written")


def _fetch(connection: Redis, job_id: str) -> Job:
    try:
        return Job.fetch(job_id, connection=connection, serializer=_Unread)
    except (NoSuchJobError, ValueError):  # ValueError: an id that RQ does not take
        raise UnknownName(f"RQ knows no job {job_id!r}: it never was here, or its time to live is over") from None
