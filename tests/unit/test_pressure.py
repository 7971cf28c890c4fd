"""When a pool takes no jobs, and whom it evicts, over values."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from rqmem.measure.host_memory import free_bytes
from rqmem.measure.machine import parse_pressure
from rqmem.policy.pressure import (
    FEWEST_SECONDS,
    GRACE_SECONDS,
    STALLED_SECONDS,
    Eviction,
    HostReading,
    How,
    Running,
    evict,
    taken_by_others,
    why_closed,
)
from rqmem.units import MB

BUDGET, RESERVE = 600 * MB, 64 * MB


def job(number: int, used_mb: int, reserved_mb: int = 100, since: float = 0.0, **more: bool) -> Running:
    return Running(number, used_mb * MB, reserved_mb * MB, since, **more)  # type: ignore[arg-type]


def gone(running: list[Running], host: HostReading | None = None, now: float = 100.0) -> list[tuple[int, str]]:
    return [(each.number, each.how.name) for each in evict(running, BUDGET, RESERVE, host, None, now)]


def test_the_intake_closes_when_little_is_left_and_opens_when_clearly_more_is() -> None:
    host = HostReading(50 * MB, 600 * MB)
    assert not why_closed(host, was_closed=False)
    assert why_closed(replace(host, free_bytes=20 * MB), was_closed=False) == "only 20 MB of memory are left of 600"
    assert why_closed(replace(host, free_bytes=40 * MB), was_closed=True)
    assert not why_closed(host, was_closed=True)
    assert not why_closed(None, was_closed=True)


def test_the_intake_closes_while_processes_wait_for_memory() -> None:
    assert "wait for memory 12% of the time" in why_closed(HostReading(400 * MB, 600 * MB, 0.12), was_closed=False)
    assert why_closed(HostReading(400 * MB, 600 * MB, 0.05), was_closed=True)
    assert not why_closed(HostReading(400 * MB, 600 * MB, 0.05), was_closed=False)
    assert not why_closed(HostReading(400 * MB, 600 * MB, 0.01), was_closed=True)


def test_nobody_goes_while_all_are_within_the_budget() -> None:
    assert gone([job(0, 300), job(1, 300)]) == []


def test_who_can_continue_goes_first_the_youngest_before_the_others() -> None:
    running = [
        job(0, 200, since=5, resumable=True), job(1, 150, since=9, resumable=True), job(2, 150, since=50),
        job(3, 120, since=60, has_retry=True),
    ]  # fmt: skip
    assert gone(running) == [(1, "STOP")]
    assert gone([*running, job(4, 20, since=1)]) == [(1, "KILL")]  # no time to save: above half of the reserves


def test_then_those_that_rq_runs_again_then_who_is_furthest_above_its_need() -> None:
    assert gone([job(0, 310, 300), job(1, 200, 50), job(2, 100, has_retry=True)]) == [(2, "KILL")]
    assert gone([job(0, 310, 300), job(1, 200, 50), job(2, 100, 90)]) == [(1, "KILL")]


def test_who_was_evicted_before_goes_after_others_of_its_kind() -> None:
    running = [job(0, 310, since=5, resumable=True), replace(job(1, 310, since=9, resumable=True), evictions=1)]
    assert gone(running) == [(0, "STOP")]


def test_a_job_alone_keeps_to_the_budget_by_its_ceiling() -> None:
    assert gone([job(0, 610)]) == []
    assert gone([job(0, 610)], HostReading(1 * MB, 600 * MB)) == [(0, "KILL")]


def test_who_does_not_save_in_time_is_killed() -> None:
    going = replace(job(0, 310, resumable=True), how=How.STOP, told_at=100.0)
    assert gone([going, job(1, 310)], now=101.0) == []
    assert gone([going, job(1, 310)], now=100.0 + GRACE_SECONDS) == [(0, "KILL")]


def test_who_goes_already_makes_room_for_others() -> None:
    going = replace(job(0, 100, resumable=True), how=How.STOP, told_at=99.9)
    assert gone([going, job(1, 310, resumable=True), job(2, 210)]) == []


def test_a_neighbour_that_leaves_nothing_has_jobs_evicted() -> None:
    running = [job(0, 100, resumable=True), job(1, 100)]
    assert gone(running, HostReading(30 * MB, 600 * MB)) == []
    assert gone(running, HostReading(12 * MB, 600 * MB)) == [(0, "STOP")]
    assert gone(running, HostReading(10 * MB, 600 * MB)) == [(0, "KILL")]  # there is no time for more
    assert gone(running, HostReading(0, 600 * MB)) == [(0, "KILL")]
    assert evict(running, BUDGET, RESERVE, HostReading(10 * MB, 600 * MB), None, 0.0)[0].reason == (
        "only 10 MB of memory are left of 600"
    )


def test_a_stall_that_lasts_has_one_job_evicted() -> None:
    running = [job(0, 100, resumable=True), job(1, 100)]
    host = HostReading(300 * MB, 600 * MB, 0.5)
    assert evict(running, BUDGET, RESERVE, host, 100.0, 100.0 + STALLED_SECONDS - 1) == []
    told = evict(running, BUDGET, RESERVE, host, 100.0, 100.0 + STALLED_SECONDS)
    assert told == [Eviction(0, How.STOP, "processes wait for memory")]
    going = [replace(running[0], how=How.STOP, told_at=110.0), running[1]]
    assert evict(going, BUDGET, RESERVE, host, 100.0, 111.0) == []


jobs = st.builds(
    Running, number=st.integers(0, 1000), used_bytes=st.integers(0, 400 * MB), reserved_bytes=st.integers(1, 400 * MB),
    since=st.floats(0, 100), resumable=st.booleans(), has_retry=st.booleans(), evictions=st.integers(0, 3),
    how=st.sampled_from([None, None, How.STOP, How.KILL]), told_at=st.floats(90, 100),
)  # fmt: skip


@given(st.lists(jobs, max_size=12, unique_by=lambda each: each.number), st.floats(100, 103))
def test_after_an_eviction_the_rest_is_within_the_budget(running: list[Running], now: float) -> None:
    """And no more are evicted than that takes; one is always left."""
    found = evict(running, BUDGET, RESERVE, None, None, now)
    new = {each.number for each in found} - {each.number for each in running if each.how is not None}
    left = [each for each in running if each.how is None and each.number not in new]
    if sum(each.used_bytes for each in running) <= BUDGET or len(running) < 2:
        assert found == []
        return
    assert sum(each.used_bytes for each in left) <= BUDGET or len(left) <= 1
    if new:
        least = min(each.used_bytes for each in running if each.number in new)
        assert sum(each.used_bytes for each in left) + least > BUDGET or least == 0 or len(new) > 1
    kept_plain = [each for each in left if not each.resumable]
    if any(each.number in new and not each.resumable for each in running):
        assert left == kept_plain  # those that can continue went first


def test_pressure_files_are_read() -> None:
    text = "some avg10=0.00 avg60=0.00 avg300=0.00 total=5113534\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=480130\n"
    assert parse_pressure(text)["full total"] == 480130
    assert parse_pressure("") == {}


def test_page_cache_that_can_be_dropped_is_free() -> None:
    stat = "anon 1000\nfile 500\nshmem 0\nactive_anon 600\ninactive_anon 400\nactive_file 200\ninactive_file 300\n"
    assert free_bytes(10_000, 1_500, stat) == 9_000


def test_what_others_will_have_taken_counts_as_taken() -> None:
    host = HostReading(100 * MB, 600 * MB, taken_per_second=300 * MB)
    assert why_closed(host, False) == "only 100 MB of memory are left of 600, and others take 300 MB a second"
    assert gone([job(0, 100, resumable=True), job(1, 100)], host) == [(0, "STOP")]


def test_who_cannot_continue_does_not_go_for_what_is_only_foreseen() -> None:
    host = HostReading(40 * MB, 600 * MB, taken_per_second=300 * MB)
    assert gone([job(0, 100), job(1, 100, has_retry=True)], host) == []


@given(st.integers(0, 600), st.integers(0, 600), st.integers(0, 600), st.integers(0, 600), st.floats(0.2, 2))
def test_jobs_that_grow_or_end_are_no_others(free: int, used: int, grown: int, given_back: int, seconds: float) -> None:
    assert taken_by_others((0.0, free, used), (seconds, free - grown, used + grown)) == 0
    assert taken_by_others((0.0, free + given_back, used + given_back), (seconds, free + given_back, used)) == 0
    assert taken_by_others((0.0, free, used), (seconds, free - grown, used)) == grown / seconds
    assert taken_by_others((0.0, free, used), (0.1, free - grown, used)) == 0


LOOK_SECONDS, END_SECONDS = 0.05, 0.25  # between two looks; from an order until the memory is there


def least_left(mb_a_second: int, start_mb: int, *, foreseeing: bool) -> float:
    """The least that was free while a neighbour took 300 MB beside jobs of 100 MB that can continue."""
    jobs = {number: job(number, 100, since=number, resumable=True) for number in range(4)}
    free, now, taken, least = start_mb * MB, 0.0, 0.0, float("inf")
    ends: dict[int, float] = {}
    looks: list[tuple[float, int, int]] = []
    while taken < 300:
        now += 0.01
        if now > 1:
            taken += mb_a_second / 100
            free -= mb_a_second * MB // 100
        for number in [number for number, at in ends.items() if at <= now]:
            del ends[number], jobs[number]
            free += 100 * MB
        least = min(least, free)
        if round(now / 0.01) % round(LOOK_SECONDS / 0.01) == 0:
            looks.append((now, free, sum(each.used_bytes for each in jobs.values())))
            looks = looks[-round(FEWEST_SECONDS / LOOK_SECONDS) - 2 :]
            rate = taken_by_others(looks[0], looks[-1]) if foreseeing else 0.0
            host = HostReading(free, 600 * MB, taken_per_second=rate)
            for each in evict(list(jobs.values()), BUDGET, RESERVE, host, None, now):
                if each.how is How.STOP:
                    jobs[each.number] = replace(jobs[each.number], how=How.STOP, told_at=now)
                ends.setdefault(each.number, now + END_SECONDS)
    return least / MB


@given(st.integers(20, 300), st.integers(160, 300))
def test_a_neighbour_that_takes_300_mb_in_a_second_finds_them(mb_a_second: int, start_mb: int) -> None:
    assert least_left(mb_a_second, start_mb, foreseeing=True) > 0


def test_without_foresight_it_would_not() -> None:
    assert least_left(300, 160, foreseeing=False) < 0
