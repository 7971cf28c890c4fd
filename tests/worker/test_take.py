"""Taking a job in one round trip: in RQ's order, from queues that are not paused, and never lost."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from redis import Redis
from rq import Queue
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.suspension import suspend

from rqmem import MemoryWorker
from rqmem.config.settings import Config
from rqmem.errors import RunTakenOver
from rqmem.store import execution_reader, executions, keys, pausing
from rqmem.testing import wait_until
from rqmem.worker.shared_memory import SharedPage
from rqmem.worker.take import Suspended, restored
from rqmem.worker.warm_horse import WarmHorse
from tests import sample_jobs
from tests.conftest import StartWorker


class OwnFetch(Job):
    """A job that is read in its own way."""

    @classmethod
    def fetch(cls, *args: object, **kwargs: object) -> Job:  # type: ignore[override]
        raise AssertionError("not called here")


class FullPool:
    """A pool that has no room: each job is passed over from then on."""

    must_wait = False

    def __init__(self) -> None:
        self.refused: list[bytes] = []

    def passed_over(self) -> list[bytes]:
        return self.refused

    def admits(self, job: Job, queue: Queue) -> bool:
        self.refused.append(job.id.encode())
        return False


@pytest.fixture
def worker(connection: Redis) -> MemoryWorker:
    queues = [Queue(name, connection=connection) for name in ("high", "middle", "low")]
    return MemoryWorker(queues, connection=connection, config=Config())


def test_queues_come_in_their_order_and_jobs_in_theirs(worker: MemoryWorker) -> None:
    high, _, low = worker.queues
    ids = [queue.enqueue(sample_jobs.add, 1).id for queue in (low, low, high)]
    taken = [worker._taker.take() for _ in range(4)]
    assert [(job.id, queue.name) for job, queue in filter(None, taken)] == [
        (ids[2], "high"), (ids[0], "low"), (ids[1], "low"),
    ]  # fmt: skip
    assert taken[3] is None


def test_when_a_lease_took_it_before_counts_no_more(worker: MemoryWorker, connection: Redis) -> None:
    """Retried later and put back again, it went in front of jobs that had been taken before it."""
    job = worker.queues[0].enqueue(sample_jobs.add, 1)
    connection.zadd(keys.returned("high"), {job.id: 1, "another": 2})
    assert worker._taker.take() is not None
    assert connection.zrange(keys.returned("high"), 0, -1) == [b"another"]


def test_a_taken_job_is_as_rq_reads_it(worker: MemoryWorker) -> None:
    job = worker.queues[0].enqueue(sample_jobs.add, 1, b=2, meta={"a": b"\xff"}, description="some")
    taken = worker._taker.take()
    assert taken is not None
    assert taken[0].to_dict() == Job.fetch(job.id, worker.connection).to_dict()
    assert restored(worker, job.id, worker._taker.fields_of(taken[0])).to_dict() == taken[0].to_dict()
    assert worker._taker.fields_of(job) == {}


def test_a_job_from_one_of_several_queues_comes_back_when_its_worker_dies(worker: MemoryWorker) -> None:
    job = worker.queues[2].enqueue(sample_jobs.add, 1)
    worker._taker.take()
    assert worker.queues[2].intermediate_queue.get_job_ids() == [job.id]
    assert worker.queues[2].job_ids == []


def test_a_deleted_job_is_dropped(worker: MemoryWorker) -> None:
    gone, there = (worker.queues[0].enqueue(sample_jobs.add, 1) for _ in range(2))
    worker.connection.delete(gone.key)
    taken = worker._taker.take()
    assert taken is not None and taken[0].id == there.id
    assert worker.queues[0].intermediate_queue.get_job_ids() == [there.id]


def test_no_job_of_a_paused_queue_is_taken(worker: MemoryWorker) -> None:
    paused, there = (queue.enqueue(sample_jobs.add, 1) for queue in worker.queues[:2])
    pausing.pause(worker.connection, "high")
    taken = worker._taker.take()
    assert taken is not None and taken[0].id == there.id
    assert worker.queues[0].job_ids == [paused.id]


def test_no_job_is_taken_while_workers_are_suspended(worker: MemoryWorker) -> None:
    job = worker.queues[0].enqueue(sample_jobs.add, 1)
    suspend(worker.connection)
    with pytest.raises(Suspended):
        worker._taker.take()
    assert worker.queues[0].job_ids == [job.id]


def test_jobs_for_which_there_is_no_room_stay_in_their_order(worker: MemoryWorker) -> None:
    high, _, low = worker.queues
    ids = {queue: [queue.enqueue(sample_jobs.add, 1).id for _ in range(5)] for queue in (high, low)}
    worker._taker._member = FullPool()  # type: ignore[assignment]
    assert worker._taker.take() is None
    assert len(worker._taker._member.passed_over()) == 10
    assert {queue: queue.job_ids for queue in (high, low)} == ids
    assert high.intermediate_queue.get_job_ids() == []


def test_a_job_that_was_cancelled_after_it_was_taken_is_not_put_back(worker: MemoryWorker) -> None:
    queue = worker.queues[0]
    job = queue.enqueue(sample_jobs.add, 1)
    worker._taker.take()
    job.cancel()
    executions.give_back(queue, job.id)
    assert queue.job_ids == queue.intermediate_queue.get_job_ids() == []


def test_a_job_class_that_reads_jobs_in_its_own_way_is_asked(worker: MemoryWorker) -> None:
    assert worker._taker.usable
    worker.job_class = OwnFetch
    assert not worker._taker.usable


def test_a_job_that_was_deleted_after_it_was_taken_does_not_begin(worker: MemoryWorker) -> None:
    job = worker.queues[0].enqueue(sample_jobs.add, 1)
    worker._taker.take()
    worker.prepare_execution(job)
    worker.connection.delete(job.key)
    with pytest.raises(RunTakenOver, match="deleted before it began"):
        worker.prepare_job_execution(job)
    assert not worker.connection.exists(job.key)


def test_a_job_begins_as_in_rq_where_nobody_has_claimed_it(worker: MemoryWorker) -> None:
    job = worker.queues[0].enqueue(sample_jobs.add, 1)
    worker._taker.take()
    worker.prepare_job_execution(job)
    assert job.is_started
    assert worker.queues[0].intermediate_queue.get_job_ids() == []
    assert execution_reader.owner(worker.connection, job.id) is None


def test_the_heartbeat_is_written_once_a_second_while_the_heart_beats(worker: MemoryWorker) -> None:
    worker.register_birth()
    worker._heart.start(worker._life.new_recorder())
    try:
        worker.heartbeat()
        worker.connection.hdel(worker.key, "last_heartbeat")
        before = worker.last_heartbeat
        worker.heartbeat()
        assert not worker.connection.hexists(worker.key, "last_heartbeat")
        assert worker.last_heartbeat > before
        worker.heartbeat(timeout=30)  # the key is to live for another time
        assert worker.connection.hexists(worker.key, "last_heartbeat")
        assert worker.connection.ttl(worker.key) <= 30
    finally:
        worker._heart.stop()


def test_outside_work_each_heartbeat_is_written(worker: MemoryWorker) -> None:
    worker.heartbeat()
    worker.connection.hdel(worker.key, "last_heartbeat")
    worker.heartbeat()
    assert worker.connection.hexists(worker.key, "last_heartbeat")


@pytest.mark.parametrize("names", [["jobs"], ["jobs", "low"], ["jobs", *map(str, range(16))]], ids=["1", "2", "17"])
def test_a_job_that_comes_as_a_worker_is_told_to_stop_stays_in_its_queue(
    connection: Redis, start_worker: StartWorker, names: list[str]
) -> None:
    """RQ has popped it, and forgets it by the exception that stops the worker."""
    queue = Queue("jobs", connection=connection)
    worker = start_worker(*names)
    wait_until(lambda: any("b" in client["flags"] for client in connection.client_list()))
    os.kill(worker.pid, signal.SIGSTOP)
    job = queue.enqueue(sample_jobs.add, 1)
    wait_until(lambda: not connection.llen(queue.key))  # Redis has given it to the worker
    os.kill(worker.pid, signal.SIGTERM)
    os.kill(worker.pid, signal.SIGCONT)
    log = worker.finish()
    assert queue.job_ids == [job.id], log
    assert connection.llen(queue.intermediate_queue_key) == 0


def test_a_better_queue_has_the_first_of_jobs_that_come_at_once(connection: Redis, start_worker: StartWorker) -> None:
    low, high = (Queue(name, connection=connection) for name in ("low", "jobs"))
    worker = start_worker("jobs", "low", "--max-jobs", "1")
    wait_until(lambda: sum("b" in client["flags"] for client in connection.client_list()) == 2)
    with connection.pipeline() as pipeline:
        later = low.enqueue(sample_jobs.add, 1, pipeline=pipeline)
        first = high.enqueue(sample_jobs.add, 1, pipeline=pipeline)
        pipeline.execute()
    log = worker.finish()
    assert (first.is_finished, later.get_status(), low.job_ids) == (True, "queued", [later.id]), log
    assert connection.llen(low.intermediate_queue_key) == 0


@pytest.fixture
def working(worker: MemoryWorker) -> Iterator[MemoryWorker]:
    """As within `work`: its heart beats, and a horse waits for the job."""
    worker.register_birth()
    worker._heart.start(worker._life.new_recorder())
    worker._pool.warm = WarmHorse(os.getpid(), None, SharedPage.new(1))  # type: ignore[arg-type]
    yield worker
    worker._pool.warm = None
    worker._heart.stop()


def records(connection: Redis, job: Job, execution: Execution) -> dict[str, str]:
    """What RQ has in Redis of a job that runs, with names and times made the same."""
    found: dict[str, object] = {}
    for key in connection.scan_iter("rq:*"):
        kind, name = connection.type(key).decode(), key.decode()
        if kind == "hash":
            found[name] = sorted(connection.hgetall(key).items())
        elif kind == "zset":
            found[name] = [(member, round((score - time.time()) / 10)) for member, score in connection.zscan_iter(key)]
        elif kind == "set":
            found[name] = sorted(connection.smembers(key))
        elif kind == "list":
            found[name] = connection.lrange(key, 0, -1)
        if not name.startswith("rq:worker:"):  # of that, a heartbeat says
            found[f"{name} lives"] = round(connection.ttl(key) / 10)

    def same(text: str) -> str:
        text = text.replace(execution.id, "EXECUTION").replace(job.id, "JOB")
        return re.sub(r"\d{10}\.\d+|\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)

    return {same(name): same(repr(value)) for name, value in sorted(found.items())}


@pytest.mark.parametrize("timeout", [None, 5, 180, -1])
def test_a_job_that_is_started_as_it_is_taken_leaves_what_rq_leaves(
    worker: MemoryWorker, connection: Redis, timeout: int | None
) -> None:
    def taken() -> tuple[Job, Execution]:
        worker.queues[0].enqueue(sample_jobs.add, 1, job_timeout=timeout, description="some")
        found = worker._taker.take()
        assert found is not None
        return found[0], worker.prepare_execution(found[0])

    worker.register_birth()
    worker._heart.start(worker._life.new_recorder())
    try:
        job, execution = taken()
        worker.prepare_job_execution(job)
        by_steps = records(connection, job, execution)
        owner = execution_reader.owner(connection, job.id)
        assert owner is not None
        worker.cleanup_execution(job, pipeline := connection.pipeline(), execution)
        job.delete(pipeline=pipeline)
        pipeline.execute()
        worker.set_state("idle")
        worker._pool.warm = WarmHorse(os.getpid(), None, SharedPage.new(1))  # type: ignore[arg-type]
        job, execution = taken()
        worker.prepare_job_execution(job)
        assert records(connection, job, execution) == by_steps
        assert execution_reader.owner(connection, job.id) == replace(owner, execution=execution.id)
        assert job.to_dict() == Job.fetch(job.id, connection).to_dict()
    finally:
        worker._pool.warm = None
        worker._heart.stop()


def test_a_lost_reply_gives_the_same_job_again(working: MemoryWorker) -> None:
    ids = [working.queues[1].enqueue(sample_jobs.add, 1).id for _ in range(2)]
    with working._claimer.starting() as start:
        first = start.values[0]
    taken = working._taker.take()
    assert taken is not None and taken[0].id == ids[0]
    working._claimer._begun, working._claimer._next_id = None, first  # as if the reply had not come
    again = working._taker.take()
    assert again is not None and again[0].id == ids[0] and again[1].name == "middle"
    assert working.prepare_execution(again[0]).id == first
    assert working.queues[1].job_ids == ids[1:]


@pytest.mark.parametrize("odd", [{"status": "canceled"}, {"origin": "elsewhere"}])
def test_a_job_that_is_not_queued_as_usual_begins_in_rqs_way(
    working: MemoryWorker, connection: Redis, odd: dict[str, str]
) -> None:
    job = working.queues[0].enqueue(sample_jobs.add, 1)
    connection.hset(job.key, mapping=odd)
    assert working._taker.take() is not None
    assert working.queues[0].intermediate_queue.get_job_ids() == [job.id]
    assert connection.hget(job.key, "worker_name") == b""
    assert working.get_state() == "busy", "a request to stop lets it run to its end"


def test_a_request_to_stop_loses_no_job_that_is_started_as_it_is_taken(
    working: MemoryWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # RQ's own handlers would outlive this test
    with pytest.raises(StopRequested), working._claimer.starting():
        working.request_stop(signal.SIGTERM, None)  # none has come
    working._stop_requested = False
    job = working.queues[0].enqueue(sample_jobs.add, 1)
    starting = working._claimer.starting

    @contextlib.contextmanager
    def told_to_stop() -> Iterator[object]:
        with starting() as start:
            working.request_stop(signal.SIGTERM, None)
            yield start

    working._claimer.starting = told_to_stop  # type: ignore[assignment, method-assign]
    taken = working._taker.take()
    assert taken is not None and taken[0].id == job.id
    assert working._stop_requested


def test_a_job_that_somebody_took_over_before_its_horse_began_it_does_not_begin(
    working: MemoryWorker, connection: Redis
) -> None:
    job = working.queues[0].enqueue(sample_jobs.add, 1)
    assert working._taker.take() is not None
    execution = working.prepare_execution(job)
    execution.created_at -= timedelta(seconds=30)  # the machine slept
    working.prepare_job_execution(job)
    executions.release(connection, job.id)
    connection.zrem(working.queues[0].started_job_registry.key, execution.composite_key)
    with pytest.raises(RunTakenOver):
        working.prepare_job_execution(job)


def test_a_subclass_that_prepares_jobs_itself_is_asked(working: MemoryWorker) -> None:
    working.prepare_job_execution = lambda *_: None  # type: ignore[assignment, method-assign]
    job = working.queues[0].enqueue(sample_jobs.add, 1)
    assert working._taker.take() is not None
    assert not job.is_started


def test_workers_that_wait_do_not_pass_a_job_on_to_one_another(connection: Redis, start_worker: StartWorker) -> None:
    """Each that put it back gave it to the next one that waited."""
    names = ["jobs", "low"]
    for _ in range(3):
        start_worker(*names)
    wait_until(lambda: sum("b" in client["flags"] for client in connection.client_list()) == 6)
    connection.config_resetstat()
    job = Queue("jobs", connection=connection).enqueue(sample_jobs.add, 1)
    wait_until(lambda: job.is_finished)
    assert "cmdstat_lpush" not in connection.info("commandstats")
    assert connection.xlen(f"rq:results:{job.id}") == 1
