"""How many workers a pool runs, over values and over played times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rqmem.policy.autoscale import (
    IDLE_SECONDS,
    PAUSE_SECONDS,
    WAIT_SECONDS,
    Queued,
    Scale,
    expected_wait_seconds,
    rescaled,
)


def after(scale: Scale, queued: Queued, idle: int = 0, *, short: bool = False, now: float = 1000.0) -> int:
    return rescaled(scale, 1, 16, queued, idle, short=short, now=now).workers


def test_more_workers_come_when_jobs_wait() -> None:
    assert after(Scale(2), Queued(50, WAIT_SECONDS)) == 2
    assert after(Scale(2), Queued(50, WAIT_SECONDS + 1)) == 3
    assert after(Scale(2), Queued(50, 100.0)) == 4  # at most twice as many
    assert after(Scale(2), Queued(1, 100.0)) == 3  # no more than there are jobs for
    assert after(Scale(12), Queued(500, 100.0)) == 16


def test_many_jobs_that_will_wait_are_reason_enough() -> None:
    assert after(Scale(2), Queued(50, 0.1, job_seconds=1.0)) == 4
    assert after(Scale(2), Queued(50, 0.1, job_seconds=0.01)) == 2
    assert expected_wait_seconds(50, 1.0, 2) == 25.0


def test_no_worker_comes_where_jobs_wait_for_memory_or_a_worker_is_idle() -> None:
    assert after(Scale(2), Queued(50, 100.0), short=True) == 2
    assert after(Scale(2), Queued(50, 100.0), idle=1) == 2


def test_the_next_change_waits_for_the_effect_of_the_last() -> None:
    assert after(Scale(2, changed_at=1000.0 - PAUSE_SECONDS + 1), Queued(50, 100.0)) == 2


def test_a_worker_goes_that_had_nothing_to_do_for_a_while() -> None:
    scale = rescaled(Scale(3), 1, 16, Queued(), 2, short=False, now=100.0)
    assert scale.workers == 3 and scale.idle_since == 100.0
    assert rescaled(scale, 1, 16, Queued(), 0, short=False, now=120.0).idle_since is None
    fewer = rescaled(scale, 1, 16, Queued(), 2, short=False, now=100.0 + IDLE_SECONDS)
    assert fewer.workers == 2
    assert rescaled(fewer, 1, 16, Queued(), 2, short=False, now=100.0 + IDLE_SECONDS + 30).workers == 2
    assert rescaled(fewer, 2, 16, Queued(), 2, short=False, now=100.0 + 3 * IDLE_SECONDS).workers == 2


@given(
    st.integers(1, 8), st.integers(0, 8),
    st.lists(st.tuples(st.integers(0, 500), st.floats(0, 500), st.floats(0, 10), st.integers(0, 8), st.booleans()),
             max_size=30),
)  # fmt: skip
def test_the_number_stays_between_its_bounds(
    least: int, more: int, steps: list[tuple[int, float, float, int, bool]]
) -> None:
    scale, now = Scale(least), 0.0
    for jobs, oldest, seconds, idle, short in steps:
        now += 3.0
        before = scale.workers
        scale = rescaled(scale, least, least + more, Queued(jobs, oldest, seconds), idle, short=short, now=now)
        assert least <= scale.workers <= least + more
        assert scale.workers <= 2 * before and scale.workers >= before - 1
