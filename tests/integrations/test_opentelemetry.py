"""OpenTelemetry's SDK: what a job's spans say has left the process when its horse ends, however soon that is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue


@pytest.mark.parametrize("isolation", ["warm", "fork"])
def test_spans_are_exported_before_the_horse_ends(
    connection: Redis, work_off: Callable[..., str], tmp_path: Path, isolation: str
) -> None:
    spans = tmp_path / "spans"
    queue = Queue("jobs", connection=connection)
    for name in ("first", "second"):
        queue.enqueue("tests.integrations.traced_jobs.traced", name)
    work_off("jobs", "--isolation", isolation, TEST_SPANS=str(spans))
    assert [json.loads(line)["name"] for line in spans.read_text().splitlines()] == ["first", "second"]


def test_a_context_that_a_job_leaves_ends_with_it(
    connection: Redis, work_off: Callable[..., str], tmp_path: Path
) -> None:
    queue = Queue("jobs", connection=connection)
    queue.enqueue("tests.integrations.traced_jobs.leave_context")
    seen = queue.enqueue("tests.integrations.traced_jobs.baggage_seen")
    work_off("jobs", TEST_SPANS=str(tmp_path / "spans"))
    assert seen.return_value() == {}
