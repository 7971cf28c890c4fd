"""The ledger of a job that has split: which of its children have ended, and how. Writes and reads of its keys.

One hash has a field for each child: empty until it ends, then ``ok`` or what went wrong. Another hash has the results
of the children. Sums are in the run of the parent. The id of a child contains the id of its parent and its number.
Promises: the end of a child counts once, however often it is reported; the last one releases the parent in the same
step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

from redis import Redis
from redis.client import Pipeline

from rqmem.child_ids import child_id, parent_of, top_of
from rqmem.errors import RunTakenOver
from rqmem.rq_names import (
    CanceledJobRegistry,
    DeferredJobRegistry,
    EnqueueData,
    Execution,
    FailedJobRegistry,
    Group,
    Job,
    JobStatus,
    Queue,
    now,
    utcformat,
)
from rqmem.store import keys
from rqmem.store.execution_records import GATHER, Pending, SplitRecord
from rqmem.store.executions import expire_run, keys_of_an_end
from rqmem.store.keys import KEEP_SECONDS, WAITING_SECONDS
from rqmem.store.new_jobs import Maker, NewJob, fill, new_job, options_of
from rqmem.store.scripts import script
from rqmem.store.unreadable import readable
from rqmem.store.watching import watching
from rqmem.values import dataclass

OK, WAITING = "ok", ""
KEPT_ENDED = 200
_BATCH = 500
_LONGEST_OUTCOME = 300
_SHOWN_DEPENDENCIES = 1000
_FIELDS = [f"split_{name}" for name in (*(each.name for each in fields(SplitRecord)), "queue", "last", "first")]
"""The fields of a split in the run of its parent."""


def open_split(
    connection: Redis, parent_id: str, queue: Queue, started_at: float, cut_stage: int | None = None, first: Any = None
) -> None:
    """Note that a job of this queue begins to split, or that the rest of one of its stages is cut.

    ``first``: the first cursor of the rest, for the execution that continues.
    """
    key = keys.run(parent_id)
    names = {
        "key": queue.key,
        "queues": queue.redis_queues_keys,
        "deferred": DeferredJobRegistry(queue.name, connection=queue.connection).key,
    }
    with connection.pipeline() as pipeline:
        pipeline.hset(key, "split_queue", json.dumps(names))
        pipeline.hsetnx(key, "split_started_at", started_at)
        if cut_stage is not None:
            pipeline.hset(key, "split_cut_stage", cut_stage)
        if first is not None:
            pipeline.hset(key, "split_first", json.dumps(first))
        pipeline.sadd(keys.SPLITS, parent_id)
        pipeline.expire(key, KEEP_SECONDS)
        if (above := parent_of(parent_id)) is not None:
            pipeline.sadd(keys.split_below(above[0]), above[1])
            pipeline.expire(keys.split_below(above[0]), WAITING_SECONDS)
        pipeline.execute()


def count_cut(connection: Redis, job_id: str) -> int:
    """Count that a breach cut this job in two; returns how often that has happened in its whole tree."""
    key = keys.run(top_of(job_id))
    with connection.pipeline() as pipeline:
        pipeline.hincrby(key, "cuts", 1)
        pipeline.expire(key, WAITING_SECONDS)  # the job at the top waits
        cuts, _ = pipeline.execute()
    return int(cuts)


def report(connection: Redis, parent_id: str) -> None:
    """Note that failures of children fail the parent: its next execution runs those children again."""
    connection.hset(keys.run(parent_id), "split_reported", 1)


def add_children(
    queue: Queue, parent_id: str, execution: Execution, children: Mapping[int, EnqueueData], last: Any
) -> None:
    """Enqueue the ``children`` (by number, in order) that do not exist yet, all or none.

    ``last``: the description of the last child's slice, so that another execution can continue behind it. A job that
    had the id of one of them, and has ended, is removed.

    Raises `RunTakenOver`. If the run is taken over before the commit, the transaction fails and checks again.
    """

    maker = Maker(queue, JobStatus.QUEUED)

    def enqueue(pipeline: Pipeline) -> None:
        there = cast("list[bytes | None]", pipeline.hmget(keys.children(parent_id), [str(each) for each in children]))
        new = [(number, data) for (number, data), known in zip(children.items(), there, strict=True) if known is None]
        pipeline.multi()
        if new:
            ids = [child_id(parent_id, number) for number, _ in new]
            pipeline.delete(*(Job.key_for(each) for each in ids))
            for registry in (FailedJobRegistry, CanceledJobRegistry):
                pipeline.zrem(registry(queue.name, connection=queue.connection).key, *ids)
            if new[0][1].at_front:  # the last that is put there is the first to run
                new.reverse()
            fill(pipeline, queue, [(_new_child(maker, data, parent_id), False) for _, data in new])
            pipeline.sadd(Group.get_key(parent_id), *ids)
            pipeline.sadd(Group.REDIS_GROUP_KEY, parent_id)
            pipeline.hset(keys.children(parent_id), mapping={str(number): WAITING for number, _ in new})
            pipeline.expire(keys.children(parent_id), KEEP_SECONDS)
            pipeline.hset(keys.run(parent_id), "split_last", json.dumps(last))

    _while_owned(execution, parent_id, "it makes no more children", enqueue)


def _new_child(maker: Maker, data: EnqueueData, parent_id: str) -> NewJob:
    function, options = options_of(data)
    at_front = options.pop("at_front")
    return new_job(maker.job(function, {**options, "group_id": parent_id}), at_front)


def defer(job: Job, queue: Queue, execution: Execution, pending: Pending) -> bool:
    """End an execution that has split: its job waits for its children. False if it no longer owns the job."""
    deferred = DeferredJobRegistry(job.origin, connection=job.connection).key
    there = range(pending.end) if pending.end == pending.total else numbers(job.connection, job.id)
    shown = [child_id(job.id, number) for number in there[:_SHOWN_DEPENDENCIES]]
    answer = script(job.connection, "defer")(
        keys=keys_of_an_end(job, queue, execution, deferred),
        args=[
            *(job.id, execution.id, pending.total, utcformat(now()), now().timestamp(), json.dumps(shown), shown[0]),
            *(WAITING_SECONDS, pending.end),
        ],
    )
    return answer == 1


def tell_parent(
    connection: Redis | Pipeline, child: Job, outcome: str, *, result: bytes = b"", peak_mb: float = 0.0
) -> Any:
    """Count that a child ended with ``outcome``: `OK`, or one line. In a pipeline: in the transaction that ends it.

    Its items and its peak come from its run; ``peak_mb``: the peak of the last execution, if that is higher.
    """
    found = parent_of(child.id)
    assert found is not None
    parent_id, number = found
    names = [keys.children(parent_id), keys.gathered(parent_id), keys.run(child.id), child.key, keys.ENDED_SPLITS]
    at = now()
    values = [
        *(parent_id, number, outcome[:_LONGEST_OUTCOME], result, peak_mb, utcformat(at), KEEP_SECONDS),
        *(at.timestamp(), WAITING_SECONDS, GATHER, utcformat(child.created_at), KEPT_ENDED),
        *(keys.run(""), child.key_for("")),
    ]
    return script(connection, "child_ended")(keys=names, args=values, client=connection)


def can_run_again(connection: Redis, job_id: str) -> Queue | None:
    """The queue of a child that has failed; None if it is gone or has not failed (it was cancelled, say)."""
    origin = cast("bytes | None", connection.hget(Job.key_for(job_id), "origin"))
    if origin is None:
        return None
    queue = Queue(origin.decode(), connection=connection)
    return queue if connection.zscore(queue.failed_job_registry.key, job_id) is not None else None


def run_again(queue: Queue, parent_id: str, number: int, *, at_front: bool = False) -> None:
    """Run a child that has failed again. Does nothing if it has not failed or is gone."""
    job_id = child_id(parent_id, number)
    names = [keys.run(parent_id), keys.children(parent_id), Job.key_for(job_id)]
    names += [queue.failed_job_registry.key, queue.key, queue.redis_queues_keys]
    script(queue.connection, "run_again")(keys=names, args=[job_id, number, utcformat(now()), int(at_front)])


def give_up(parent_id: str, execution: Execution) -> None:
    """Before the children are undone: no execution may continue behind the last of them. Raises `RunTakenOver`."""

    def mark(pipeline: Pipeline) -> None:
        pipeline.multi()
        pipeline.hdel(keys.run(parent_id), "split_last")

    _while_owned(execution, parent_id, "its children stay", mark)


def _while_owned(execution: Execution, parent_id: str, consequence: str, change: Callable[[Pipeline], None]) -> None:
    """Do ``change`` in a transaction that fails if the execution ends meanwhile; then it is checked again."""

    def fenced(pipeline: Pipeline) -> None:
        if not pipeline.exists(execution.key):
            raise RunTakenOver(f"job {parent_id}: another worker took this run over; {consequence}")
        change(pipeline)

    watching(execution.connection, execution.key, fenced)


def begin_again(connection: Redis, parent_id: str) -> None:
    """Undo the split in the ledger; what its chunks have finished stays."""
    with connection.pipeline() as pipeline:
        pipeline.hdel(keys.run(parent_id), *_FIELDS)
        _forget(pipeline, parent_id)
        pipeline.execute()


def take_back(connection: Redis, children: Sequence[tuple[str, str]]) -> None:
    """Remove the jobs (id, name of the queue) that still wait in their queue."""
    with connection.pipeline(transaction=False) as pipeline:
        for job_id, origin in children:
            names = [Job.key_for(job_id), Queue(origin, connection=connection).key, Job.dependents_key_for(job_id)]
            script(connection, "take_back")(keys=names, args=[job_id], client=pipeline)
        pipeline.execute()


def forget(connection: Redis, parent_id: str) -> None:
    """Remove the children and results of a parent that is gone."""
    with connection.pipeline() as pipeline:
        _forget(pipeline, parent_id)
        pipeline.delete(keys.results(parent_id))
        expire_run(pipeline, parent_id)
        pipeline.execute()


def _forget(pipeline: Pipeline, parent_id: str) -> None:
    pipeline.delete(*keys.forgotten("split is undone", parent_id))
    pipeline.srem(keys.SPLITS, parent_id)


# Reading


@dataclass(frozen=True)
class Made:
    """The children that a job has made.

    ``end``: one more than the highest number; ``last``: the description of the last slice; ``first``: the first cursor
    of what was cut.
    """

    children: int
    end: int
    last: Any
    first: Any


def made(connection: Redis, parent_id: str) -> Made | None:
    """The children of a job; None if it has none."""
    with connection.pipeline() as pipeline:
        pipeline.hlen(keys.children(parent_id))
        pipeline.hmget(keys.run(parent_id), ["split_last", "split_first"])
        count, (last, first) = pipeline.execute()
    if not count or last is None:
        return None
    end = 1 + numbers(connection, parent_id)[-1]
    return Made(count, end, json.loads(last), None if first is None else json.loads(first))


def outcomes(connection: Redis, parent_id: str) -> Iterator[tuple[int, str]]:
    """Number and outcome of each child, read in batches, in no order; a child may come twice."""
    for number, outcome in connection.hscan_iter(keys.children(parent_id), count=_BATCH):
        yield int(number), outcome.decode()


def results(connection: Redis, parent_id: str, end: int, begin: int = 0) -> list[tuple[int, bytes | None]]:
    """Number and serialised result (or None) of each child from ``begin`` on, in the order of the slices."""
    numbers = range(begin, end)
    values = cast("list[bytes | None]", connection.hmget(keys.gathered(parent_id), [str(each) for each in numbers]))
    return list(zip(numbers, values, strict=True))


def numbers(connection: Redis, parent_id: str) -> list[int]:
    return sorted({number for number, _ in outcomes(connection, parent_id)})


def missing(connection: Redis, parent_id: str, split: SplitRecord) -> set[int]:
    """The numbers below the end of the split whose child was not enqueued."""
    return set() if split.end == split.total else set(range(split.end)) - set(numbers(connection, parent_id))


def split_children(connection: Redis, parent_id: str, most: int) -> tuple[list[int], int]:
    """The numbers of the first ``most`` children that have split themselves, and how many there are in all."""
    key = keys.split_below(parent_id)
    with connection.pipeline() as pipeline:
        pipeline.sort(key, start=0, num=max(0, most))
        pipeline.scard(key)
        numbers, count = pipeline.execute()
    return [int(number) for number in numbers], count


def splitting(connection: Redis) -> list[str]:
    """Ids of jobs that wait for children, or make them."""
    return sorted(readable(bytes.decode, cast("set[bytes]", connection.smembers(keys.SPLITS)), keys.SPLITS))
