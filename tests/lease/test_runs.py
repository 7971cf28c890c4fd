"""The scripts of a lease for memory-aware jobs and children: their records, and the ledger of their parent."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from redis import Redis
from rq import Queue
from rq.executions import Execution
from rq.job import Job, JobStatus

from rqmem.child_ids import child_id
from rqmem.errors import RunTakenOver
from rqmem.store import execution_reader, executions, keys, lease, ledger
from rqmem.store.execution_records import Pending, RunRecord
from rqmem.store.executions import RunWriter, opening
from rqmem.store.held_run import HeldRecord, HeldRun, RunFigures, record_in
from rqmem.store.held_run import opening as opening_text
from rqmem.store.lease_commands import Taken
from tests.lease.driver import Lease, execution, ids

PARENT = "parent"


class Slot:
    """A place for a record, in this process."""

    wanted = False
    room = 4096

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> bool:
        if len(data) > self.room:
            return False
        self.data = data
        return True

    def clear(self) -> None:
        self.data = b""


@pytest.fixture
def ada(connection: Redis) -> Iterator[Lease]:
    one = Lease(connection)
    yield one
    one.link.close()


def held(ada: Lease, job: Taken, slot: Slot | None = None) -> tuple[HeldRun, RunWriter]:
    """A run of that job, which has begun under the lease, and has finished 3 items."""

    def write(record: HeldRecord) -> None:
        if ada.show(job, record) != "shown":
            raise RunTakenOver

    run = HeldRun(slot or Slot(), write)
    writer = RunWriter(ada.connection, job.id.decode(), execution(job).decode(), run)
    writer.open(fields(job), anew=True)
    writer.begin_stage(0, 2)
    writer.save_chunks(0, 3, 3, 2, b"results", 2, "{}")
    return run, writer


def fields(job: Taken) -> dict[str, object]:
    return opening("tests.Part", "resume", "", "made", f"run-{job.id.decode()}")


def ended(run: HeldRun, writer: RunWriter) -> bytes:
    writer.close(20.5, 0.25, 0, 0)
    run.figures = RunFigures(own_items=3, peak_mb=20.5)
    return run.ended()


def split(connection: Redis, children: int) -> None:
    """A parent that waits for so many children, which wait in their queue."""
    queue = Queue("low", connection=connection)
    parent = queue.enqueue("tests.Parent.run", job_id=PARENT, at_front=True)
    with connection.pipeline() as pipeline:
        run = Execution.create(parent, 90, pipeline, worker_name="ada")
        pipeline.hset(keys.RUNNING, PARENT, json.dumps({"execution": run.id}))
        pipeline.hset(parent.key, "status", "started")
        pipeline.zadd("rq:wip:low", {run.composite_key: time.time() + 90})
        pipeline.lrem("rq:queue:low", 0, PARENT)
        pipeline.execute()
    ledger.open_split(connection, PARENT, queue, time.time())
    datas = {
        number: Queue.prepare_data("tests.Part.run", job_id=child_id(PARENT, number)) for number in range(children)
    }
    ledger.add_children(queue, PARENT, run, datas, None)
    parent.refresh()
    assert ledger.defer(parent, queue, run, Pending(children, children))


def parents_split(connection: Redis) -> tuple[int, int, int, float]:
    found = execution_reader.run(connection, PARENT).split
    assert found is not None
    return found.ended, found.failed, found.items, found.peak_mb


# The record of a run


def test_a_run_that_ends_well_has_its_record_from_its_commit(ada: Lease, connection: Redis) -> None:
    job = Queue("low", connection=connection).enqueue("tests.Part.run", job_id="a")
    [a] = ada.take().jobs
    ada.step(begins=a)
    run, writer = held(ada, a)
    assert not connection.exists(keys.run("a"), keys.results("a"))
    assert ada.step(a, run=ended(run, writer)).refused == {}
    record = execution_reader.run(connection, "a")
    assert (record.items, record.chunks, record.finished, record.peak_mb) == ({0: 3}, 2, True, 20.5)
    assert (record.cursors, record.run_id, record.on_breach) == ({0: 3}, "run-a", "resume")
    assert 400 < connection.ttl(keys.run("a")) <= 500
    assert not connection.exists(keys.results("a"))
    assert job.get_status() == JobStatus.FINISHED


def test_a_result_that_is_not_kept_leaves_no_record(ada: Lease, connection: Redis) -> None:
    Queue("low", connection=connection).enqueue("tests.Part.run", job_id="a", result_ttl=0)
    [a] = ada.take().jobs
    ada.step(begins=a)
    run, writer = held(ada, a)
    run.write()
    assert connection.exists(keys.run("a"), keys.results("a")) == 2
    ada.step(a, ttl=0, run=ended(run, writer))
    assert not connection.exists(keys.run("a"), keys.results("a"))


def test_a_run_that_needs_its_record_has_it_written_and_is_its_only_owner(ada: Lease, connection: Redis) -> None:
    Queue("low", connection=connection).enqueue("tests.Part.run", job_id="a")
    [a] = ada.take().jobs
    ada.step(begins=a)
    run, writer = held(ada, a)
    run.write()
    assert execution_reader.results(connection, "a", 0) == [b"results"]
    assert execution_reader.owner(connection, "a").execution == execution(a).decode()  # type: ignore[union-attr]
    writer.save_chunks(0, 5, 5, 1, b"more", 2, "{}")
    assert execution_reader.results(connection, "a", 0) == [b"results", b"more"]
    assert execution_reader.run(connection, "a").items == {0: 5}
    executions.release(connection, "a")
    with pytest.raises(RunTakenOver):
        writer.save_chunks(0, 7, 7, 1, b"late", 2, "{}")


def test_a_record_never_replaces_a_newer_one(ada: Lease, connection: Redis) -> None:
    """The worker may write what it has read from the page after its horse has gone on."""
    Queue("low", connection=connection).enqueue("tests.Part.run", job_id="a")
    [a] = ada.take().jobs
    ada.step(begins=a)
    slot = Slot()
    run, writer = held(ada, a, slot)
    old = record_in(slot.data)
    run.write()
    writer.save_chunks(0, 5, 5, 1, b"more", 2, "{}")
    assert ada.show(a, old) == "shown"
    assert execution_reader.run(connection, "a").items == {0: 5}
    assert execution_reader.results(connection, "a", 0) == [b"results", b"more"]


def test_what_is_wanted_or_has_no_room_goes_to_redis(ada: Lease, connection: Redis) -> None:
    queue = Queue("low", connection=connection)
    for job_id in "ab":
        queue.enqueue("tests.Part.run", job_id=job_id)
    a, b = ada.take().jobs
    ada.step(begins=a)
    small = Slot()
    small.room = 10
    held(ada, a, small)
    ada.step(a, begins=b)
    seen = Slot()
    seen.wanted = True
    held(ada, b, seen)
    assert execution_reader.run(connection, "a").items == execution_reader.run(connection, "b").items == {0: 3}


def test_a_job_with_a_record_is_not_taken(ada: Lease, connection: Redis) -> None:
    queue = Queue("low", connection=connection)
    queue.enqueue("tests.Part.run", job_id="a")
    queue.enqueue("tests.Part.run", job_id="b")
    connection.hset(keys.run("b"), "job", "tests.Part")
    batch = ada.take()
    assert (ids(batch), batch.why, batch.needs) == (["a"], "needs", "run")


def test_a_hand_over_whose_reply_was_lost_is_repeated(ada: Lease, connection: Redis) -> None:
    Queue("low", connection=connection).enqueue("tests.Part.run", job_id="a")
    [a] = ada.take().jobs
    assert ada.show(a, hand_over=True) == ada.show(a, hand_over=True) == "shown"
    assert ada.show(a) == "gone"
    executions.release(connection, "a")
    assert ada.show(a, hand_over=True) == "gone"


@pytest.mark.parametrize("shown", [False, True])
def test_the_run_of_a_dead_worker_has_a_record(ada: Lease, connection: Redis, shown: bool) -> None:
    queue = Queue("low", connection=connection)
    for job_id in "abc":
        queue.enqueue("tests.Part.run", job_id=job_id)
    a, b, _ = ada.take().jobs
    ada.step(begins=a, opening=opening_text(fields(a)))
    ada.step(a, begins=b, opening=opening_text(fields(b)))
    if shown:
        ada.show(b)
    taken = lease.take_over(connection, "ada", "token")
    assert taken is not None and (taken.begun, taken.put_back) == ("b", 1)
    record = execution_reader.run(connection, "b")
    assert (record.run_id, record.on_breach, record.began) == ("run-b", "resume", False)
    assert execution_reader.run(connection, "a") == execution_reader.run(connection, "c") == RunRecord()


# Children


def test_children_of_a_step_are_told_together_and_once(ada: Lease, connection: Redis) -> None:
    split(connection, 5)
    first, *others = ada.take().jobs
    ada.step(begins=first)
    run, writer = held(ada, first)
    record = ended(run, writer)
    assert ada.step(first, *others[:2], run=record, result=b"\0result").refused == {}
    assert parents_split(connection) == (3, 0, 9, 20.5)
    assert list(ledger.results(connection, PARENT, 4))[2:] == [(2, b"\0result"), (3, None)]
    assert set(ada.step(first, *others[:2], run=record).refused.values()) == {"gone"}
    assert parents_split(connection) == (3, 0, 9, 20.5)
    assert Job.fetch(PARENT, connection=connection).get_status() == JobStatus.DEFERRED
    ada.step(*others[2:], run=record)
    assert parents_split(connection) == (5, 0, 15, 20.5)
    assert connection.lrange("rq:queue:low", 0, -1) == [PARENT.encode()]
    assert Job.fetch(PARENT, connection=connection).get_status() == JobStatus.QUEUED
    assert connection.llen(keys.ENDED_SPLITS) == 1


def test_the_ledger_is_the_same_as_without_a_lease(ada: Lease, connection: Redis) -> None:
    left = []
    for leased in (True, False):
        split(connection, 3)
        first, *others = ada.take().jobs
        run, writer = held(ada, first)
        if leased:
            ada.step(first, *others, run=ended(run, writer), result=b"r")
        else:
            run.write()
            writer.close(20.5, 0.25, 0, 0)
            for each in (first, *others):
                child = Job.fetch(each.id.decode(), connection=connection)
                if each is not first:
                    connection.copy(keys.run(first.id.decode()), keys.run(child.id))
                ledger.tell_parent(connection, child, ledger.OK, result=b"r")
        found = execution_reader.run(connection, PARENT).split
        assert found is not None
        left.append(
            (
                (found.total, found.ended, found.failed, found.items, found.peak_mb, found.sealed),
                connection.hgetall(keys.children(PARENT)),
                connection.hgetall(keys.gathered(PARENT)),
                connection.hget(f"rq:job:{PARENT}", "status"),
                connection.lrange("rq:queue:low", 0, 0),
                [connection.ttl(key(PARENT)) > 0 for key in (keys.run, keys.children, keys.gathered)],
            )
        )
        ada.give_back()
        connection.flushall()
    assert left[0] == left[1]


@pytest.mark.parametrize("done", ["cancel", "delete", "made anew"])
def test_a_child_that_somebody_has_ended_meanwhile_does_not_count(ada: Lease, connection: Redis, done: str) -> None:
    """Taken, begun, or finished and not committed: that is one state in Redis."""
    split(connection, 2)
    first, other = ada.take().jobs
    ada.step(begins=first)
    job = Job.fetch(first.id.decode(), connection=connection)
    if done == "cancel":
        job.cancel()
    else:
        job.delete()
    if done == "made anew":
        Queue("low", connection=connection).enqueue("tests.Part.run", job_id=job.id)
    run, writer = held(ada, first)
    why = ada.step(first, other, run=ended(run, writer)).refused
    assert list(why) == [first.id], why
    assert parents_split(connection)[0] == 1
    assert [outcome for _, outcome in sorted(ledger.outcomes(connection, PARENT))] == ["", "ok"]


def test_a_child_of_a_child_counts_for_all_above(ada: Lease, connection: Redis) -> None:
    split(connection, 1)
    [child] = ada.take().jobs
    below = child_id(child.id.decode(), 0)
    Queue("low", connection=connection).enqueue("tests.Part.run", job_id=below)
    connection.hset(keys.children(child.id.decode()), "0", "")
    connection.hset(keys.run(child.id.decode()), "split_queue", "{}")
    [job] = ada.take(opens=False).jobs
    run, writer = held(ada, job)
    ada.step(job, run=ended(run, writer))
    found = execution_reader.run(connection, child.id.decode()).split
    assert found is not None and (found.ended, found.items) == (1, 3)
    assert parents_split(connection) == (0, 0, 3, 20.5)
