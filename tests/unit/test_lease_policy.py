"""When to lease and how much, over any input hypothesis finds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqmem.policy import lease
from rqmem.policy.lease import History, Way

histories = st.builds(History, st.integers(0, 10), st.integers(1, lease.K_MAX))
seconds = st.floats(0, 10)


@given(histories, st.integers(1, 1000), st.none() | st.integers(0, 1000))
def test_a_batch_has_at_least_one_job_and_never_more_than_allowed(
    history: History, k_max: int, left: int | None
) -> None:
    k = lease.next_k(history, k_max, left)
    assert 1 <= k <= k_max
    assert left is None or k <= max(1, left)


@given(st.lists(st.tuples(st.booleans(), seconds)), st.integers(0, 100))
def test_only_two_short_successes_in_a_row_begin_a_lease(jobs: list[tuple[bool, float]], waiting: int) -> None:
    history = History()
    for succeeded, took in jobs:
        history = lease.after_plain(history, took, succeeded=succeeded)
    short = [succeeded and took < 0.020 for succeeded, took in jobs[-2:]]
    assert lease.may_lease(history, waiting) == (short == [True, True] and waiting >= 2)


@given(st.floats(1e-6, 0.049), st.integers(1, lease.K_MAX))
def test_batches_of_equal_jobs_come_to_take_20_to_40_ms(took: float, k: int) -> None:
    history = History(short=2, k=k)
    for _ in range(10):
        history = lease.after_batch(history, history.k, history.k * took)
    now = lease.next_k(history, lease.K_MAX)
    assert now * took <= 0.0400001 or now == 1
    assert now * took >= 0.0199999 or now == lease.K_MAX


@given(st.lists(st.tuples(st.integers(0, 64), seconds), max_size=30))
def test_the_size_of_a_batch_stays_in_its_bounds(batches: list[tuple[int, float]]) -> None:
    history = History()
    for jobs, took in batches:
        history = lease.after_batch(history, jobs, took)
        assert 1 <= history.k <= lease.K_MAX


def test_a_batch_that_found_few_jobs_says_nothing_about_more() -> None:
    assert lease.after_batch(History(2, 16), 3, 0.001).k == 16


@given(seconds, seconds)
def test_after_a_recall_two_short_jobs_come_first_and_then_one(first: float, second: float) -> None:
    history = lease.after_recall()
    assert not lease.may_lease(history, 100)
    history = lease.after_plain(history, first, succeeded=True)
    assert not lease.may_lease(history, 100)
    history = lease.after_plain(history, second, succeeded=True)
    assert lease.may_lease(history, 100) == (max(first, second) < 0.020)
    assert lease.next_k(history, lease.K_MAX) == 1


@given(seconds, seconds, st.booleans())
def test_a_job_is_long_after_50_ms_if_it_waits_or_computes(took: float, cpu: float, runnable: bool) -> None:
    long = lease.turned_long(took, cpu, runnable=runnable)
    assert long == (took >= 0.050 and (not runnable or cpu >= 0.010))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"lease_max": 1}, ""),
        ({"lease_max": 0}, "--lease-max is 0"),
        ({"forks": True}, "a horse of its own"),
        ({"profiles": True}, "profiled"),
        ({"strategy": "random"}, "random"),
        ({"own_parts": ("the serializer",)}, "the serializer"),
        ({"own_hooks": ("perform_job",)}, "perform_job"),
    ],
)
def test_what_a_lease_does_not_cover_is_named(change: dict[str, object], reason: str) -> None:
    why = lease.why_never(replace(Way(), **change))  # type: ignore[arg-type]
    assert bool(why) == bool(reason)
    assert reason in why
