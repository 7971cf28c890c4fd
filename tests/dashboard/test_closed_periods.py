"""Tallies of hours and days that are over are read once, and are those of the journal."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from redis import Redis

from rqmem import events
from rqmem.observe.closed_periods import ClosedPeriods
from rqmem.observe.period_read import read_report, read_trends
from rqmem.store import keys
from rqmem.store.history import clearing, history_reader, history_writer
from rqmem.store.history.history_records import Tally
from rqmem.store.keys import DAY_SECONDS, HOUR_SECONDS
from tests.journal_filling import a_run, remember

NOW = (time.time() // DAY_SECONDS) * DAY_SECONDS + 5 * HOUR_SECONDS + 600


def write(connection: Redis, job_type: str, at: float, count: int = 1) -> None:
    history_writer.version_is_ours(connection)
    with connection.pipeline() as pipeline:
        history_writer.write_runs(pipeline, [a_run(job_type, "j", at)] * count, {}, at)
        pipeline.execute()
    names = [keys.tally(job_type, "h", int(at // HOUR_SECONDS)), keys.tally(job_type, "d", int(at // DAY_SECONDS))]
    for name in (*names, keys.totals(job_type), keys.runs(job_type)):
        connection.persist(name)


def shown(tally: Tally) -> Tally:
    """Without the histograms that no page shows."""
    assert tally.durations
    return replace(tally, durations={}, costs={})


def runs(closed: ClosedPeriods, connection: Redis, *types: str, hours: int = 4) -> dict[str, float]:
    found = closed.read(connection, types, NOW - hours * HOUR_SECONDS, NOW, by_day=False)
    return {name: of.total.runs for name, of in found.items()}


def test_a_tally_is_read_in_part_as_in_whole(connection: Redis) -> None:
    run = a_run("jobs.A", "j", NOW)
    breached = replace(run, outcome="MemoryLimitExceeded", layer="watch", peak_mb=300.5, items=0, largest_chunk=0)
    history_writer.version_is_ours(connection)
    with connection.pipeline() as pipeline:
        leak = events.LeakFound(job="jobs.A", job_id="j", queue="q", worker="w", mb_per_run=1.25, runs=4, grew=[])
        history_writer.write_runs(pipeline, [run, run, breached], {("jobs.A", "usage"): 2}, NOW, [leak])
        pipeline.execute()
    asked = [("jobs.A", period, int(NOW // seconds)) for period, seconds in (("h", HOUR_SECONDS), ("d", DAY_SECONDS))]
    asked += [("jobs.A", "h", 7), ("jobs.B", "d", int(NOW // DAY_SECONDS))]
    for key in (keys.tally(*asked[0]), keys.tally(*asked[1])):
        connection.hset(key, mapping={"of_another_version": 1, "of_it:x": 2})
    whole = history_reader.tallies_of(connection, asked)
    assert list(whole) == asked[:2]
    assert whole[asked[0]].breaches == {"watch": 1} and sum(whole[asked[0]].peaks.values()) == 3
    assert history_reader.tallied(connection, asked) == {each: shown(tally) for each, tally in whole.items()}
    assert history_reader.tallied(connection, asked * 40) == history_reader.tallied(connection, asked)
    assert history_reader.tallied(connection, []) == {}


def test_what_is_over_is_read_once_and_the_present_each_time(
    connection: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for hours in range(4):
        write(connection, "jobs.A", NOW - hours * HOUR_SECONDS, hours + 1)
    closed, asked = ClosedPeriods(), []
    read = history_reader.tallied
    monkeypatch.setattr(
        history_reader, "tallied", lambda redis, names: (asked.append(len(names)), read(redis, names))[1]
    )
    assert runs(closed, connection, "jobs.A") == {"jobs.A": 10}
    write(connection, "jobs.A", NOW, 5)
    assert runs(closed, connection, "jobs.A") == {"jobs.A": 15}
    assert asked == [5, 1]


def test_it_agrees_with_the_journal(connection: Redis) -> None:
    for hours in range(0, 30, 2):
        write(connection, "jobs.A", NOW - hours * HOUR_SECONDS, hours + 1)
    closed = ClosedPeriods()
    for _ in range(2):
        found = closed.read(connection, ["jobs.A"], NOW - 20 * HOUR_SECONDS, NOW, by_day=False)["jobs.A"]
        assert found.total == shown(history_reader.tally(connection, "jobs.A", NOW - 20 * HOUR_SECONDS, NOW))
        days = closed.read(connection, ["jobs.A"], NOW - 3 * DAY_SECONDS, NOW, by_day=True)["jobs.A"]
        assert days.total.runs == sum(range(1, 31, 2))


def test_a_journal_that_begins_anew_is_read_anew(connection: Redis) -> None:
    write(connection, "jobs.A", NOW - 3 * HOUR_SECONDS, 7)
    closed = ClosedPeriods()
    assert runs(closed, connection, "jobs.A") == {"jobs.A": 7}
    clearing.clear(connection)
    write(connection, "jobs.A", NOW - 2 * HOUR_SECONDS, 2)
    assert runs(closed, connection, "jobs.A") == {"jobs.A": 2}


def test_it_is_bounded(connection: Redis) -> None:
    for number in range(10):
        write(connection, f"jobs.A{number}", NOW - HOUR_SECONDS)
    closed = ClosedPeriods(most=20)
    types = [f"jobs.A{number}" for number in range(10)]
    for _ in range(3):
        assert set(runs(closed, connection, *types, hours=10).values()) == {1}
        assert len(closed) <= 20


def test_trends_are_those_of_the_report(connection: Redis) -> None:
    remember(connection, *(a_run("jobs.A", f"j{number}", time.time()) for number in range(5)))
    now = time.time()
    ours = read_trends(connection, ClosedPeriods(), "redis", now - DAY_SECONDS, now)
    theirs = read_report(connection, "redis", now - DAY_SECONDS, now)
    assert [(each.job_type, each.tally, each.ceiling_mb) for each in ours.types] == [
        (each.job_type, each.tally, each.ceiling_mb) for each in theirs.types
    ]
    assert ours.period.since == theirs.period.since
    assert [at for at, _ in ours.types[0].steps] == [at for at, _ in theirs.types[0].steps]
