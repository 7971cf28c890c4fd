"""The ledger of a job that has split: which of its children ended, and how. Writes and reads of its keys.

One hash has a field for each child: empty until it ends, then ``ok`` or what went wrong. What the children returned
stands in another. Sums stand in the parent's run. A child is known by its id, which names its parent and number.
Promises: a child counts once, whoever tells of it and how often; the last one releases the parent in the same step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from rqmem.errors import RunTakenOver
from rqmem.rq_names import (
    CanceledJobRegistry,
    DeferredJobRegistry,
    FailedJobRegistry,
    Group,
    Job,
    Queue,
    now,
    utcformat,
)
from rqmem.store import keys
from rqmem.store.execution_records import GATHER, Pending, Split
from rqmem.store.executions import expire_run, keys_of_an_end
from rqmem.store.keys import KEEP_SECONDS, WAITING_SECONDS
from rqmem.store.scripts import script

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from rqmem.rq_names import EnqueueData, Execution

OK, WAITING = "ok", ""
_BATCH = 500
_LONGEST_OUTCOME = 300
_SHOWN_DEPENDENCIES = 1000
_BELOW = "-child-"
_FIELDS = (
    *(
        "split_queue",
        "split_started_at",
        "split_last",
        "split_sealed",
        "split_total",
        "split_end",
        "split_ended",
        "split_failed",
    ),
    *("split_items", "split_peak_mb", "split_reported", "split_ended_at", "split_ended_before", "split_cut_stage"),
    "split_first",
)
"""Of a split in its parent's run."""
_CHILD = re.compile(rf"(?P<parent>.+){_BELOW}(?P<number>\d+)")


def child_id(parent_id: str, number: int) -> str:
    """The job id of a child: made twice, it is made once."""
    return f"{parent_id}{_BELOW}{number}"


def parent_of(job_id: str) -> tuple[str, int] | None:
    """Whose child a job is, and the how many-th; None: nobody's."""
    found = _CHILD.fullmatch(job_id)
    return (found["parent"], int(found["number"])) if found else None


def top_of(job_id: str) -> str:
    """The job at the top of its tree."""
    return job_id.partition(_BELOW)[0]


def _above(job_id: str) -> Iterator[str]:
    """Its parent, and the parent's, up to the top."""
    while (found := parent_of(job_id)) is not None:
        job_id = found[0]
        yield job_id


