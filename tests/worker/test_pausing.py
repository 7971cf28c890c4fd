"""Queues that are paused, by the commands and real workers; and what people did, as it is kept."""

from __future__ import annotations

import contextlib
import itertools
import pickle

import pytest
from click.testing import CliRunner
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.job import Job, JobStatus

import rqmem.api
from rqmem.cli import main
from rqmem.job import tree
from rqmem.store import pausing
from rqmem.testing import wait_until
from tests.conftest import StartWorker, WorkOff
from tests.journal_filling import Bomb
from tests.refusing_redis import refusing

ADD = "tests.sample_jobs.add"


def command(redis_url: str, *arguments: str) -> str:
    done = CliRunner().invoke(main, [*arguments, "--url", redis_url])
    assert done.exit_code == 0, done.output
    return done.output


def test_no_worker_takes_a_job_from_a_paused_queue_until_it_is_resumed(
    connection: Redis, redis_url: str, start_worker: StartWorker
) -> None:
    first, second = (Queue(name, connection=connection) for name in ("a", "b"))
    assert "queue a is paused" in command(redis_url, "pause", "a")
    held, other = first.enqueue(ADD, 1), second.enqueue(ADD, 1)
    start_worker("a", "b")
    wait_until(lambda: other.get_status() == JobStatus.FINISHED, 60)
    assert held.get_status() == JobStatus.QUEUED and first.get_job_ids() == [held.id]
    assert "queue a goes on" in command(redis_url, "resume", "a")
    wait_until(lambda: held.get_status() == JobStatus.FINISHED, 60)


def test_a_worker_that_waits_for_a_job_hears_of_a_pause_and_of_its_end(
    connection: Redis, start_worker: StartWorker
) -> None:
    first, second = (Queue(name, connection=connection) for name in ("a", "b"))
    start_worker("a", "b")
    once = first.enqueue(ADD, 1)
    wait_until(lambda: once.get_status() == JobStatus.FINISHED, 60)
    pausing.pause(connection, "a")
    held = [first.enqueue(ADD, number) for number in range(3)]
    other = second.enqueue(ADD, 1)
    wait_until(lambda: other.get_status() == JobStatus.FINISHED, 60)
    assert first.get_job_ids() == [job.id for job in held], "in their order, none lost"
    pausing.resume(connection, "a")
    wait_until(lambda: all(job.get_status() == JobStatus.FINISHED for job in held), 60)


def test_a_paused_queue_alone_is_as_an_empty_one(connection: Redis, work_off: WorkOff) -> None:
    pausing.pause(connection, "a")
    job = Queue("a", connection=connection).enqueue(ADD, 1)
    work_off("a")
    assert job.get_status() == JobStatus.QUEUED
    [queue] = [each for each in rqmem.api.queues(connection=connection) if each.name == "a"]
    assert queue.paused and queue.queued == 1 and queue.to_json()["paused"] is True


def test_a_queue_paused_twice_or_resumed_without_a_pause_says_so(connection: Redis, redis_url: str) -> None:
    command(redis_url, "pause", "a")
    assert "is paused already" in command(redis_url, "pause", "a")
    assert "is not paused; paused are: a" in command(redis_url, "resume", "b")


def test_each_action_of_a_command_is_kept(connection: Redis, redis_url: str, work_off: WorkOff) -> None:
    job = Queue("a", connection=connection).enqueue("tests.sample_jobs.raise_error")
    work_off("a")
    command(redis_url, "retry", job.id)
    command(redis_url, "cancel", job.id)
    command(redis_url, "pause", "a")
    command(redis_url, "resume", "a")
    kept = rqmem.api.actions(connection=connection)
    assert [each.what for each in kept] == ["resume", "pause", "cancel", "retry"]
    assert {each.surface for each in kept} == {"command line"} and all("@" in each.who for each in kept)
    assert [each.job_id for each in rqmem.api.actions(job_id=job.id, connection=connection)] == [job.id, job.id]
    assert kept[0].to_json()["queue"] == "a" and kept[0].at > 0


def test_a_job_is_retried_and_cancelled_without_loading_anything_of_it(connection: Redis, work_off: WorkOff) -> None:
    job = Queue("a", connection=connection).enqueue("tests.sample_jobs.raise_error")
    work_off("a")
    meta = pickle.dumps(Bomb())
    connection.hset(job.key, "meta", meta)
    data = connection.hget(job.key, "data")
    tree.retry(connection, job.id)
    assert connection.hget(job.key, "status") == b"queued"
    assert (connection.hget(job.key, "meta"), connection.hget(job.key, "data")) == (meta, data)
    tree.cancel(connection, job.id)
    assert connection.hget(Job.key_for(job.id), "status") == b"canceled"


@pytest.mark.parametrize("what", ["retry", "retry_from_start", "cancel"])
@pytest.mark.parametrize("reply_is_lost", [False, True])
def test_a_job_is_never_nowhere_when_the_connection_is_lost(
    connection: Redis, redis_url: str, what: str, reply_is_lost: bool
) -> None:
    """At each command of the action once."""
    act, queue = getattr(tree, what), Queue("a", connection=connection)
    for number in itertools.count():
        job = queue.enqueue("tests.sample_jobs.add", 1, 2)
        if what != "cancel":
            queue.remove(job)
            job.set_status(JobStatus.FAILED)
            queue.failed_job_registry.add(job, ttl=1000)
        with refusing(redis_url) as proxy, proxy.connection as through:
            through.ping()
            left = itertools.count(number, -1)
            proxy.hold = lambda command, left=left: proxy.cut() if not reply_is_lost and next(left) == 0 else None
            proxy.lose = lambda command, left=left: reply_is_lost and next(left) == 0
            with contextlib.suppress(RedisError):
                act(through, job.id)
            through_with_it = next(left) >= 0
        places = queue.job_ids, queue.failed_job_registry.get_job_ids(), queue.canceled_job_registry.get_job_ids()
        place = ("queued", "failed", "canceled")[[job.id in each for each in places].index(True)]
        assert job.get_status(refresh=True) == place and sum(job.id in each for each in places) == 1
        if through_with_it:
            assert place == ("canceled" if what == "cancel" else "queued") and number > 5
            return


@pytest.mark.parametrize("name", ["pause", "resume"])
def test_a_queue_without_a_name_is_refused(redis_url: str, connection: Redis, name: str) -> None:
    done = CliRunner().invoke(main, [name, " ", "--url", redis_url])
    assert done.exit_code == 2
    assert done.output.startswith("rqmem: queue name ' ' is empty: give the name of a queue")
    assert connection.keys() == []
