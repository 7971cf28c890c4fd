"""A stock rq-dashboard serves what rqmem's jobs look like."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis

from rqmem.testing import wait_until
from tests import sample_jobs
from tests.conftest import ROOT, WorkOff, free_port


@pytest.fixture
def dashboard(redis_url: str) -> Iterator[str]:
    port = free_port()
    start = "from rq_dashboard.cli import main; main()"
    command = [sys.executable, "-c", start, "--bind", "127.0.0.1", "--port", str(port), "--redis-url", redis_url]
    process = subprocess.Popen(command, cwd=ROOT, stdout=-3, stderr=-3)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, "the dashboard ended"
        try:
            return bool(get(f"{url}/"))
        except urllib.error.URLError:
            return False

    try:
        wait_until(answers)
        yield url
    finally:
        process.terminate()
        process.wait()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as response:
        return str(response.read().decode())


def data(url: str) -> Any:
    return json.loads(get(url))


def test_jobs_queues_and_workers_with_readable_calls(
    connection: Redis, dashboard: str, work_off: WorkOff, start_worker: Callable[..., Any]
) -> None:
    finished = sample_jobs.Plain.enqueue(number=7, connection=connection)
    work_off("plain")
    waiting = sample_jobs.Plain.enqueue("waiting", number=8, name="later", connection=connection)
    sample_jobs.Slow.enqueue("busy", count=2, seconds=30, connection=connection)
    start_worker("busy", "--name", "the-busy-one")
    wait_until(lambda: connection.hget("rq:worker:the-busy-one", "state") == b"busy")

    queues = {queue["name"]: queue for queue in data(f"{dashboard}/0/data/queues.json")["queues"]}
    assert set(queues) >= {"plain", "waiting", "busy"}
    [shown] = data(f"{dashboard}/0/data/jobs/plain/finished/8/asc/1.json")["jobs"]
    assert shown["description"] == "tests.sample_jobs.Plain(number=7)"
    [shown] = data(f"{dashboard}/0/data/jobs/waiting/queued/8/asc/1.json")["jobs"]
    assert shown["description"] == "tests.sample_jobs.Plain(number=8, name='later')"
    assert data(f"{dashboard}/0/data/job/{finished.id}.json")["id"] == finished.id
    assert data(f"{dashboard}/0/data/job/{waiting.id}.json")["id"] == waiting.id
    [worker] = data(f"{dashboard}/0/data/workers.json")["workers"]
    assert worker["name"].startswith("the-busy-one")
    assert worker["current_job"]["call_string"] == "tests.sample_jobs.Slow.run(count=2, seconds=30)"


def test_a_parent_that_waits_and_one_that_has_ended_with_their_children(
    connection: Redis, dashboard: str, start_worker: Callable[..., Any]
) -> None:
    """rq-dashboard cannot show a job that RQ knows dependencies of."""
    for pause, status in ((30, "deferred"), (0, "finished")):
        parent = sample_jobs.Counted.enqueue(status, count=20, pause=pause, connection=connection)
        start_worker(status)
        wait_until(lambda: parent.get_status() == status)  # noqa: B023
        for job_id in (parent.id, f"{parent.id}-child-1"):
            assert data(f"{dashboard}/0/data/job/{job_id}.json")["id"] == job_id
        shown = data(f"{dashboard}/0/data/job/{parent.id}.json")
        assert json.loads(shown["metadata"])["rqmem"]["children"] == 2
        [listed] = data(f"{dashboard}/0/data/jobs/{status}/{status}/8/asc/1.json")["jobs"][:1]
        assert listed["id"].startswith(parent.id)
        assert "2" in get(f"{dashboard}/0/view/job/{parent.id}")
