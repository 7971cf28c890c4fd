"""The decisions, over any input hypothesis finds."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from rqmem.policy import after_breach, dead_workers, thinning
from rqmem.policy.after_breach import Attempt, GiveUp, Resume
from rqmem.policy.ceiling import (
    MAX_INTERVAL_SECONDS,
    MIN_INTERVAL_SECONDS,
    CeilingAction,
    Limits,
    Reading,
    WatchState,
    decide,
    effective_limit_mb,
    watch_interval,
)

LIMITS = Limits(ceiling_bytes=1000, reserve_bytes=100, grace_seconds=2.0)
limits_mb = st.floats(1, 1e6)
readings = st.builds(Reading, st.integers(0, 2000), st.booleans(), st.booleans())
timelines = st.lists(st.tuples(readings, st.floats(0, 1)), max_size=60)


@given(st.none() | limits_mb, st.none() | limits_mb, limits_mb)
def test_no_job_gets_more_than_its_worker_allows(declared: float | None, worker: float | None, default: float) -> None:
    limit = effective_limit_mb(declared, worker, default)
    if worker is not None:
        assert limit <= worker
    if declared is not None:
        assert limit <= declared
    if declared is None and worker is None:
        assert limit == default


@given(st.floats(-1e12, 1e12), st.floats(1e8, 1e11))
def test_the_interval_never_outlasts_the_headroom_at_the_machines_fastest_growth(headroom: float, rate: float) -> None:
    pause = watch_interval(headroom, rate)
    assert MIN_INTERVAL_SECONDS <= pause <= MAX_INTERVAL_SECONDS
    assert pause == MIN_INTERVAL_SECONDS or pause * rate <= headroom * (1 + 1e-9)


@given(st.lists(st.tuples(st.integers(0, LIMITS.ceiling_bytes), st.booleans(), st.booleans(), st.floats(0, 100))))
def test_nobody_under_the_ceiling_is_touched(timeline: list[tuple[int, bool, bool, float]]) -> None:
    state, now = WatchState(), 0.0
    for usage, confirmed, in_user_code, step in timeline:
        now += step
        action, state = decide(Reading(usage, confirmed, in_user_code), LIMITS, state, now)
        assert action is CeilingAction.WATCH


@given(timelines)
def test_a_breach_needs_a_confirmed_reading_and_a_kill_a_breach(timeline: list[tuple[Reading, float]]) -> None:
    state, now, breached = WatchState(), 0.0, False
    for reading, step in timeline:
        now += step
        action, state = decide(reading, LIMITS, state, now)
        if action is CeilingAction.BREACH:
            assert reading.confirmed
            assert reading.usage_bytes > LIMITS.ceiling_bytes
            assert not breached
            breached = True
        if action in (CeilingAction.KILL, CeilingAction.SIGNAL):
            assert breached
        if action is CeilingAction.CONFIRM:
            assert not reading.confirmed
            assert reading.usage_bytes > LIMITS.ceiling_bytes


@given(timelines)
def test_user_code_that_does_not_unwind_is_killed_when_its_grace_is_over(
    timeline: list[tuple[Reading, float]],
) -> None:
    state = decide(Reading(1001, True, True), LIMITS, WatchState(), 0.0)[1]
    now = 0.0
    for reading, step in timeline:
        now += step
        action, state = decide(reading, LIMITS, state, now)
        if now >= LIMITS.grace_seconds and reading.in_user_code:
            assert action is CeilingAction.KILL


def test_a_horse_that_unwound_and_is_below_its_ceiling_may_commit_as_slowly_as_it_likes() -> None:
    state = decide(Reading(1001, True, True), LIMITS, WatchState(), 0.0)[1]
    assert decide(Reading(900, False, False), LIMITS, state, 60.0)[0] is CeilingAction.WATCH


def test_the_signal_is_repeated_until_user_code_is_left() -> None:
    state = decide(Reading(1001, True, True), LIMITS, WatchState(), 0.0)[1]
    assert decide(Reading(1001, False, True), LIMITS, state, 0.05)[0] is CeilingAction.WATCH
    action, state = decide(Reading(1001, False, True), LIMITS, state, 0.11)
    assert action is CeilingAction.SIGNAL
    assert decide(Reading(1001, False, True), LIMITS, state, 0.15)[0] is CeilingAction.WATCH
    assert decide(Reading(999, False, True), LIMITS, state, 0.3)[0] is CeilingAction.WATCH, "it is freeing"
    assert decide(Reading(999, False, True), LIMITS, state, 0.62)[0] is CeilingAction.SIGNAL


attempts = st.builds(
    Attempt,
    resumable=st.just(True),
    began=st.booleans(),
    chunk_size=st.integers(1, 10**6),
    progressed=st.booleans(),
    spent=st.integers(0, 20),
)
causes = st.sampled_from(["breach", "horse lost", "horse killed", "worker lost"])


@given(causes, attempts, st.integers(1, 20))
def test_the_budget_bounds_resumes_and_a_chunk_never_grows(
    cause: after_breach.Cause, attempt: Attempt, budget: int
) -> None:
    plan = after_breach.decide(cause, attempt, budget)
    if isinstance(plan, Resume):
        assert attempt.spent < budget
        assert 1 <= plan.chunk_size <= attempt.chunk_size


@given(st.integers(1, 10**9))
def test_a_breach_without_progress_never_repeats_its_parameters(chunk_size: int) -> None:
    resumes = 0
    while True:
        attempt = Attempt(resumable=True, began=True, chunk_size=chunk_size, progressed=False, spent=resumes)
        plan = after_breach.decide("breach", attempt, max_resumes=1000)
        if isinstance(plan, GiveUp):
            break
        assert plan.chunk_size < chunk_size
        chunk_size, resumes = plan.chunk_size, resumes + 1
    assert chunk_size == 1
    assert "does not fit alone" in plan.reason


def test_a_job_that_never_asked_is_not_resumed() -> None:
    attempt = Attempt(resumable=False, began=True, chunk_size=8, progressed=True, spent=0)
    assert after_breach.decide("breach", attempt, 5) == GiveUp("")


def test_a_lost_worker_is_no_reason_for_smaller_chunks() -> None:
    attempt = Attempt(resumable=True, began=True, chunk_size=8, progressed=True, spent=0)
    assert after_breach.decide("worker lost", attempt, 5) == Resume(8)
    assert after_breach.decide("breach", attempt, 5) == Resume(4)


@given(st.integers(1, 10**6), st.booleans(), st.integers(0, 20))
def test_a_kill_by_somebody_leaves_the_chunk_size_alone(chunk_size: int, progressed: bool, spent: int) -> None:
    attempt = Attempt(resumable=True, began=True, chunk_size=chunk_size, progressed=progressed, spent=spent)
    plan = after_breach.decide("horse killed", attempt, max_resumes=30)
    assert isinstance(plan, Resume) and plan.chunk_size == chunk_size


def test_the_second_worker_that_is_lost_at_one_place_halves_the_chunk() -> None:
    """The first says nothing of the chunk's size; a container that is killed for memory each time does."""
    sizes = [
        after_breach.decide("worker lost", Attempt(True, True, 8, progressed=False, spent=spent), 5)
        for spent in (0, 2, 4)
    ]
    assert [each.chunk_size for each in sizes if isinstance(each, Resume)] == [8, 4, 4]


