"""An idle worker's horse waits for jobs by itself, and whatever happens meanwhile, none is lost."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
from redis import Redis
from rq import Callback, Queue
from rq.command import send_stop_job_command
from rq.job import Job, JobStatus
from rq.suspension import resume, suspend
from rq.worker import Worker

from rqmem import MemoryWorker
from rqmem.config.settings import Config
from rqmem.measure.procfs import read_children
from rqmem.store import pausing, restarting
from rqmem.testing import wait_until
from rqmem.worker.horse.channel import LeaseEnd, Ran
from tests import lease_jobs
from tests.conftest import OwnRedis, StartWorker, WorkerProcess
from tests.refusing_redis import RefusingProxy, writes
from tests.worker.test_lease import leased, note_success, nothing_is_left, ran

QUICK = {"RQMEM_HEARTBEAT": "0.3"}


@pytest.fixture
def start(request: pytest.FixtureRequest, start_worker: StartWorker) -> StartWorker:
    """A worker that has run some short jobs, and whose horse waits for more."""
    if request.config.getoption("--isolation") == "fork":
        pytest.skip("a horse for one job takes no lease")

    def start(*options: str, connection: Redis | None = None, **environ: str) -> WorkerProcess:
        options = options or ("jobs",)
        worker = start_worker(*options, **{"RQMEM_LEASE_MAX": "64", **QUICK, **environ})
        queue = Queue(options[0], connection=connection or request.getfixturevalue("connection"))
        job = queue.enqueue(lease_jobs.act, "first")
        wait_until(lambda: job.is_finished, 90)
        while not ran_in_a_lease(job):  # two jobs have to be short, which takes some more on a busy machine
            wait_until_it_waits(queue.connection)
            job = queue.enqueue(lease_jobs.act, "first")
            wait_until(lambda: job.is_finished, 90)  # noqa: B023
        queue.connection.delete("ran")
        wait_until_it_waits(queue.connection)
        return worker

    return start


def ran_in_a_lease(job: Job) -> bool:
    """The ids of executions end with a count there, and are random otherwise."""
    result = job.latest_result()
    assert result is not None and result.execution_id is not None
    return int(result.execution_id[-8:], 16) < 1000


def blocked(connection: Redis) -> int:
    """How many clients wait for a job of a queue."""
    return sum(client["cmd"] == "blmove" and "b" in client["flags"] for client in connection.client_list())


def wait_until_it_waits(connection: Redis, queues: int = 1) -> None:
    wait_until(lambda: blocked(connection) >= queues, 90)


def horse_of(worker: WorkerProcess) -> int:
    [pid] = [pid for pid in read_children(worker.pid) if b"spawn" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return pid


def ended_well(worker: WorkerProcess, number: signal.Signals = signal.SIGTERM) -> str:
    os.kill(worker.pid, number)
    log = worker.finish()
    assert worker.process.returncode == 0, log
    return log


def run_one(queue: Queue, name: str, *what: object) -> Job:
    """When the horse waits."""
    wait_until_it_waits(queue.connection)
    job = queue.enqueue(lease_jobs.act, name, *what)
    wait_until(lambda: job.get_status() in (JobStatus.FINISHED, JobStatus.FAILED), 60)
    return job


def test_jobs_that_come_one_by_one_run_at_once_and_in_leases(queue: Queue, start: StartWorker) -> None:
    worker = start()
    names = [str(number) for number in range(5)]
    jobs = [run_one(queue, name) for name in names]
    [rqs] = Worker.all(connection=queue.connection)
    assert rqs.get_state() == "idle"
    log = ended_well(worker)
    assert [job.return_value() for job in jobs] == names
    assert leased(log) > 0, log
    assert ran(queue) == names
    nothing_is_left(queue)


def test_a_wait_that_brought_jobs_is_followed_by_another_at_once(
    connection: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that comes between two leases does not wait for RQ's loop."""
    leasing = MemoryWorker(["jobs"], connection=connection, config=Config())._leasing
    ends = [LeaseEnd(ran=(Ran("job", 3),)), LeaseEnd(ran=(Ran("job", 1),)), LeaseEnd(), LeaseEnd()]
    waits: list[float] = []

    def run(seconds: float) -> LeaseEnd:
        waits.append(seconds)
        return ends[len(waits) - 1]

    monkeypatch.setattr(leasing, "_run", run)
    monkeypatch.setattr(leasing, "_may_wait", lambda: True)
    assert leasing.wait_for_jobs(60)
    assert waits[0] == 60 and len(waits) == 3
    assert all(seconds < 1 for seconds in waits[1:]), "the worker's idle time counts from then"
    assert not leasing.wait_for_jobs(60)
    assert len(waits) == 4


