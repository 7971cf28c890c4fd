"""Growth by line: what was charged is what grew, up to the last sample."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqmem.worker.evidence import AT_OR_BEFORE, Growth

STEP_BYTES = 16 * 2**20

steps = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-STEP_BYTES, 3 * STEP_BYTES)), max_size=50)


@given(steps)
def test_no_more_is_charged_than_grew(timeline: list[tuple[str, int]]) -> None:
    usage, samples, asked, grown = 100 * STEP_BYTES, 0, False, 0
    growth = Growth(STEP_BYTES, usage)
    for line, step in timeline:
        usage += step
        grown += max(0, step)
        if asked:
            samples += 1
            growth.take(samples, line, 0)
        asked = growth.wants_sample(usage)
    charged = sum(bytes_ for bytes_, _ in growth.lines())
    assert charged <= grown
    assert all(bytes_ >= STEP_BYTES for bytes_, _ in growth.lines())


def test_steady_growth_is_charged_to_where_it_happens() -> None:
    growth = Growth(STEP_BYTES, 0)
    for number, line in enumerate(("a", "a", "b", "a"), start=1):
        assert growth.wants_sample(number * STEP_BYTES)
        assert not growth.wants_sample((number + 1) * STEP_BYTES), "one question at a time"
        growth.asked(waits=5)
        growth.take(number - 1, line, 5)  # not answered yet
        growth.take(number, line, 5)
    assert growth.lines() == [(3 * STEP_BYTES, "a"), (STEP_BYTES, "b")]


@pytest.mark.parametrize("waits_at_the_question", [None, 4])
def test_a_line_where_the_job_waited_is_marked_until_it_is_seen_to_grow(waits_at_the_question: int | None) -> None:
    """It waits when it is asked (None), or has begun to since."""
    growth = Growth(STEP_BYTES, 0)
    assert growth.wants_sample(STEP_BYTES)
    growth.asked(waits_at_the_question)
    growth.take(1, "a", 5)
    assert growth.lines() == [(STEP_BYTES, AT_OR_BEFORE + "a")]
    assert growth.wants_sample(3 * STEP_BYTES)
    growth.asked(5)
    growth.take(2, "a", 5)
    assert growth.lines() == [(3 * STEP_BYTES, "a")]


def test_what_does_not_grow_is_not_asked() -> None:
    growth = Growth(STEP_BYTES, 50)
    assert not any(growth.wants_sample(usage) for usage in (50, 60, 40, 55) for _ in range(3))