def test_a_planned_stop_costs_nothing_and_changes_nothing() -> None:
    attempt = Attempt(resumable=True, began=True, chunk_size=8, progressed=False, spent=10**6)
    assert after_breach.decide("planned stop", attempt, 5) == Resume(8, cost=0)


def test_a_resume_without_progress_costs_twice() -> None:
    for progressed, cost in ((True, 1), (False, 2)):
        attempt = Attempt(resumable=True, began=True, chunk_size=8, progressed=progressed, spent=0)
        assert after_breach.decide("horse lost", attempt, 5) == Resume(4, cost)


def test_deaths_without_progress_wait_longer_each_time_and_breaches_do_not() -> None:
    delays, spent, chunk_size = [], 0, 1000
    while not isinstance(
        plan := after_breach.decide("horse lost", Attempt(True, True, chunk_size, False, spent), max_resumes=20), GiveUp
    ):
        delays.append(plan.delay_seconds)
        spent, chunk_size = spent + plan.cost, plan.chunk_size
    assert delays == [0, 1, 3, 7, 15, 31, 60, 60, 60, 60], "down to one item, and that one once more"
    assert plan.reason == "its budget of 20 resumes is spent"
    for cause, progressed in (("breach", False), ("horse lost", True), ("worker lost", True)):
        known = after_breach.decide(cause, Attempt(True, True, 8, progressed, spent=10), max_resumes=20)
        assert isinstance(known, Resume) and known.delay_seconds == 0


def test_absence_counts_only_while_it_is_seen_without_a_gap() -> None:
    seen = dead_workers.absences({}, {"a", "b"}, now=10)
    seen = dead_workers.absences(seen, {"a"}, now=15)
    assert seen == {"a": 10}
    assert dead_workers.absences(seen, {"a", "b"}, now=20) == {"a": 10, "b": 20}
    assert not dead_workers.may_take_over(10, now=15, heartbeat_seconds=5, known_dead=False)
    assert dead_workers.may_take_over(10, now=20, heartbeat_seconds=5, known_dead=False)
    assert dead_workers.may_take_over(None, now=0, heartbeat_seconds=5, known_dead=True)
    assert not dead_workers.may_take_over(None, now=math.inf, heartbeat_seconds=5, known_dead=False)


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 1)), min_size=1, max_size=100))
def test_a_thinned_log_tells_each_new_height_and_is_never_silent_for_long(points: list[tuple[float, float]]) -> None:
    last, now, told_at, told_height = None, 0.0, 0.0, 0.0
    for fraction, step in points:
        now += step
        told, last = thinning.worth_a_line(last, fraction, now)
        if told:
            told_at, told_height = now, max(told_height, fraction)
        assert now - told_at < thinning.QUIET_SECONDS
        assert fraction < told_height + thinning.STEP_FRACTION + 1e-9


@given(st.lists(st.tuples(st.sampled_from(["rows loaded", "customer_processing_", "chunk "]), st.integers(0, 10**6))))
def test_the_first_of_each_kind_of_place_is_told(places: list[tuple[str, int]]) -> None:
    last, told = None, []
    for kind, number in places:
        is_told, last = thinning.worth_a_line(last, 0.5, 0.0, f"{kind}{number}")
        told += [kind] if is_told else []
    assert told == list(dict.fromkeys(kind for kind, _ in places))


def test_places_without_a_number_to_tell_them_apart_by_are_not_all_told() -> None:
    last, told = None, 0
    for number in range(5000):
        name = "".join("ghijklmnop"[int(digit)] for digit in str(number))
        is_told, last = thinning.worth_a_line(last, 0.5, 0.0, f"at {name}")
        told += is_told
    assert told <= 20