def test_many_jobs_that_come_at_once_run_in_their_order(queue: Queue, start: StartWorker) -> None:
    worker = start()
    queue.enqueue_many([Queue.prepare_data(lease_jobs.act, (str(number),)) for number in range(200)])
    wait_until(lambda: len(ran(queue)) == 200, 60)
    wait_until_it_waits(queue.connection)
    log = ended_well(worker)
    assert ran(queue) == [str(number) for number in range(200)]
    assert leased(log) > 0, log
    nothing_is_left(queue)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_whose_horse_waits_stops_at_once(queue: Queue, start: StartWorker, number: signal.Signals) -> None:
    worker = start()
    log = ended_well(worker, number)
    assert "cold" not in log
    assert Worker.all(connection=queue.connection) == []
    nothing_is_left(queue)


def test_a_job_that_comes_while_the_worker_stops_is_not_lost(queue: Queue, start: StartWorker) -> None:
    for number in range(4):
        worker = start()
        job = queue.enqueue(lease_jobs.act, "late")
        time.sleep(0.0005 * number)
        log = ended_well(worker)
        between = queue.intermediate_queue.get_job_ids()
        assert job.is_finished or queue.job_ids == [job.id], (job.get_status(), between, log)
        assert between == [], log
        queue.empty()
        nothing_is_left(queue)


def test_a_worker_begins_anew_while_its_horse_waits(queue: Queue, start: StartWorker) -> None:
    worker = start()
    [rqs] = Worker.all(connection=queue.connection)
    birth = rqs.birth_date
    restarting.tell(queue.connection, rqs.name)
    wait_until(lambda: any(each.birth_date != birth for each in Worker.all(connection=queue.connection)), 60)
    wait_until_it_waits(queue.connection)
    assert run_one(queue, "after").is_finished
    ended_well(worker)


def test_suspended_workers_leave_a_job_where_it_is(queue: Queue, start: StartWorker) -> None:
    worker = start()
    suspend(queue.connection)
    job = queue.enqueue(lease_jobs.act, "later")
    wait_until(lambda: blocked(queue.connection) == 0 and queue.job_ids == [job.id])
    nothing_but(queue, job)
    resume(queue.connection)
    wait_until(lambda: job.is_finished, 60)
    ended_well(worker)
    nothing_is_left(queue)


def nothing_but(queue: Queue, job: Job) -> None:
    assert job.get_status() == JobStatus.QUEUED
    wait_until(lambda: queue.connection.llen(queue.intermediate_queue_key) == 0)  # a horse may just have moved it
    assert "later" not in ran(queue)


def test_a_paused_queue_keeps_its_jobs_and_the_others_go_on(queue: Queue, start: StartWorker) -> None:
    other = Queue("other", connection=queue.connection)
    worker = start("jobs", "other")
    pausing.pause(queue.connection, "jobs")
    later = queue.enqueue(lease_jobs.act, "later")
    now = other.enqueue(lease_jobs.act, "now")
    wait_until(lambda: now.is_finished, 60)
    wait_until(lambda: queue.job_ids == [later.id])
    nothing_but(queue, later)
    pausing.resume(queue.connection, "jobs")
    wait_until(lambda: later.is_finished, 60)
    ended_well(worker)
    nothing_is_left(queue)


def test_of_jobs_that_come_at_once_the_better_queue_has_the_first(queue: Queue, start: StartWorker) -> None:
    low = Queue("low", connection=queue.connection)
    worker = start("jobs", "low")
    for number in range(3):
        wait_until_it_waits(queue.connection, queues=2)
        with queue.connection.pipeline() as pipeline:
            low.enqueue(lease_jobs.act, f"low {number}", pipeline=pipeline)
            queue.enqueue(lease_jobs.act, f"high {number}", pipeline=pipeline)
            pipeline.execute()
        wait_until(lambda: f"low {number}" in ran(queue), 60)  # noqa: B023
    log = ended_well(worker)
    assert ran(queue) == [f"{which} {number}" for number in range(3) for which in ("high", "low")]
    assert leased(log) > 0, log
    nothing_is_left(queue)
    nothing_is_left(low)


def test_an_idle_worker_leaves_when_it_was_idle_for_long_enough(queue: Queue, start: StartWorker) -> None:
    worker = start("jobs", "--max-idle-time", "2")
    began = time.monotonic()
    run_one(queue, "once more")
    log = worker.finish()
    assert time.monotonic() - began >= 1.9, "it counts from the last job"
    assert "idle for 2 seconds, quitting" in log
    nothing_is_left(queue)


