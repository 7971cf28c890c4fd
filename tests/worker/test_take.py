"""Taking a job in one round trip: in RQ's order, from queues that are not paused, and never lost."""

from __future__ import annotations

import os
import signal

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.suspension import suspend

from rqmem import MemoryWorker
from rqmem.config.settings import Config
from rqmem.errors import RunTakenOver
from rqmem.store import execution_reader, pausing
from rqmem.testing import wait_until
from rqmem.worker.take import Suspended, restored
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


@pytest.mark.parametrize("names", [["jobs"], ["jobs", "low"], ["jobs", *map(str, range(9))]], ids=["1", "2", "10"])
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
