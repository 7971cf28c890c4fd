"""The heart's thread: what it is asked to do, it does at once, and not at its next beat."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Queue

from rqmem import MemoryWorker
from rqmem.config.settings import Config
from rqmem.testing import wait_until
from rqmem.worker.heartbeat import Heart
from tests import sample_jobs


def a_heart(connection: Redis) -> Heart:
    """Of a worker that beats once a minute."""
    worker = MemoryWorker([Queue("jobs", connection=connection)], config=Config(heartbeat_seconds=60))
    worker._heart.start(worker._life.new_recorder())
    return worker._heart


@pytest.fixture
def heart(connection: Redis) -> Iterator[Heart]:
    heart = a_heart(connection)
    wait_until(lambda: not heart._errands)
    yield heart
    heart.stop()


def test_no_errand_makes_it_wait_for_ever(connection: Redis) -> None:
    """With Python 3.10's `SimpleQueue`, a look that was not to wait at all did, in one of some 50,000."""
    worker = MemoryWorker([Queue("jobs", connection=connection)], config=Config())

    def look_often() -> None:
        for _ in range(100_000):
            worker._heart.soon(lambda redis: None)
            worker._heart._nothing_new.acquire(timeout=0)
            worker._heart._errands.clear()

    thread = threading.Thread(target=look_often, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


def test_an_errand_is_done_at_once(heart: Heart, connection: Redis) -> None:
    done: list[str] = []
    heart.soon(lambda redis: done.append("first"))
    heart.soon(lambda redis: done.append("second"))
    wait_until(lambda: done == ["first", "second"], 30)  # the next beat comes in a minute


def test_an_errand_that_fails_is_done_once(heart: Heart) -> None:
    tries: list[int] = []
    heart.soon(lambda redis: tries.append(1) or SimpleNamespace().missing)
    heart.soon(lambda redis: tries.append(2))
    heart.soon(lambda redis: tries.append(3))
    wait_until(lambda: tries[-1:] == [3], 30)
    assert tries == [1, 2, 3]


def test_an_errand_is_done_again_where_redis_was_away(heart: Heart) -> None:
    tries: list[int] = []

    def errand(redis: Redis) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise RedisConnectionError("gone")

    heart.soon(errand)
    wait_until(lambda: len(tries) == 2, 60)


def test_what_is_still_to_do_is_done_before_the_heart_stops(connection: Redis) -> None:
    heart = a_heart(connection)
    done: list[int] = []
    heart.soon(lambda redis: done.append(1))
    heart.stop()
    assert done == [1]


def test_a_beat_that_comes_after_the_end_of_its_job_leaves_nothing(connection: Redis) -> None:
    """It was about to be sent as the job's records went. RQ's writes two of them anew."""
    heart = a_heart(connection)
    heart.stop()  # the test beats in its place
    queue, worker = Queue("jobs", connection=connection), heart._worker
    job = queue.enqueue(sample_jobs.add, 1)
    execution = worker.prepare_execution(job)
    worker.prepare_job_execution(job, remove_from_intermediate_queue=False)
    heart.running(job, execution)
    beaten = connection.hget(execution.key, "last_heartbeat")
    heart._maintained_at = 0.0
    heart._maintain()
    assert connection.hget(execution.key, "last_heartbeat") != beaten
    worker._committer.remove_records(job, execution)
    job.delete()
    heart._maintained_at = 0.0
    heart._maintain()
    assert list(connection.scan_iter(f"*{job.id}*")) == []
