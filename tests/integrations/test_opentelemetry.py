"""OpenTelemetry's SDK: what a job's spans say has left the process when its horse ends, however soon that is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue

from tests.conftest import WorkOff


@pytest.mark.parametrize("isolation", ["warm", "fork"])
def test_spans_are_exported_before_the_horse_ends(
    connection: Redis, work_off: WorkOff, tmp_path: Path, isolation: str
) -> None:
    spans = tmp_path / "spans"
    queue = Queue("jobs", connection=connection)
    for name in ("first", "second"):
        queue.enqueue("tests.integrations.traced_jobs.traced", name)
    work_off("jobs", "--isolation", isolation, TEST_SPANS=str(spans))
    assert [json.loads(line)["name"] for line in spans.read_text().splitlines()] == ["first", "second"]


def test_spans_of_short_jobs_are_exported_together(connection: Redis, work_off: WorkOff, tmp_path: Path) -> None:
    spans = tmp_path / "spans"
    queue = Queue("jobs", connection=connection)
    names = [str(number) for number in range(200)]
    for name in names:
        queue.enqueue("tests.integrations.traced_jobs.traced", name)
    log = work_off("jobs", TEST_SPANS=str(spans))
    assert "lease of" in log
    assert [json.loads(line)["name"] for line in spans.read_text().splitlines()] == names
    assert len(Path(f"{spans}.exports").read_text()) < 100, "each job was exported by itself"


def test_a_horse_that_is_killed_has_exported_the_spans_of_jobs_some_time_before(
    connection: Redis, work_off: WorkOff, tmp_path: Path
) -> None:
    spans = tmp_path / "spans"
    queue = Queue("jobs", connection=connection)
    names = [str(number) for number in range(40)]
    for name in names:
        queue.enqueue("tests.integrations.traced_jobs.traced", name)
    queue.enqueue("tests.integrations.traced_jobs.traced", "long", "sleep")
    queue.enqueue("tests.integrations.traced_jobs.traced", "deadly", "die")
    log = work_off("jobs", TEST_SPANS=str(spans))
    assert "HorseLost" in log
    assert [json.loads(line)["name"] for line in spans.read_text().splitlines()][:41] == [*names, "long"]


def test_a_context_that_a_job_leaves_ends_with_it(connection: Redis, work_off: WorkOff, tmp_path: Path) -> None:
    queue = Queue("jobs", connection=connection)
    queue.enqueue("tests.integrations.traced_jobs.leave_context")
    seen = queue.enqueue("tests.integrations.traced_jobs.baggage_seen")
    work_off("jobs", TEST_SPANS=str(tmp_path / "spans"))
    assert seen.return_value() == {}