def test_a_horse_that_waits_runs_no_more_jobs_than_it_may(queue: Queue, start: StartWorker) -> None:
    worker = start("jobs", "--max-jobs-per-horse", "5")
    pids = []
    for _ in range(10):
        wait_until_it_waits(queue.connection)
        job = queue.enqueue(lease_jobs.pid)
        wait_until(lambda: job.is_finished, 60)  # noqa: B023
        pids.append(job.return_value())
    ended_well(worker)
    assert all(pids.count(pid) <= 5 for pid in pids)
    assert len(set(pids)) >= 2


def test_a_job_that_is_none_for_a_lease_runs_all_the_same(queue: Queue, start: StartWorker) -> None:
    worker = start()
    called = queue.enqueue(lease_jobs.act, "called", on_success=Callback(note_success))
    wait_until(lambda: called.is_finished, 60)
    other = queue.enqueue(lease_jobs.note, "of another type")
    wait_until(lambda: other.is_finished, 60)
    bad = queue.enqueue(lease_jobs.act, "bad", "raise")
    wait_until(lambda: bad.is_failed, 60)
    assert queue.connection.get("succeeded") == called.id.encode()
    assert "ValueError: bad" in bad.latest_result().exc_string
    ended_well(worker)
    assert ran(queue) == ["called", "of another type", "bad"]
    nothing_is_left(queue)


def test_a_job_that_was_deleted_or_cancelled_while_it_came_does_not_run(queue: Queue, start: StartWorker) -> None:
    worker = start()
    with queue.connection.pipeline() as pipeline:
        job = queue.enqueue(lease_jobs.act, "gone", pipeline=pipeline)
        pipeline.delete(job.key)
        pipeline.execute()
    run_one(queue, "after")
    ended_well(worker)
    assert ran(queue) == ["after"]
    nothing_is_left(queue)


def test_a_breach_of_a_job_that_came_to_a_waiting_horse(queue: Queue, start: StartWorker) -> None:
    worker = start("jobs", "--memory", "128")
    greedy = run_one(queue, "greedy", "grow")
    wait_until(lambda: greedy.is_failed, 60)
    text = greedy.latest_result().exc_string
    after = queue.enqueue(lease_jobs.act, "after")
    wait_until(lambda: after.is_finished, 60)
    log = ended_well(worker)
    found = re.search(r"used ([\d.]+) MB of 128 MB", text)
    assert found is not None, (text, log)
    assert 128 <= float(found[1]) < 128 + 32, log
    nothing_is_left(queue)


def test_a_long_job_is_shown_and_can_be_stopped(queue: Queue, start: StartWorker, tmp_path: Path) -> None:
    worker = start()
    [rqs] = Worker.all(connection=queue.connection)
    go = tmp_path / "go"
    long = queue.enqueue(lease_jobs.act, str(go), "wait")
    wait_until(lambda: queue.connection.hget(rqs.key, "state") == b"busy" and long.get_status() == JobStatus.STARTED)
    go.touch()
    wait_until(lambda: long.is_finished, 60)
    wait_until(lambda: queue.connection.hget(rqs.key, "state") == b"idle")
    wait_until_it_waits(queue.connection)
    stopped = queue.enqueue(lease_jobs.act, str(tmp_path / "never"), "wait")
    wait_until(lambda: stopped.get_status() == JobStatus.STARTED)
    send_stop_job_command(queue.connection, stopped.id)
    wait_until(lambda: stopped.get_status() == JobStatus.STOPPED, 60)
    ended_well(worker)
    nothing_is_left(queue)


def test_workers_that_wait_share_the_jobs_and_none_runs_twice(queue: Queue, start: StartWorker, redis_url: str) -> None:
    workers = [start(), start()]  # the second one's first jobs go to the first, or it waits too
    names = [f"job {number}" for number in range(100)]
    for name in names:
        queue.enqueue(lease_jobs.act, name)
    wait_until(lambda: set(names) <= set(ran(queue)), 60)
    for worker in workers:
        ended_well(worker)
    assert sorted(name for name in ran(queue) if name in names) == sorted(names)
    nothing_is_left(queue)


# Deaths


def test_a_horse_that_is_killed_while_it_waits_is_replaced(queue: Queue, start: StartWorker) -> None:
    worker = start()
    os.kill(horse_of(worker), signal.SIGKILL)
    job = queue.enqueue(lease_jobs.act, "after")
    wait_until(lambda: job.is_finished, 60)
    ended_well(worker)
    nothing_is_left(queue)


