"""Sentry's SDK, with a server of its own: what arrives of jobs, and what does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from rq import Queue

from tests.conftest import WorkOff
from tests.integrations.sink import Sink

JOBS = "tests.integrations.reporting_jobs"
LIBRARIES = (
    "django.http", "django.db.models", "flask", "httpx", "sqlalchemy", "fastapi", "eventlet.patcher", "urllib3",
    "aiohttp.web", "celery.app.trace", "gevent", "huey.api", "psycopg",
)  # fmt: skip
"""Of those that Sentry looks for an integration, what is slow to import."""


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


Run = Callable[..., str]


@pytest.fixture
def run(connection: Redis, work_off: WorkOff, sink: Sink) -> Run:
    """Run these jobs, each a name and arguments."""

    def run(*jobs: str, options: tuple[str, ...] = (), preload: bool = True) -> str:
        queue = Queue("jobs", connection=connection)
        for job in jobs:
            name, *arguments = job.split()
            queue.enqueue(f"{JOBS}.{name}", *arguments)
        preloads = ("--preload", JOBS) if preload else ()
        return work_off("jobs", "--memory", "96", *preloads, *options, TEST_DSN=sink.dsn)

    return run


@pytest.mark.parametrize("preload", [True, False], ids=["set up before the fork", "set up by the job's module"])
@pytest.mark.parametrize("isolation", ["warm", "fork"])
def test_breaches_are_errors_of_their_own_kind(run: Run, sink: Sink, isolation: str, preload: bool) -> None:
    log = run("greedy", "greedy_in_native_code", "ok", options=("--isolation", isolation), preload=preload)
    assert sink.types() == ["MemoryLimitExceeded", "MemoryLimitExceeded"], log
    unwound, killed = sink.errors
    assert unwound["fingerprint"] == ["rqmem", "MemoryLimitExceeded", f"{JOBS}.greedy"]
    assert killed["fingerprint"] == ["rqmem", "MemoryLimitExceeded", f"{JOBS}.greedy_in_native_code"]
    assert killed["tags"]["rqmem.layer"] in ("kill", "kernel")
    assert killed["contexts"]["rqmem breach"]["limit_mb"] == 96
    for event in (unwound, killed):
        assert event["extra"]["rq-job"]["func"].startswith(JOBS)
        assert event["extra"]["rq-job"]["args"] == "[Filtered]"


def test_a_breach_after_which_the_job_goes_on_is_no_error(run: Run, sink: Sink) -> None:
    log = run("Resumed.run", "message")
    assert "goes on from" in log
    assert sink.types() == ["a message"]


def test_other_ends_of_jobs_arrive(run: Run, sink: Sink) -> None:
    run("boom hunter2", "killed", "Parent.run")
    assert sink.types() == ["ValueError", "HorseLost", "ValueError", "ChildJobsFailed"]


def test_no_job_sees_the_scope_of_another(run: Run, sink: Sink) -> None:
    run("tagged one", "message")
    [event] = sink.errors
    assert "tenant" not in event.get("tags", {})
    assert "crumb of one" not in str(event.get("breadcrumbs"))


def test_without_integrations_breaches_have_no_fingerprint(run: Run, sink: Sink) -> None:
    run("greedy", options=("--no-integrations",))
    assert all("fingerprint" not in event for event in sink.errors)