def open_split(
    connection: Redis, parent_id: str, queue: Queue, started_at: float, cut_stage: int | None = None, first: Any = None
) -> None:
    """A job of that queue begins to split, or what is left of a stage of it is cut; keeps its first figures.

    ``first``: the first cursor of what is cut, for an execution that goes on with it.
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
    """A job is cut in two after a breach: how often that has happened to the one at its top and all below that."""
    key = keys.run(top_of(job_id))
    with connection.pipeline() as pipeline:
        pipeline.hincrby(key, "cuts", 1)
        pipeline.expire(key, WAITING_SECONDS)  # that one waits for us
        cuts, _ = pipeline.execute()
    return int(cuts)


def report(connection: Redis, parent_id: str) -> None:
    """The failures of its children are about to fail the parent: its next execution runs them once more."""
    connection.hset(keys.run(parent_id), "split_reported", 1)


def add_children(
    queue: Queue, parent_id: str, execution: Execution, children: Mapping[int, EnqueueData], last: Any
) -> None:
    """Enqueue those of ``children`` (by number, in order) that are not there yet, all or none.

    ``last``: the description of the last one's slice, so that another execution can go on behind it. What is left of a
    job that had the id of one of them, and has ended, is forgotten.

    Raises `RunTakenOver`; fenced: taken over between the look and the commit, the transaction fails and looks again.
    """

    def enqueue(pipeline: Pipeline) -> None:
        if not pipeline.exists(execution.key):
            raise RunTakenOver(f"job {parent_id}: another worker took this run over; it makes no more children")
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
            queue.enqueue_many([data for _, data in new], pipeline=pipeline, group_id=parent_id)
            pipeline.sadd(Group.get_key(parent_id), *ids)
            pipeline.sadd(Group.REDIS_GROUP_KEY, parent_id)
            pipeline.hset(keys.children(parent_id), mapping={str(number): WAITING for number, _ in new})
            pipeline.expire(keys.children(parent_id), KEEP_SECONDS)
            pipeline.hset(keys.run(parent_id), "split_last", json.dumps(last))

    queue.connection.transaction(cast("Callable[[Pipeline], None]", enqueue), execution.key)


def defer(job: Job, queue: Queue, execution: Execution, pending: Pending) -> bool:
    """End an execution that has split, its job waits for its children; False where it is not ours any more."""
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
    """A child ended with ``outcome`` (`OK`, or one line). In a pipeline it rides in the transaction that ends it.

    What it has done and used stands in its run; ``peak_mb``: where its last execution used more.
    """
    found = parent_of(child.id)
    assert found is not None
    parent_id, number = found
    names = [*_of(parent_id), child.key_for(parent_id), keys.run(child.id), child.key]
    names += [keys.run(each) for each in _above(parent_id)]
    at = now()
    values = [
        *(parent_id, number, outcome[:_LONGEST_OUTCOME], result, peak_mb, utcformat(at), KEEP_SECONDS),
        *(at.timestamp(), WAITING_SECONDS, GATHER, utcformat(child.created_at)),
    ]
    return script(connection, "child_ended")(keys=names, args=values, client=connection)


def can_run_again(connection: Redis, job_id: str) -> Queue | None:
    """The queue of a child that has failed; None: it is gone, or has not failed (but was cancelled, say)."""
    origin = cast("bytes | None", connection.hget(Job.key_for(job_id), "origin"))
    if origin is None:
        return None
    queue = Queue(origin.decode(), connection=connection)
    return queue if connection.zscore(queue.failed_job_registry.key, job_id) is not None else None


def run_again(queue: Queue, parent_id: str, number: int, *, at_front: bool = False) -> None:
    """This child has failed, and runs once more; one that has not, or is gone, is let be."""
    job_id = child_id(parent_id, number)
    run, children, _ = _of(parent_id)
    names = [run, children, Job.key_for(job_id), queue.failed_job_registry.key, queue.key, queue.redis_queues_keys]
    script(queue.connection, "run_again")(keys=names, args=[job_id, number, utcformat(now()), int(at_front)])


def give_up(parent_id: str, execution: Execution) -> None:
    """The children made so far are to be undone: nobody goes on behind the last of them. Raises `RunTakenOver`."""

    def mark(pipeline: Pipeline) -> None:
        if not pipeline.exists(execution.key):
            raise RunTakenOver(f"job {parent_id}: another worker took this run over; its children stay")
        pipeline.multi()
        pipeline.hdel(keys.run(parent_id), "split_last")

    execution.connection.transaction(cast("Callable[[Pipeline], None]", mark), execution.key)


def begin_again(connection: Redis, parent_id: str) -> None:
    """As if the job had not begun to split; what its chunks have finished stays."""
    with connection.pipeline() as pipeline:
        pipeline.hdel(keys.run(parent_id), *_FIELDS)
        _forget(pipeline, parent_id)
        pipeline.execute()


def take_back(connection: Redis, children: Sequence[tuple[str, str]]) -> None:
    """Forget those of these jobs (id, name of its queue) that wait in their queue."""
    with connection.pipeline(transaction=False) as pipeline:
        for job_id, origin in children:
            names = [Job.key_for(job_id), Queue(origin, connection=connection).key, Job.dependents_key_for(job_id)]
            script(connection, "take_back")(keys=names, args=[job_id], client=pipeline)
        pipeline.execute()


def forget(connection: Redis, parent_id: str) -> None:
    """The parent is gone."""
    with connection.pipeline() as pipeline:
        _forget(pipeline, parent_id)
        pipeline.delete(keys.results(parent_id))
        expire_run(pipeline, parent_id)
        pipeline.execute()


def _forget(pipeline: Pipeline, parent_id: str) -> None:
    pipeline.delete(*keys.forgotten("split is undone", parent_id))
    pipeline.srem(keys.SPLITS, parent_id)


def _of(parent_id: str) -> tuple[str, str, str]:
    return keys.run(parent_id), keys.children(parent_id), keys.gathered(parent_id)


# Reading


@dataclass(frozen=True)
class Made:
    """How many children a job has, one more than the last one's number, the description of its slice, and the first
    cursor of what was cut."""

    children: int
    end: int
    last: Any
    first: Any


def made(connection: Redis, parent_id: str) -> Made | None:
    """None: it has none."""
    with connection.pipeline() as pipeline:
        pipeline.hlen(keys.children(parent_id))
        pipeline.hmget(keys.run(parent_id), ["split_last", "split_first"])
        count, (last, first) = pipeline.execute()
    if not count or last is None:
        return None
    end = 1 + numbers(connection, parent_id)[-1]
    return Made(count, end, json.loads(last), None if first is None else json.loads(first))


def outcomes(connection: Redis, parent_id: str) -> Iterator[tuple[int, str]]:
    """Number and outcome of each child, a batch at a time, in no order; one may come twice."""
    for number, outcome in connection.hscan_iter(keys.children(parent_id), count=_BATCH):
        yield int(number), outcome.decode()


def results(connection: Redis, parent_id: str, end: int, begin: int = 0) -> Iterator[tuple[int, bytes | None]]:
    """Number and serialised result of each child in the order of slices, a batch at a time; None: it left none."""
    for first in range(begin, end, _BATCH):
        numbers = range(first, min(first + _BATCH, end))
        values = cast("list[bytes | None]", connection.hmget(keys.gathered(parent_id), [str(each) for each in numbers]))
        yield from zip(numbers, values, strict=True)


def numbers(connection: Redis, parent_id: str) -> list[int]:
    """Of its children, in order."""
    return sorted({number for number, _ in outcomes(connection, parent_id)})


def missing(connection: Redis, parent_id: str, split: Split) -> set[int]:
    """Numbers below the split's end that no child has: it was not enqueued."""
    return set() if split.end == split.total else set(range(split.end)) - set(numbers(connection, parent_id))


def split_children(connection: Redis, parent_id: str, most: int) -> tuple[list[int], int]:
    """The first ``most`` of its children that have split themselves, by number; and how many there are in all."""
    key = keys.split_below(parent_id)
    with connection.pipeline() as pipeline:
        pipeline.sort(key, start=0, num=max(0, most))
        pipeline.scard(key)
        numbers, count = pipeline.execute()
    return [int(number) for number in numbers], count


def splitting(connection: Redis) -> list[str]:
    """Ids of jobs that wait for children, or make them."""
    return sorted(job_id.decode() for job_id in cast("set[bytes]", connection.smembers(keys.SPLITS)))
