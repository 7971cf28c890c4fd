"""A worker's fixed name: free when its owner is dead, refused while it lives, waited for as long as nobody knows."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rq.exceptions import StopRequested
from rq.job import JobStatus
from rq.worker import Worker

from rqmem.measure import procfs
from rqmem.policy.dead_workers import Holder, name_is
from rqmem.store import keys
from rqmem.store.keys import PROCESS
from rqmem.testing import wait_until
from rqmem.worker import worker_name
from rqmem.worker.memory_worker import MemoryWorker
from tests import sample_jobs
from tests.conftest import StartCommand, StartWorker
from tests.refusing_redis import refusing
from tests.worker.test_resume import texts

RECORD = "rq:worker:fixed"
SLOW_HEART = {"RQMEM_HEARTBEAT": "60"}  # nobody learns anything by silence


def registered(connection: Redis, pid: int) -> bool:
    return connection.hget(RECORD, "pid") == str(pid).encode()


@pytest.fixture
def rq_worker(redis_url: str, start_command: StartCommand) -> StartCommand:
    """RQ's own command, on our server."""
    command = ("worker", "jobs", "--name", "fixed")
    return lambda *options: start_command(*command, *options, module="rq.cli", RQ_REDIS_URL=redis_url, **SLOW_HEART)


def test_the_name_of_a_killed_worker_is_taken_over_at_once_and_its_job_goes_on(
    connection: Redis, start_worker: StartWorker
) -> None:
    job = sample_jobs.Slow.enqueue("jobs", count=12, seconds=0.1, connection=connection)
    killed = start_worker("jobs", "old queue", "--name", "fixed", **SLOW_HEART)
    wait_until(lambda: connection.llen("done") >= 2)
    killed.kill()
    new = start_worker("jobs", "--name", "fixed", "--burst", **SLOW_HEART)
    log = new.finish()
    assert (new.process.returncode, job.get_status()) == (0, JobStatus.FINISHED), log
    assert "takes the name over from a dead worker" in log and "waiting" not in log
    assert not connection.exists("rq:workers:old queue")
    assert sorted(set(map(int, texts(connection, "done")))) == list(range(12))


def test_a_living_workers_name_is_refused_with_exit_code_1(connection: Redis, start_worker: StartWorker) -> None:
    first = start_worker("jobs", "--name", "fixed", **SLOW_HEART)
    wait_until(lambda: registered(connection, first.pid))
    second = start_worker("jobs", "--name", "fixed", **SLOW_HEART)
    log = second.finish()
    assert second.process.returncode == 1
    assert f"a worker named 'fixed' is alive (process {first.pid} on" in log and "Traceback" not in log
    assert registered(connection, first.pid) and first.process.poll() is None


def worker_elsewhere(connection: Redis, process: str = "another boot:7:1") -> None:
    connection.hset(RECORD, mapping={"pid": 7, "hostname": "far", "queues": "jobs", PROCESS: process})
    connection.sadd("rq:workers", RECORD)


@pytest.mark.parametrize("process", ["another boot:7:1", ""], ids=["rqmem", "RQ"])
def test_a_name_that_nobody_is_heard_of_elsewhere_is_taken_over_after_a_wait(
    connection: Redis, start_worker: StartWorker, process: str
) -> None:
    worker_elsewhere(connection, process)
    new = start_worker("jobs", "--name", "fixed", "--burst", RQMEM_HEARTBEAT="0.5")
    log = new.finish()
    assert new.process.returncode == 0, log
    assert log.count("waiting until that is known") == 1


def test_a_name_of_a_worker_that_beats_elsewhere_is_refused(connection: Redis, start_worker: StartWorker) -> None:
    worker_elsewhere(connection)
    stopped = threading.Event()

    def beat() -> None:
        number = 0
        while not stopped.wait(0.05):
            number += 1
            fields = {"worker": "fixed", "host": "far", "pid": 7, "at": number, "process": "another boot:7:1"}
            zero = dict.fromkeys(["started_at", "worker_mb", "worker_limit_mb", "limit_mb", "horse_pid", "jobs"], 0)
            text = json.dumps({**fields, **zero, "breaches": 0, "recycled": 0, "kept_by": ""})
            connection.set(keys.alive("fixed"), text, px=5000)

    beats = threading.Thread(target=beat)
    beats.start()
    try:
        new = start_worker("jobs", "--name", "fixed", **SLOW_HEART)
        log = new.finish()
    finally:
        stopped.set()
        beats.join()
    assert new.process.returncode == 1
    assert "a worker named 'fixed' is alive (process 7 on far)" in log


