"""The bench of throughput: each system's job notes that it ran, and what is measured adds up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from redis import Redis

from scripts.bench import systems, throughput
from scripts.bench.peers import work
from scripts.bench.throughput_sections import SECTIONS, Bench, enqueue
from scripts.docs_tables import TABLES


@pytest.fixture
def bench(connection: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv(work.URL_VARIABLE, redis_url)
    with systems.notes() as done:
        yield Bench(connection, done, 1, 0.01, 0)


@pytest.mark.parametrize("system", [systems.RQMEM, systems.ONE_BY_ONE], ids=lambda each: each.name)
def test_a_run_counts_its_jobs_and_their_cost(bench: Bench, system: systems.System) -> None:
    # Each job lasts a little: a lease could run all of them before the first look, and nothing would be measured.
    run = systems.measure(bench.connection, bench.notes, system, 40, {"result_bytes": 10, "seconds": 0.01})
    assert bench.notes.count() == 40
    assert run.per_second > 0
    assert run.commands > 5
    assert run.all_us > 0


def test_the_latency_is_that_of_each_job(bench: Bench) -> None:
    found = systems.latencies(bench.connection, bench.notes, systems.RQMEM, 3, 0)
    assert len(found) == 3
    assert 0 < found[0] <= found[-1] < 60_000


def test_a_worker_that_ends_is_told(bench: Bench) -> None:
    ends = systems.System("ends", "rqmem", "rq_jobs", ("rqmem", "--version"), 1)
    with pytest.raises(click.ClickException, match="ends: 0 of 1 jobs have run"):
        systems.measure(bench.connection, bench.notes, ends, 5)


def test_enqueueing_is_measured_by_way(bench: Bench) -> None:
    rows = enqueue(Bench(bench.connection, bench.notes, 1, 0.05, 0))
    assert [row["way"].partition(":")[0] for row in rows] == ["rq", "rq", "rqmem", "rqmem"]
    assert all(row["jobs a second"] > 0 for row in rows)


def test_every_section_has_its_table_in_the_docs() -> None:
    assert set(SECTIONS) < set(TABLES)
    assert set(json.loads(throughput.FIGURES.read_text())["sections"]) <= set(SECTIONS)


def test_the_chart_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from scripts.bench.throughput_chart import draw

    rows = [
        {"system": name, "jobs a second": rate, "CPU us a job": 1e6 / rate} for name, rate in (("a", 10), ("b", 900))
    ]
    found = {"machine": throughput.machine(FakeServer()), "sections": {"noop": {"rows": rows}}}  # type: ignore[arg-type]
    draw(found, tmp_path / "chart.svg")
    assert "<svg" in (tmp_path / "chart.svg").read_text()


class FakeServer:
    def info(self, section: str) -> dict[str, str]:
        return {"redis_version": "7"}
