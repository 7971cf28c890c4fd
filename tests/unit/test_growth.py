"""Growth by line: what was charged is what grew, up to the last sample."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqmem.worker.evidence import AT_OR_BEFORE, Growth

STEP_BYTES = 16 * 2**20

steps = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-STEP_BYTES, 3 * STEP_BYTES)), max_size=50)


@given(steps)
def test_lines_add_up_to_no_more_than_the_peak_grew_by(timeline: list[tuple[str, int]]) -> None:
    usage = start = 100 * STEP_BYTES
    samples, asked, lowest, most = 0, False, start, 0
    growth = Growth(STEP_BYTES, start)
    for line, step in timeline:
        usage += step
        lowest = min(lowest, usage)
        most = max(most, usage - lowest)
        if asked:
            samples += 1
            growth.take(samples, line, 0)
        asked = growth.wants_sample(usage)
        if asked:
            growth.asked(usage, 0)
    assert sum(grown for grown, _ in growth.lines()) <= most


def run(growth: Growth, timeline: list[tuple[str, int]]) -> None:
    """``timeline``: line and usage in steps."""
    for number, (line, usage) in enumerate(timeline, start=1):
        if growth.wants_sample(usage * STEP_BYTES):
            growth.asked(usage * STEP_BYTES, waits=5)
            growth.take(number, line, 5)


def test_chunks_that_give_back_what_they_took_do_not_add_up() -> None:
    growth = Growth(STEP_BYTES, 10 * STEP_BYTES)
    run(growth, [("load", 12), *[("chunk", 17), ("sum", 12)] * 9, ("chunk", 18), ("sum", 12), ("chunk", 16)])
    assert growth.lines() == [(6 * STEP_BYTES, "chunk"), (2 * STEP_BYTES, "load")], "as at the peak, 18 steps"


def test_what_stays_of_each_chunk_adds_up() -> None:
    growth = Growth(STEP_BYTES, 0)
    run(growth, [step for number in range(9) for step in (("chunk", number + 4), ("keep", number + 1))])
    assert growth.lines() == [(12 * STEP_BYTES, "chunk")]


def test_steady_growth_is_charged_to_where_it_happens() -> None:
    growth = Growth(STEP_BYTES, 0)
    for number, line in enumerate(("a", "a", "b", "a"), start=1):
        assert growth.wants_sample(number * STEP_BYTES)
        assert growth.wants_sample(number * STEP_BYTES), "the horse could not be asked"
        growth.asked(number * STEP_BYTES, waits=5)
        assert not growth.wants_sample((number + 1) * STEP_BYTES), "one question at a time"
        growth.take(number - 1, line, 5)  # not answered yet
        growth.take(number, line, 5)
    assert growth.lines() == [(3 * STEP_BYTES, "a"), (STEP_BYTES, "b")]


@pytest.mark.parametrize("waits_at_the_question", [None, 4])
def test_a_line_where_the_job_waited_is_marked_until_it_is_seen_to_grow(waits_at_the_question: int | None) -> None:
    """It waits when it is asked (None), or has begun to since."""
    growth = Growth(STEP_BYTES, 0)
    assert growth.wants_sample(STEP_BYTES)
    growth.asked(STEP_BYTES, waits_at_the_question)
    growth.take(1, "a", 5)
    assert growth.lines() == [(STEP_BYTES, AT_OR_BEFORE + "a")]
    assert growth.wants_sample(3 * STEP_BYTES)
    growth.asked(3 * STEP_BYTES, 5)
    growth.take(2, "a", 5)
    assert growth.lines() == [(3 * STEP_BYTES, "a")]


def test_what_does_not_grow_is_not_asked() -> None:
    growth = Growth(STEP_BYTES, 50)
    assert not any(growth.wants_sample(usage) for usage in (50, 60, 40, 55) for _ in range(3))