def test_of_two_new_workers_one_gets_the_name_of_a_dead_one(connection: Redis, start_worker: StartWorker) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    worker_elsewhere(connection, f"{procfs.host_identity()}:{gone.pid}:1")
    both = [start_worker("jobs", "--name", "fixed", **SLOW_HEART) for _ in range(2)]
    wait_until(lambda: [each.process.poll() for each in both].count(1) == 1)
    [winner] = [each for each in both if each.process.poll() is None]
    wait_until(lambda: registered(connection, winner.pid))


def test_the_name_of_rqs_own_worker_is_taken_over_when_it_was_killed(
    connection: Redis, rq_worker: StartCommand, start_worker: StartWorker
) -> None:
    stock = rq_worker()
    wait_until(lambda: connection.pubsub_numsub("rq:pubsub:fixed")[0][1] == 1)
    refused = start_worker("jobs", "--name", "fixed", RQMEM_HEARTBEAT="0.3")
    assert "is alive" in refused.finish() and refused.process.returncode == 1
    assert stock.process.poll() is None
    stock.kill()
    wait_until(lambda: connection.pubsub_numsub("rq:pubsub:fixed")[0][1] == 0)
    new = start_worker("jobs", "--name", "fixed", "--burst", **SLOW_HEART)
    log = new.finish()
    assert new.process.returncode == 0, log
    assert "waiting" not in log


def test_rqs_command_with_our_class_takes_a_name_over_too(connection: Redis, rq_worker: StartCommand) -> None:
    killed = rq_worker("-w", "rqmem.MemoryWorker")
    wait_until(lambda: registered(connection, killed.pid))
    killed.kill()
    new = rq_worker("-w", "rqmem.MemoryWorker")
    wait_until(lambda: registered(connection, new.pid))
    assert len(Worker.all(connection)) == 1
    refused = rq_worker("-w", "rqmem.MemoryWorker")
    assert "is alive" in refused.finish() and refused.process.returncode == 1


holders = st.builds(
    Holder,
    dead=st.sampled_from([True, False, None]),
    said_at=st.none() | st.floats(0, 1e9),
    subscribed=st.sampled_from([True, False, None]),
    tells=st.booleans(),
)


@given(holders, holders, st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_name_is_free_of_the_dead_and_the_long_silent_only(
    first: Holder, last: Holder, waited: float, silent_for: float
) -> None:
    found = name_is(first, last, waited, silent_for if last.silent else None, 5)
    if found == "free":
        assert last.dead or (last.silent and silent_for >= 10)
        assert last.dead is not False
    if found == "taken":
        assert not last.dead or not last.silent
    if found == "not known":
        assert not last.silent or silent_for < 10
        assert last.said_at in (None, first.said_at), "a beat was heard"


def test_a_birth_whose_reply_was_lost_is_no_other_workers(connection: Redis, redis_url: str) -> None:
    with refusing(redis_url) as proxy:
        worker = MemoryWorker(["jobs"], connection=proxy.connection, name="fixed")
        lost: list[bytes] = []
        proxy.lose = lambda command: command[0] == b"EXEC" and not lost and lost.append(command[0]) is None
        worker.register_birth()
        assert lost and registered(connection, os.getpid())
        worker.register_death()


def test_a_stop_just_after_the_birth_leaves_no_name_behind(connection: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes when Redis has the name and the worker has not noted that."""
    worker = MemoryWorker(["jobs"], connection=connection, name="fixed")
    take = worker_name.register

    def take_and_be_stopped(*args: Any) -> None:
        take(*args)
        assert connection.exists(RECORD)
        raise StopRequested

    monkeypatch.setattr(worker_name, "register", take_and_be_stopped)
    assert worker.work(burst=True) is False
    assert "fixed" not in {each.name for each in Worker.all(connection=connection)}


def test_a_stop_before_the_birth_leaves_the_name_of_another(connection: Redis, rq_worker: StartCommand) -> None:
    other = rq_worker()
    wait_until(lambda: registered(connection, other.pid), 90)
    worker = MemoryWorker(["jobs"], connection=connection, name="fixed")
    worker._life.has_name = False
    worker.register_death()
    assert registered(connection, other.pid)
