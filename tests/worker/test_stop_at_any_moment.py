"""A request to stop may come at any moment: the worker's name is free afterwards, and the job it took has a place."""

from __future__ import annotations

import pytest
from redis import Redis

from tests import forked

# Runs workers that find no job. Each gets SIGTERM a little later than the one before, counted in calls of functions.
WORKERS = """
import os, signal, sys, threading, traceback
from rqmem import MemoryWorker, connect, log
first, of = int(sys.argv[1]), int(sys.argv[2])
log.configure("info", "text")
redis = connect()
calls, at, heard = 0, 0, False

def count(frame, event, argument):
    global calls, heard
    heard = heard or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    if event == "call" and heard:
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGTERM)

def work():
    global calls, heard
    calls, heard = 0, False
    worker = MemoryWorker(["jobs"], connection=redis, name="w")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        sys.setprofile(count)
        worker.work(burst=True, with_scheduler=True)
    except Exception:
        traceback.print_exc()
    finally:
        sys.setprofile(None)
    left = [*redis.smembers("rq:workers"), *redis.scan_iter("rqmem:alive:*"), *redis.scan_iter("rq:scheduler*")]
    threads = [each.name for each in threading.enumerate() if each.name.startswith("rqmem")]
    if left or threads:
        print("LEFT after", at, "of", total, "calls:", left, threads, file=sys.stderr)

total = 0
work()
total = calls
for number in range(first, 24, of):
    at = total * number // 24
    work()
"""


@pytest.mark.parametrize("first", [1, 2])
def test_a_worker_that_is_told_to_stop_signs_off(connection: Redis, redis_url: str, first: int) -> None:
    done = forked.run_code(WORKERS, str(first), "2", RQMEM_REDIS_URL=redis_url)
    assert done.returncode == 0, done.stderr
    assert "LEFT" not in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert "told to stop while it started" in done.stderr


# Each of these workers gets SIGTERM at a later moment between its question for a job and the job's start.
TAKERS = """
import os, signal, sys
from rq import Queue
from rqmem import MemoryWorker, connect, log
comes = sys.argv[1] == "comes"
log.configure("info", "text")
redis = connect()
queue = Queue("jobs", connection=redis)
calls, at, counts, job = 0, 0, False, None

def count(frame, event, argument):
    global calls, counts, job
    name = frame.f_code.co_name
    if event == "call" and name == ("_poll" if comes else "take"):
        counts = True
        job = job or queue.enqueue("tests.sample_jobs.add", 1)
    elif (event, name) == (("call", "execute_job") if comes else ("return", "take")):
        counts = False
    if counts:
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGTERM)

def work():
    global calls, counts, job
    calls, counts, job = 0, False, None
    worker = MemoryWorker(["jobs"], connection=redis, name="w")
    try:
        sys.setprofile(count)
        worker.work(max_jobs=1)
    finally:
        sys.setprofile(None)
    if queue.intermediate_queue.get_job_ids() or not (job.is_finished or queue.job_ids == [job.id]):
        print("LOST after", at, "of", total, "calls:", job.get_status(), file=sys.stderr)
    redis.flushall()

total = 0
work()
total = calls
for number in range(1, 6):
    at = total * number // 6
    work()
print("stopped", total)
"""


@pytest.mark.parametrize("isolation", ["warm", "fork"])
@pytest.mark.parametrize("when", ["there", "comes"])
def test_a_job_that_is_taken_as_the_worker_is_told_to_stop_runs_or_goes_back(
    connection: Redis, redis_url: str, when: str, isolation: str
) -> None:
    settings = {"RQMEM_REDIS_URL": redis_url, "RQMEM_ISOLATION": isolation, "RQMEM_LEASE_MAX": "0"}
    done = forked.run_code(TAKERS, when, **settings)
    assert done.returncode == 0 and "stopped" in done.stdout, done.stderr
    assert "LOST" not in done.stderr and "Traceback" not in done.stderr, done.stderr
