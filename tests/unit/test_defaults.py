"""`rqmem.use`, and what ``enqueue`` does where nobody names a Redis."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis import asyncio as redis_asyncio
from rq import Queue
from rq.job import Job

import rqmem
from rqmem.errors import ConfigError, RedisUnavailable
from rqmem.job import defaults
from tests.conftest import ROOT, WorkOff
from tests.sample_jobs import WithHooks


class OwnQueue(Queue):
    """A project's."""


class OwnJob(Job):
    """A project's."""


@pytest.fixture(autouse=True)
def nothing_used() -> Iterator[None]:
    before, defaults._used = defaults._used, defaults.Defaults()
    yield
    defaults._used = before


def test_what_a_project_names_is_used_by_enqueue_and_progress(connection: Redis) -> None:
    rqmem.use(connection=connection, queue_class=OwnQueue, serializer="json")
    rqmem.use(job_class="tests.unit.test_defaults.OwnJob")  # and the rest stays
    job = WithHooks.enqueue(hooks={})
    assert type(job).__name__ == "OwnJob"
    found = Job.fetch(job.id, connection=connection, serializer="json")
    assert (found.func_name, found.kwargs) == ("tests.sample_jobs.WithHooks.run", {"hooks": {}})
    assert WithHooks.progress(job.id).total == 1


def test_a_call_stands_above_what_the_project_names(connection: Redis) -> None:
    rqmem.use(connection=Redis(port=1), serializer="json")
    assert WithHooks.enqueue(connection=connection, serializer="pickle").get_status() == "queued"


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"connection": "redis://localhost"}, r"use\(connection=str\): give a redis.Redis"),
        ({"connection": redis_asyncio.Redis()}, "give a redis.Redis"),
        ({"connection": Redis(decode_responses=True)}, "RQ needs replies as bytes"),
        ({"queue_class": Job}, "is no subclass of RQ's Queue"),
        ({"queue_class": "tests.nowhere.Queue"}, "cannot be imported"),
        ({"job_class": "json"}, "cannot be imported|no subclass"),
        ({"job_class": "../.."}, "cannot be imported: give a path"),
        ({"queue_class": "tests.broken_module.Queue"}, "cannot be imported: RuntimeError"),
        ({"serializer": "yaml"}, "cannot be used"),
        ({"serializer": 3}, "cannot be used"),
    ],
)
def test_what_cannot_be_used_is_refused_and_changes_nothing(named: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        rqmem.use(**{"serializer": "json", **named})
    assert defaults._used == defaults.Defaults()


def test_without_a_redis_enqueue_starts_none_and_says_what_to_do(tmp_path: Path) -> None:
    code = "from tests.sample_jobs import WithHooks; WithHooks.enqueue()"
    environ = {"PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("rqmem.errors.RedisUnavailable: no Redis is named")
    assert "rqmem.use(connection=...)" in last and "RQMEM_REDIS_URL" in last
    assert not (tmp_path / ".rqmem").exists()


def test_progress_without_a_redis_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RQMEM_REDIS_URL", "RQ_REDIS_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RedisUnavailable, match="no Redis is named"):
        WithHooks.progress("some-job")


@pytest.mark.parametrize(
    "enqueue",
    [
        lambda queue: queue.enqueue(WithHooks, hooks={"a": "b"}, job_timeout=7),
        lambda queue: queue.enqueue(WithHooks, {"a": "b"}, job_timeout=7),
        lambda queue: queue.enqueue(WithHooks, kwargs={"hooks": {"a": "b"}}, job_timeout=7),
        lambda queue: queue.enqueue_in(timedelta(hours=1), WithHooks, hooks={"a": "b"}, job_timeout=7),
    ],
)
def test_rqs_own_queues_take_a_job_class(connection: Redis, enqueue: Callable[[Queue], Job]) -> None:
    job = enqueue(OwnQueue("other", connection=connection))
    assert (job.func_name, job.origin, job.timeout) == ("tests.sample_jobs.WithHooks.run", "other", 7)
    assert job.args == ({"a": "b"},) or job.kwargs == {"hooks": {"a": "b"}}


def test_arguments_that_do_not_fit_are_refused_there_too(connection: Redis) -> None:
    with pytest.raises(ConfigError, match=r"it has no argument 'hook': did you mean hooks\?"):
        Queue(connection=connection).enqueue(WithHooks, hook={})


def test_a_queue_has_its_own_connection(connection: Redis) -> None:
    with pytest.raises(ConfigError, match="WithHooks: connection is the queue's"):
        Queue(connection=connection).enqueue(WithHooks, connection=connection)


def test_a_job_enqueues_where_it_runs(connection: Redis, redis_url: str, work_off: WorkOff) -> None:
    queue = Queue("jobs", connection=connection, serializer="json")
    job = queue.enqueue("tests.sample_jobs.enqueue_another")
    work_off("jobs", "--serializer", "json", "--url", redis_url, RQMEM_REDIS_URL="redis://127.0.0.1:1")
    assert job.get_status(refresh=True) == "finished"
    [made] = Queue(connection=connection, serializer="json").jobs
    assert made.kwargs == {"hooks": {}}