@pytest.mark.parametrize("who", ["horse", "worker"])
def test_a_job_that_came_to_one_who_dies_before_it_takes_it_comes_back(
    queue: Queue, start: StartWorker, start_worker: StartWorker, who: str
) -> None:
    worker = start()
    horse = horse_of(worker)
    os.kill(horse, signal.SIGSTOP)
    job = queue.enqueue(lease_jobs.act, "came")
    wait_until(lambda: queue.connection.llen(queue.intermediate_queue_key) == 1)
    os.kill(horse if who == "horse" else worker.pid, signal.SIGKILL)
    if who == "worker":
        worker.finish()
        worker = start_worker("jobs", **QUICK)
    wait_until(lambda: job.is_finished, 90)
    ended_well(worker)
    assert ran(queue) == ["came"]
    assert not queue.job_ids and queue.connection.llen(queue.intermediate_queue_key) == 0


def test_a_job_that_kills_its_worker_at_once_ends_as_abandoned(
    queue: Queue, start: StartWorker, start_worker: StartWorker
) -> None:
    """It does not run again and again."""
    worker = start()
    job = queue.enqueue(lease_jobs.act, "deadly", "kill worker once")
    worker.finish()
    worker = start_worker("jobs", **QUICK)
    wait_until(lambda: job.is_failed, 90)
    ended_well(worker)
    assert "AbandonedJobError" in job.latest_result().exc_string
    assert ran(queue) == ["deadly"]
    nothing_is_left(queue)


def test_a_worker_stops_although_redis_does_not_answer(own_redis: OwnRedis, start: StartWorker) -> None:
    worker = start("jobs", connection=own_redis.connection, RQMEM_REDIS_URL=own_redis.server.url)
    os.kill(own_redis.server.pid, signal.SIGSTOP)
    try:
        log = ended_well(worker)
    finally:
        os.kill(own_redis.server.pid, signal.SIGCONT)
    assert "cold" not in log


def test_a_redis_that_restarts_while_a_horse_waits(own_redis: OwnRedis, start: StartWorker) -> None:
    worker = start("jobs", connection=own_redis.connection, RQMEM_REDIS_URL=own_redis.server.url)
    own_redis.kill()
    own_redis.start_again()
    jobs = [own_redis.queue.enqueue(lease_jobs.act, str(number)) for number in range(3)]
    wait_until(lambda: all(Job.fetch(job.id, connection=own_redis.connection).is_finished for job in jobs), 90)
    ended_well(worker)


def test_a_redis_that_refuses_while_a_horse_waits(queue: Queue, redis_url: str, start: StartWorker) -> None:
    proxy = RefusingProxy(redis_url)
    worker = start("jobs", RQMEM_REDIS_URL=proxy.url)
    proxy.refuse = writes("READONLY You can't write against a read only replica.")
    job = queue.enqueue(lease_jobs.act, "came")
    wait_until(lambda: proxy.refused > 5, 60)
    proxy.refuse = None
    wait_until(lambda: job.is_finished, 90)
    wait_until_it_waits(queue.connection)
    ended_well(worker)
    assert ran(queue) == ["came"]
    nothing_is_left(queue)


@pytest.mark.parametrize("command", [b"UNBLOCK", b"ID"])
def test_a_redis_that_does_not_let_clients_be_unblocked(
    queue: Queue, redis_url: str, start: StartWorker, command: bytes
) -> None:
    """As where an ACL forbids it: connections are closed instead."""
    proxy = RefusingProxy(redis_url)
    proxy.refuse = lambda sent: (
        "NOPERM this user has no permissions" if sent[0] == b"CLIENT" and sent[1] == command else None
    )
    worker = start("jobs", "other", RQMEM_REDIS_URL=proxy.url)
    for number in range(3):
        run_one(queue, str(number))
    log = ended_well(worker)
    assert leased(log) > 0, log
    assert ran(queue) == ["0", "1", "2"]
    nothing_is_left(queue)


def test_a_reply_that_is_lost_loses_no_job(queue: Queue, redis_url: str, start: StartWorker) -> None:
    """The job was moved, or taken, and the horse does not hear of it."""
    proxy = RefusingProxy(redis_url)
    worker = start("jobs", RQMEM_REDIS_URL=proxy.url)
    for name in (b"BLMOVE", b"EVALSHA"):
        wait_until_it_waits(queue.connection)
        left = [1]

        def lost(sent: list[bytes], name: bytes = name, left: list[int] = left) -> bool:
            if sent[0] == name and left and queue.connection.llen("rq:queue:jobs:intermediate"):
                return bool(left.pop())
            return False

        proxy.lose = lost
        job = queue.enqueue(lease_jobs.act, name.decode())
        wait_until(lambda: job.is_finished, 90)  # noqa: B023
        proxy.lose = None
        wait_until_it_waits(queue.connection)
    ended_well(worker)
    assert sorted(ran(queue)) == ["BLMOVE", "EVALSHA"]
    nothing_is_left(queue)
