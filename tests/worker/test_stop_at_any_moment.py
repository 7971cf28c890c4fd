"""A request to stop may come at any moment of a worker's start and end: its name is free afterwards."""

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
