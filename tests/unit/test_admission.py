"""Who may start in a pool: what is promised of it, over any sequence of events and over traces."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqmem.policy import admission
from rqmem.policy.admission import (
    FORGET_SECONDS,
    MARGINS,
    MOST_WAITING,
    NEIGHBOUR_SECONDS,
    PATIENCE_SECONDS,
    Answer,
    Asking,
    Door,
    Room,
    Share,
    Waiting,
    WaitingJobs,
    Why,
    ask,
    idle_ones_are_in_the_way,
    need,
    passed_over,
    tidy,
)
from rqmem.policy.histogram import bucket, upper_end
from rqmem.policy.recommendation import Day, TypeHistory
from tests.unit import admission_traces as traces

BUDGET = 600


def history(peak_mb: float, runs: int, breaches: float = 0.0, days: float = 0.01) -> TypeHistory:
    return TypeHistory([Day(0.0, {bucket(peak_mb): float(runs)}, breaches)], days)


def room(*shares: int, free_of_host: int | None = None) -> Room:
    return Room(BUDGET, [Share(each, each) for each in shares], free_of_host)


def may_start(job_id: str, need_bytes: int, room: Room, waiting: WaitingJobs, now: float, tenant: str = "") -> bool:
    return Door(room, waiting, now).why_not(Asking(job_id, need_bytes, tenant)) is None


def waits(job_id: str, need_bytes: int, since: float, tenant: str = "") -> Waiting:
    return Waiting(job_id, need_bytes, tenant, since=since)


def test_a_new_type_is_reserved_its_ceiling() -> None:
    assert need(None, 512).need_mb == 512
    assert need(history(40, 19), 512) == admission.Need(512)


def test_a_known_type_is_reserved_what_it_used_and_a_margin() -> None:
    found = need(history(40, 50), 512)
    assert found.confidence == "low"
    assert 40 * MARGINS["low"] <= found.need_mb <= 40 * 1.06 * MARGINS["low"]


def test_the_margin_is_smaller_the_more_is_known() -> None:
    needs = [need(history(40, 2000, days=days), 512) for days in (0.5, 3, 30)]
    assert [each.confidence for each in needs] == ["low", "fair", "high"]
    assert needs[0].need_mb > needs[1].need_mb > needs[2].need_mb > 40


def test_a_type_that_is_stopped_at_its_ceiling_is_reserved_it() -> None:
    assert need(history(40, 50, breaches=5), 512).need_mb == 512


@given(st.floats(1, 4000), st.integers(0, 200), st.floats(0, 5), st.floats(0.001, 30), st.floats(1, 2000))
def test_no_need_is_above_the_ceiling_nor_below_the_usual_peak(
    peak_mb: float, runs: int, breaches: float, days: float, ceiling_mb: float
) -> None:
    found = need(history(peak_mb, runs, min(breaches, runs), days), ceiling_mb)
    assert found.need_mb <= ceiling_mb
    assert found.need_mb >= min(ceiling_mb, peak_mb)


def test_a_job_starts_where_it_fits_and_waits_where_it_does_not() -> None:
    assert ask(Asking("a", 100), room(500), (), 0.0) == (Answer.START, ())
    answer, waiting = ask(Asking("b", 101), room(500), (), 0.0)
    assert answer is Answer.WAIT and waiting == (waits("b", 101, 0.0),)
    assert passed_over(room(500), waiting, 0.0) == {"b": Why.ROOM}
    assert passed_over(room(499), waiting, 0.0) == {}


def test_a_job_that_has_outgrown_its_reservation_counts_as_what_it_uses() -> None:
    assert not may_start("a", 400, Room(BUDGET, [Share(100, 300)]), (), 0.0)
    assert may_start("a", 400, Room(BUDGET, [Share(200, 50)]), (), 0.0)


def test_what_idle_horses_hold_does_not_keep_a_job_from_running_alone() -> None:
    idle = Room(BUDGET, [Share(0, 50), Share(0, 50)])
    assert may_start("a", BUDGET, idle, (), 0.0)
    assert not may_start("b", 501, Room(BUDGET, [Share(1, 50), Share(0, 50)]), (), 0.0)


def test_idle_horses_give_way_only_if_that_gives_a_job_room() -> None:
    waiting: WaitingJobs = (waits("a", 300, 0.0),)
    assert idle_ones_are_in_the_way(Room(BUDGET, [Share(300, 50), Share(0, 9)]), waiting, 0.0)
    assert not idle_ones_are_in_the_way(Room(BUDGET, [Share(301, 50), Share(0, 9)]), waiting, 0.0)
    assert not idle_ones_are_in_the_way(Room(BUDGET, [Share(200, 50), Share(0, 9)]), waiting, 0.0)


def test_a_job_alone_waits_for_a_neighbour_if_its_need_is_known() -> None:
    """Of one that is not, only the ceiling is known, and few jobs reach it."""
    beside = room(free_of_host=60)
    known = Asking("a", 100, is_known=True)
    assert ask(known, room(free_of_host=100), (), 0.0)[0] is Answer.START
    assert ask(replace(known, is_known=False), beside, (), 0.0)[0] is Answer.START
    answer, waits = ask(known, beside, (), 0.0)
    assert answer is Answer.WAIT and passed_over(beside, waits, NEIGHBOUR_SECONDS - 1) == {"a": Why.ROOM}
    assert ask(known, beside, waits, NEIGHBOUR_SECONDS)[0] is Answer.START
    assert may_start("small", 60, beside, waits, PATIENCE_SECONDS)  # no room is kept for what could not run
    assert not may_start("small", 60, room(50, free_of_host=60), waits, PATIENCE_SECONDS)


def test_running_jobs_may_grow_to_what_is_reserved_before_another_starts() -> None:
    machine = Room(BUDGET, [Share(300, 100)], host_bytes=250)
    assert may_start("a", 50, machine, (), 0.0)
    assert not may_start("a", 51, machine, (), 0.0)


def test_others_pass_for_a_time_and_then_room_is_kept() -> None:
    waiting: WaitingJobs = (waits("big", 500, 0.0),)
    assert may_start("small", 100, room(200), waiting, PATIENCE_SECONDS - 1)
    assert not may_start("small", 100, room(200), waiting, PATIENCE_SECONDS)
    assert may_start("small", 100, room(), waiting, PATIENCE_SECONDS)  # beside it
    assert not may_start("small", 101, room(), waiting, PATIENCE_SECONDS)
    assert may_start("big", 500, room(), waiting, PATIENCE_SECONDS)


def test_a_job_that_nobody_finds_any_more_is_forgotten() -> None:
    waiting: WaitingJobs = (waits("gone", 500, 0.0),)
    assert tidy(room(200), waiting, 100.0, idle=True) == waiting  # there is no room for it yet
    assert tidy(room(), waiting, 100.0, idle=False) == waiting  # nobody is there to take it
    seen = tidy(room(), waiting, 100.0, idle=True)
    assert seen == (replace(waiting[0], fits_since=100.0),)
    assert tidy(room(), seen, 100.0 + FORGET_SECONDS, idle=True) == ()


def test_no_more_wait_than_workers_can_be_told() -> None:
    waiting: WaitingJobs = ()
    for number in range(MOST_WAITING + 5):
        _, waiting = ask(Asking(str(number), 500), room(200), waiting, 0.0)
    assert len(waiting) == MOST_WAITING


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, BUDGET), st.floats(0, 20), st.booleans()), min_size=1, max_size=80
    )
)
def test_what_is_reserved_is_never_more_than_the_budget(steps: list[tuple[int, int, float, bool]]) -> None:
    """Jobs ask and end in any order. Nobody who waits is passed by a job that takes its room after its time."""
    running: dict[str, int] = {}
    waiting: WaitingJobs = ()
    now = 0.0
    for number, size, seconds, ends in steps:
        now += seconds
        job = str(number)
        if ends and running:
            running.pop(next(iter(running)))
        elif job not in running:
            here = room(*running.values())
            answer, after = ask(Asking(job, size), here, waiting, now)
            if answer is Answer.START:
                running[job] = size
                aged = next((each for each in waiting if now - each.since >= PATIENCE_SECONDS), None)
                if aged is not None and aged.job_id != job:
                    assert may_start(aged.job_id, aged.need_bytes, room(*running.values()), after, now)
            waiting = after
        assert sum(running.values()) <= BUDGET
        assert len({each.job_id for each in waiting}) == len(waiting)
        assert not running.keys() & {each.job_id for each in waiting}
        assert list(waiting) == sorted(waiting, key=lambda each: each.since)


TRACES = {
    "mixed": traces.mixed(200, seed=1),
    "heavy tails": traces.heavy_tailed(200, seed=2),
    "ceilings": traces.mixed(120, seed=3, by_need=False),
    "endless small jobs": traces.endless_small(90, big_mb=590),
    "all need the whole budget": [traces.TraceJob(0.0, 1.0, BUDGET, 10) for _ in range(70)],
    "many that fit by halves": [traces.TraceJob(number / 10, 2.0, 301, 200) for number in range(80)],
}


@pytest.mark.parametrize("workers", [1, 4, 16])
@pytest.mark.parametrize("name", TRACES)
def test_every_job_of_a_trace_runs_within_the_budget(name: str, workers: int) -> None:
    played = traces.play(TRACES[name], workers, BUDGET)
    assert all(began >= job.at for began, job in zip(played.began, TRACES[name], strict=True))
    assert max(mb for _, mb in played.reserved) <= BUDGET


@pytest.mark.parametrize("workers", [4, 16])
def test_small_jobs_cannot_starve_a_large_one(workers: int) -> None:
    """Once it is refused, it waits for its patience, for those that run then, and for a tick."""
    trace = TRACES["endless small jobs"]
    played = traces.play(trace, workers, BUDGET)
    big = next(number for number, job in enumerate(trace) if job.need_mb > 60)
    assert PATIENCE_SECONDS <= played.began[big] - played.refused[big] <= PATIENCE_SECONDS + 5.0 + 1.0


def test_needs_use_more_of_a_budget_than_ceilings_do() -> None:
    by_need = traces.play(traces.mixed(150, seed=5), 16, BUDGET)
    by_ceiling = traces.play(traces.mixed(150, seed=5, by_need=False), 16, BUDGET)
    assert by_need.average_used_mb() > 2 * by_ceiling.average_used_mb()
    assert max(by_need.began) < max(by_ceiling.began)


def test_upper_ends_are_what_a_need_is_made_of() -> None:
    assert need(history(100, 50), 512).need_mb == MARGINS["low"] * upper_end(bucket(100))


# Tenants


def tenants(*shares: tuple[str, int], most: int = 300) -> Room:
    return Room(BUDGET, [Share(size, size, name) for name, size in shares], None, most)


def test_a_tenant_has_no_more_than_its_ceiling_and_others_pass() -> None:
    now = tenants(("acme", 200))
    assert may_start("a", 100, now, (), 0.0, "acme")
    assert not may_start("a", 101, now, (), 0.0, "acme")
    assert may_start("b", 101, now, (), 0.0, "zeta")
    assert may_start("c", 101, now, (), 0.0)  # for nobody
    assert may_start("a", 101, Room(BUDGET, now.shares), (), 0.0, "acme")  # without ceilings


def test_a_job_alone_for_its_tenant_starts_though_it_needs_more_than_that_tenant_may_have() -> None:
    assert may_start("a", 400, tenants(("zeta", 100)), (), 0.0, "acme")
    assert not may_start("a", 400, tenants(("acme", 1)), (), 0.0, "acme")


def test_no_room_is_kept_from_others_for_a_job_that_waits_for_its_own_tenant() -> None:
    waiting = (waits("a", 200, 0.0, "acme"), waits("big", 400, 1.0))
    now = tenants(("acme", 200))
    late = 2 * PATIENCE_SECONDS
    assert passed_over(now, waiting, late)["a"] is Why.TENANT
    assert may_start("big", 400, now, waiting, late)  # though "a" has waited longer
    assert not may_start("b", 100, now, waiting, late, "zeta")  # the room is kept for "big"


def test_within_a_tenant_smaller_jobs_pass_for_a_time_only() -> None:
    waiting = (waits("a", 200, 0.0, "acme"),)
    now = tenants(("acme", 200))
    assert may_start("small", 50, now, waiting, PATIENCE_SECONDS - 1, "acme")
    assert not may_start("small", 50, now, waiting, PATIENCE_SECONDS, "acme")
    assert may_start("other", 50, now, waiting, PATIENCE_SECONDS, "zeta")


def test_a_job_whose_tenant_may_not_have_more_says_so() -> None:
    door = Door(tenants(("acme", 250)), (), 0.0)
    assert door.why_not(Asking("a", 100, "acme")) is Why.TENANT
    assert door.why_not(Asking("b", 351)) is Why.ROOM
    aged = Door(tenants(), (waits("big", 500, 0.0),), PATIENCE_SECONDS)
    assert aged.why_not(Asking("b", 200)) is Why.KEPT


def flooded(seed: int) -> list[traces.TraceJob]:
    """One tenant enqueues all its jobs at once; others come one by one after it."""
    flood = [replace(job, at=0.0, tenant="acme") for job in traces.mixed(140, seed)]
    others = [replace(job, tenant=f"t{number % 5}") for number, job in enumerate(traces.mixed(40, seed + 1))]
    return sorted([*flood, *others], key=lambda job: job.at)


@pytest.mark.parametrize("workers", [4, 16])
def test_a_tenant_that_floods_the_queue_leaves_room_for_the_others(workers: int) -> None:
    trace = flooded(8)
    played = traces.play(trace, workers, BUDGET, 300)
    assert all(began >= job.at for began, job in zip(played.began, trace, strict=True))
    ends = sorted(
        (at, size)
        for began, job in zip(played.began, trace, strict=True)
        if job.tenant == "acme"
        for at, size in ((began, job.need_mb), (began + job.seconds, -job.need_mb))
    )
    alone = max(job.need_mb for job in trace if job.tenant == "acme")
    used = 0
    for _, size in ends:
        used += size
        assert used <= max(300, alone)
    waited = [began - job.at for began, job in zip(played.began, trace, strict=True) if job.tenant != "acme"]
    without = traces.play(trace, workers, BUDGET)
    before = [began - job.at for began, job in zip(without.began, trace, strict=True) if job.tenant != "acme"]
    assert sum(waited) < 0.75 * sum(before)
