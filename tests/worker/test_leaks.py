"""What runs leave in a warm horse: a leak is found and named before it costs a breach, and nothing else is."""

from __future__ import annotations

import json

import pytest
from redis import Redis
from rq.job import Job

from rqmem import events
from rqmem.store.history import history_reader
from rqmem.units import show_leak
from tests import leaking_jobs
from tests.cli.test_commands import rqmem
from tests.conftest import WorkOff

LEAKY = "tests.leaking_jobs.LeaksObjects"


@pytest.fixture(autouse=True)
def warm(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--isolation") == "fork":
        pytest.skip("a horse for each job keeps nothing")


def rules(connection: Redis) -> list[tuple[str, str]]:
    return [(each.rule, each.job) for each in history_reader.alerts(connection) if each.state == "raised"]


def test_a_leak_among_healthy_jobs_is_found(connection: Redis, redis_url: str, work_off: WorkOff) -> None:
    for number in range(30):
        for _ in range(3):
            leaking_jobs.LeaksObjects.enqueue(connection=connection)
        leaking_jobs.Healthy.enqueue(connection=connection)
        leaking_jobs.Caches.enqueue(key=number, kb=50, entries=20, connection=connection)
        leaking_jobs.Imports.enqueue(number=number, connection=connection)
    log = work_off("leaks", "--memory", "100", "--name", "ada")
    assert "MemoryLimitExceeded" not in log
    lines = [line for line in log.splitlines() if " leaks " in line]
    found = [line for line in lines if "this memory stayed, run after run" in line]
    assert found and all(LEAKY in line for line in lines), log
    [raised] = [each for each in history_reader.alerts(connection) if each.rule == "memory-leak"]
    assert (raised.job, raised.state) == (LEAKY, "raised")
    assert "tests.leaking_jobs.Record +" in raised.text, raised.text
    told = [each.event for each in history_reader.story(connection, raised.job_id)]
    [leak] = [event for event in told if isinstance(event, events.LeakFound)]
    assert 0.5 < leak.mb_per_run < 1.6
    [recycled] = [event for event in told if isinstance(event, events.HorseRecycled)]
    assert recycled.reason == f"{LEAKY} leaks {show_leak(leak.mb_per_run)} a run"
    done = rqmem("status", "--json", RQMEM_REDIS_URL=redis_url)
    troubles = {each["name"]: each for each in json.loads(done.stdout)["problems"]}
    assert raised.text in troubles["leak"]["text"] and LEAKY in troubles["leak"]["text"]
    assert f"rqmem inspect {raised.job_id}" in troubles["leak"]["advice"]


def test_what_only_looks_like_one_is_none(connection: Redis, work_off: WorkOff) -> None:
    for number in range(75):
        leaking_jobs.Caches.enqueue(key=number, connection=connection)
        leaking_jobs.Imports.enqueue(number=number, connection=connection)
        leaking_jobs.Fragments.enqueue(seed=number, connection=connection)
        leaking_jobs.Healthy.enqueue(megabytes=1.5, connection=connection)
    log = work_off("leaks", "--memory", "256")
    assert " leaks " not in log and "MemoryLimitExceeded" not in log
    assert rules(connection) == []


def ended(connection: Redis, job: Job) -> events.RunEnded:
    told = [each.event for each in history_reader.story(connection, job.id)]
    [event] = [each for each in told if isinstance(each, events.RunEnded)]
    return event


def test_what_stays_of_each_item_is_told_in_the_final_line(
    connection: Redis, redis_url: str, work_off: WorkOff
) -> None:
    leaky = leaking_jobs.KeepsOfEachItem.enqueue(count=2000, kb=20, garbage_kb=5, connection=connection)
    healthy = leaking_jobs.KeepsOfEachItem.enqueue(count=4000, kb=0, garbage_kb=40, connection=connection)
    breaches = leaking_jobs.KeepsOfEachItem.enqueue(count=20_000, kb=20, connection=connection)
    log = work_off("leaks", "--memory", "128")
    grown = ended(connection, leaky).growth_kb_per_item
    assert grown == pytest.approx(20, rel=0.2), log
    assert f"; of each item {grown:.2g} KB stayed" in log
    assert ended(connection, healthy).growth_kb_per_item is None
    assert ended(connection, breaches).growth_kb_per_item == pytest.approx(20, rel=0.2)
    done = rqmem("inspect", leaky.id, RQMEM_REDIS_URL=redis_url)
    assert f"{grown:.2g} KB stayed of each" in done.stdout


@pytest.mark.parametrize("options", [[], ["--preload", "tests.leaking_jobs"]], ids=["imported", "preloaded"])
def test_types_that_the_collector_does_not_track_are_named(
    connection: Redis, work_off: WorkOff, options: list[str]
) -> None:
    for number in range(60):
        leaking_jobs.LeaksTexts.enqueue(run=number, connection=connection)
    work_off("leaks", "--memory", "128", *options)
    found = [each for each in history_reader.alerts(connection) if each.rule == "memory-leak"]
    assert len(found) == 1 and "bytes +" in found[0].text, found
