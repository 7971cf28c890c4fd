"""The page of a job: what happened in one sentence, when it ran, its flame graph."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask
from redis import Redis

from rqmem import events
from rqmem.dashboard import drawing, filters, flamegraph_views
from rqmem.dashboard.app import build
from rqmem.dashboard.child_rows import Child
from rqmem.dashboard.lanes import Lane, lanes
from rqmem.dashboard.options import Options
from rqmem.observe.job import Case
from rqmem.observe.model import JobRow
from rqmem.observe.next_step import in_short
from rqmem.policy.kept_captures import Capture
from rqmem.profiling import captures
from rqmem.store.execution_records import RunRecord
from rqmem.store.history.history_records import LiveJob, Told
from tests.dashboard.conftest import JOB, TYPE
from tests.journal_filling import a_run

NOW = 1_800_000_000.0
WHOSE = {"job": TYPE, "job_id": JOB, "queue": "q", "worker": "w"}
BREACH = events.Breach(
    **WHOSE, used_mb=257.0, limit_mb=256.0, peak_mb=257.0, layer="watch", processes=1, operation="items 1-50"
)


def chunk(at: float) -> Told:
    return Told(at, events.ChunkDone(**WHOSE, items=50, items_done=50, memory_mb=80.0))


def test_executions_are_lanes_with_what_happened_in_each() -> None:
    first = replace(a_run(TYPE, JOB, NOW - 60), seconds=30.0, outcome="MemoryLimitExceeded", resumed=True)
    second = replace(a_run(TYPE, JOB, NOW - 20), seconds=30.0)
    collection = events.Collection(**WHOSE, operation="x", freed_mb=9.0, memory_mb=60.0, collections=1)
    told = [chunk(NOW - 80), Told(NOW - 59.5, BREACH), chunk(NOW - 40), Told(NOW - 30, collection), chunk(NOW - 25)]
    live = LiveJob(TYPE, JOB, "q", NOW - 10, 90.0, 95.0, 256.0)
    found = lanes(Case(JOB, NOW, live=live, told=told, runs=[first, second]), [])
    assert [(each.name, each.colour, each.text) for each in found] == [
        ("execution 1", "warning", "1 chunk, 1 breach"),
        ("execution 2", "good", "2 chunks, 1 collection"),
        ("execution 3", "accent", ""),
    ]
    assert [(each.begin, each.end) for each in found] == [
        (NOW - 90, NOW - 60), (NOW - 50, NOW - 20), (NOW - 10, NOW),
    ]  # fmt: skip
    assert found[0].marks[-1] == (NOW - 60, "breach"), "the worker tells of it after the horse has ended"


def test_children_that_have_started_are_lanes_in_the_order_in_which_they_did() -> None:
    def child(number: int, outcome: str, begin: float | None, end: float | None) -> Child:
        row = JobRow(f"{JOB}-child-{number}", "started", TYPE, "call", "q", started_at=begin, ended_at=end)
        return Child(row.job_id, number, outcome, row)

    children = [
        child(0, "ValueError", NOW - 9, NOW - 5), child(1, "ok", NOW - 20, NOW - 10), child(2, "", NOW - 4, None),
        child(3, "", None, None), Child("gone", 4, "ok", None),
    ]  # fmt: skip
    found = lanes(Case(JOB, NOW), children)
    assert [(each.name, each.colour, each.end) for each in found] == [
        ("child 1", "good", NOW - 10), ("child 0", "bad", NOW - 5), ("child 2", "accent", NOW),
    ]  # fmt: skip
    many = [child(number, "ok", NOW - number, NOW) for number in range(40)]
    assert len(lanes(Case(JOB, NOW), many)) == 12


def test_a_lane_is_drawn_between_the_first_and_the_last_time_of_all() -> None:
    shown = Lane("execution 1", 10.0, 20.0, "good", ((15.0, "chunk"), (20.0, "breach")))
    picture = drawing.lane(shown, 0.0, 40.0)
    assert '<rect class="good" x="250.0" y="7" width="250.0"' in picture
    assert '<line class="chunk" x1="375.0"' in picture and '<line class="breach" x1="500.0"' in picture
    assert 'width="3.0"' in drawing.lane(Lane("x", 5.0, 5.0, "good"), 5.0, 5.0), "one without a length is seen"


@pytest.mark.parametrize(
    ("status", "outcome", "breaches", "told"),
    [
        ("finished", "ok", 0, "finished and never reached its ceiling."),
        ("finished", "ok", 1, "reached its ceiling once, went on by itself, and finished."),
        ("failed", "MemoryLimitExceeded", 2, "reached its ceiling twice, and has failed in the end."),
        ("failed", "ValueError", 0, "has failed."),
        ("stopped", "stopped", 3, "reached its ceiling 3 times, and was stopped in the end."),
        ("started", "ok", 1, "runs on w, and has reached its ceiling once so far."),
        ("queued", "ok", 1, "has reached its ceiling once; number 3 in queue 'q'."),
        ("queued", "", 0, "number 3 in queue 'q'."),
        ("", "ok", 0, "finished and never reached its ceiling."),
    ],
)
def test_what_happened_is_said_in_one_sentence(status: str, outcome: str, breaches: int, told: str) -> None:
    runs = [replace(a_run(TYPE, JOB, NOW), outcome=outcome)] if outcome else []
    in_rq = JobRow(JOB, status, "", "call", "q", "w", position=2) if status else None
    record = RunRecord(job=TYPE, breaches=breaches)
    assert in_short(Case(JOB, NOW, in_rq=in_rq, runs=runs, record=record)) == told


def profiled(directory: Path, job_id: str) -> None:
    directory.mkdir(mode=0o700)
    growing = directory / "running-x.memray"
    growing.write_bytes(b"a capture")
    captures.keep(growing, Capture("", TYPE, job_id, "w", time.time(), 100.0, 256.0, True, 9))


@pytest.fixture
def with_profiles(connection: Redis, tmp_path: Path) -> Flask:
    profiled(tmp_path / "profiles", JOB)
    return build(connection, "redis", Options(profile_dir=tmp_path / "profiles"))


def test_a_flame_graph_is_a_file_that_has_no_part_in_this_site(
    filled: Redis, with_profiles: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Path] = []

    def write(capture: Path, output: Path) -> None:
        drawn.append(capture)
        output.write_text("<script>1</script>")

    monkeypatch.setattr(flamegraph_views.flamegraph, "write", write)
    client = with_profiles.test_client()
    link = f"/jobs/{JOB}/flamegraph"
    assert f'href="{link}"' in client.get(f"/jobs/{JOB}").text
    answer = client.get(link)
    assert (answer.status_code, answer.text, drawn[0].suffix) == (200, "<script>1</script>", ".memray")
    assert answer.headers["Content-Security-Policy"].startswith("sandbox allow-scripts; default-src 'none'")
    assert "allow-same-origin" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["Content-Disposition"] == f"attachment; filename={JOB}-flamegraph.html"
    flamegraph_views._drawing.acquire()
    try:
        assert client.get(link).status_code == 503, "one at a time: each is a process"
    finally:
        flamegraph_views._drawing.release()


def test_there_is_no_link_where_there_is_no_profile_that_may_be_read(
    filled: Redis, with_profiles: Flask, tmp_path: Path
) -> None:
    client = with_profiles.test_client()
    assert client.get(f"/jobs/{JOB[:8]}/flamegraph").status_code == 404, "by the whole id only"
    assert client.get("/jobs/another/flamegraph").status_code == 404
    (tmp_path / "profiles").chmod(0o777)  # anybody may have put it there
    assert "flamegraph" not in client.get(f"/jobs/{JOB}").text
    assert client.get(f"/jobs/{JOB}/flamegraph").status_code == 404


@pytest.mark.parametrize(
    ("job_id", "shown"),
    [
        (JOB, "0f1e2d3c"),
        (f"{JOB}-child-12", "0f1e2d3c-child-12"),
        ("nightly", "nightly"),
        ("failed-99999", "failed-99999"),
        ("nightly-export-of-customer-000000123", "nightly-expo…r-000000123"),
    ],
)
def test_an_id_in_a_table_tells_jobs_apart(job_id: str, shown: str) -> None:
    assert filters.short_id(job_id) == shown


def test_a_breach_comes_before_what_is_known_of_the_job_and_its_lines_are_there_once(app: Flask, filled: Redis) -> None:
    page = app.test_client().get(f"/jobs/{JOB}").text
    assert page.index('data-part="breach-') < page.index('data-part="facts"')
    assert 'data-part="grew"' not in page
    assert re.search(r'<a href="/jobs" aria-current="page">', page)
