"""Recommendations: what they promise over any history, and what they would have done with generated ones."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rqmem.policy import chunk_size
from rqmem.policy.histogram import bucket, percentile, upper_end
from rqmem.policy.recommendation import (
    BUMP_MB,
    BUMP_RATIO,
    COST_FRACTION,
    FEWEST_RUNS,
    MARGIN,
    STEP_MB,
    Day,
    Recommendation,
    TooLittle,
    TypeHistory,
    first_chunk_size,
    recommend,
)
from rqmem.units import MB
from scripts.back_test import FIXED_MB, main, replay, traces

WARNING = 0.8
fewer = settings(max_examples=60)
peaks = st.lists(st.floats(5, 4000), min_size=1, max_size=20)


def a_day(age_days: float, sizes_mb: list[float], breaches: int = 0) -> Day:
    return Day(age_days, Counter(map(bucket, sizes_mb)), min(breaches, len(sizes_mb)))


@st.composite
def pasts(draw: st.DrawFn) -> TypeHistory:
    """As the journal has them: a day each, 30 of them at most, at least one run today and enough in all."""
    ages = draw(st.lists(st.integers(0, 29), unique=True, max_size=12))
    days = [a_day(age + 0.5, draw(peaks), draw(st.integers(0, 5))) for age in ages if age]
    today = draw(st.lists(st.floats(5, 4000), min_size=FEWEST_RUNS, max_size=30))
    days.append(a_day(0.0, today, draw(st.integers(0, 5))))
    limit = draw(st.none() | st.floats(16, 4000))
    costs = draw(st.dictionaries(st.integers(0, 300), st.floats(0.01, 10), max_size=4))
    seconds, largest = draw(st.none() | st.floats(1e-5, 10)), draw(st.integers(0, 10_000))
    return TypeHistory(days, max(ages, default=0) + 0.5, limit, draw(st.floats(0, 200)), costs, seconds, largest)


def recommended(past: TypeHistory, warning: float = WARNING) -> Recommendation:
    found = recommend(past, warning)
    assert isinstance(found, Recommendation)
    return found


def of_days(*days: Day, **more: Any) -> TypeHistory:
    return TypeHistory(days, max((day.age_days for day in days), default=0), **more)


def steady(size_mb: float, days: int = 20, runs: int = 30, breaches: int = 0) -> list[Day]:
    return [a_day(age + 0.5, [size_mb] * runs, breaches) for age in range(days)]


# Over any history


@fewer
@given(pasts(), st.floats(0.5, 1))
def test_what_holds_always(past: TypeHistory, warning: float) -> None:
    found = recommended(past, warning)
    assert found.ceiling_mb % STEP_MB == 0
    assert 0 < found.lowest_mb <= found.ceiling_mb <= found.highest_mb
    assert 0 <= found.breaches_avoided <= found.breaches
    assert 0 <= found.breaches_added <= found.runs
    assert found.runs == past.runs
    assert (found.given_back_mb is None) == (past.limit_mb is None)
    assert found.evidence
    assert found.chunk_size is None or found.chunk_size >= 1
    assert found.split_above_items is None or found.split_above_items >= 1


@fewer
@given(pasts(), st.integers(0, 29), st.floats(0, 4000), st.booleans())
def test_a_run_above_the_ceiling_never_lowers_it(past: TypeHistory, age: int, more_mb: float, breach: bool) -> None:
    before = recommended(past).ceiling_mb
    added = {bucket(before + more_mb + 1): 1.0}
    days = [*past.days]
    for index, day in enumerate(days):
        if int(day.age_days) == age:
            stopped = day.breaches + (breach or day.breaches > 0)  # the highest of a day with breaches is one of them
            days[index] = Day(day.age_days, Counter(day.peaks) + Counter(added), stopped)
    if all(int(day.age_days) != age for day in past.days):
        days.append(Day(age + 0.5, added, float(breach)))
    assert recommended(replace(past, days=days)).ceiling_mb >= before


@fewer
@given(pasts(), st.integers(0, 12))
def test_one_more_breach_never_lowers_it(past: TypeHistory, which: int) -> None:
    index = which % len(past.days)
    day = past.days[index]
    days = [*past.days]
    days[index] = replace(day, breaches=min(day.runs, day.breaches + 1))
    assert recommended(replace(past, days=days)).ceiling_mb >= recommended(past).ceiling_mb


@fewer
@given(pasts(), st.floats(16, 4000))
def test_after_a_breach_today_it_is_above_what_that_run_is_taken_to_need(past: TypeHistory, stopped_mb: float) -> None:
    *earlier, today = past.days
    well = {number: count for number, count in today.peaks.items() if number < bucket(stopped_mb)}
    breached = replace(past, days=[*earlier, Day(0, Counter(well) + Counter({bucket(stopped_mb): 1}), 1)])
    assume(breached.runs >= FEWEST_RUNS)
    assert recommended(breached).ceiling_mb >= MARGIN * max(BUMP_RATIO * stopped_mb, stopped_mb + BUMP_MB)


@fewer
@given(pasts())
def test_what_is_recommended_fits_by_the_rules_it_is_for(past: TypeHistory) -> None:
    found = recommended(past)
    cost = percentile(past.costs, COST_FRACTION)
    if found.chunk_size is not None and found.chunk_size > 1:
        assert cost is not None
        room = chunk_size.room(past.initial_mb * MB, found.ceiling_mb * MB, WARNING)
        assert found.chunk_size * cost * 1024 * chunk_size.MARGIN <= chunk_size.PLANNED * room * 1.000001
    if found.split_above_items is not None and found.split_above_items > 1:
        assert cost is not None
        assert found.split_above_items * cost / 1024 <= (WARNING * found.ceiling_mb - past.initial_mb) * 1.000001


@fewer
@given(st.floats(0.001, 1e6), st.none() | st.floats(1e-6, 100), st.floats(0, 1e10), st.integers(1, 10_000))
def test_a_first_chunk_is_at_least_one_item_and_fits(
    cost: float, seconds: float | None, room: float, at_least: int
) -> None:
    size = first_chunk_size(cost, seconds, room, at_least)
    assert size >= 1
    assert size == 1 or size * cost * 1024 <= room
    assert size == 1 or seconds is None or size <= max(at_least, chunk_size.TARGET_SECONDS / seconds)
    lowered, _ = chunk_size.start(size, cost, room)
    assert lowered == size, "the run itself begins with it"


@given(st.integers(0, 10))
def test_more_history_narrows_the_interval(days: int) -> None:
    shorter, longer = (recommended(of_days(*steady(100, count))) for count in (days + 1, days + 5))
    assert longer.highest_mb <= shorter.highest_mb
    assert longer.ceiling_mb == shorter.ceiling_mb


# One by one


@pytest.mark.parametrize("runs", [0, 1, FEWEST_RUNS - 1])
def test_too_little_history_is_said(runs: int) -> None:
    assert recommend(of_days(a_day(0, [100.0] * runs)), WARNING) == TooLittle(runs)


def test_a_steady_job_gets_a_margin_and_stays_below_the_warning() -> None:
    found = recommended(of_days(*steady(100), limit_mb=512.0))
    usual = upper_end(bucket(100))
    assert found.ceiling_mb == 128
    assert usual <= WARNING * found.ceiling_mb
    assert (found.given_back_mb, found.confidence) == (384, "high")
    assert (found.breaches, found.breaches_added) == (0, 0)
    assert recommended(of_days(*steady(100)), 1.0).ceiling_mb == 116


def test_confidence_grows_with_days_and_runs() -> None:
    assert recommended(TypeHistory(steady(100, 1), 0.05)).confidence == "low"
    assert recommended(TypeHistory(steady(100, 20, runs=1), 20)).confidence == "low"
    assert recommended(TypeHistory(steady(100, 3), 3)).confidence == "fair"
    assert recommended(TypeHistory(steady(100, 10), 10)).confidence == "high"


def test_a_run_that_was_stopped_tells_only_that_it_needed_more() -> None:
    went_well = recommended(of_days(*steady(256)))
    days = steady(256)
    days[3] = replace(days[3], breaches=1)
    stopped = recommended(of_days(*days, limit_mb=256.0))
    assert stopped.ceiling_mb > went_well.ceiling_mb
    assert stopped.ceiling_mb >= MARGIN * (256 + BUMP_MB)
    assert (stopped.breaches, stopped.breaches_avoided) == (1, 1)
    assert any("stopped (1)" in sentence for sentence in stopped.evidence)


def test_the_highest_of_a_day_are_those_that_were_stopped() -> None:
    day = a_day(0.5, [100.0] * 30 + [260.0, 262.0], breaches=2)
    found = recommended(of_days(day, limit_mb=256.0))
    assert (found.breaches, found.breaches_avoided, found.breaches_added) == (2, 2, 0)
    old = [a_day(25.5, [900.0]), *steady(100, 20)]
    found = recommended(of_days(*old, limit_mb=1000.0))
    assert found.ceiling_mb < 900
    assert found.breaches_added == 1, "what it would have done is said"


def test_what_happens_each_week_is_not_forgotten_and_what_is_over_is() -> None:
    weekly = [a_day(age + 0.5, [300.0 if age % 7 == 6 else 100.0] * 20) for age in range(28)]
    assert recommended(of_days(*weekly)).ceiling_mb >= 300 * MARGIN
    over = [a_day(age + 0.5, [400.0 if age >= 20 else 100.0] * 20) for age in range(30)]
    assert recommended(of_days(*over)).ceiling_mb < 200


def test_chunks_that_fill_their_room_keep_their_ceiling() -> None:
    """Applied again and again: peaks follow the ceiling, and must not take it down with them."""
    limit, initial, kb = 256.0, 40.0, 100.0
    costs = {bucket(kb): 1.0}
    for _ in range(10):
        room = chunk_size.room(initial * MB, limit * MB, WARNING) / MB
        items = int(chunk_size.PLANNED * room * 1024 / (kb * chunk_size.MARGIN))
        peak = initial + items * kb / 1024
        past = of_days(*steady(peak), limit_mb=limit, initial_mb=initial, costs=costs, seconds_per_item=1e-5,
                       largest_chunk=items)  # fmt: skip
        limit = float(recommended(past).ceiling_mb)
    assert limit == 256
    past = replace(past, seconds_per_item=0.01)  # a second is 100 items, and those need little
    found = recommended(past)
    assert found.ceiling_mb < 256
    assert found.chunk_size is not None
    assert found.chunk_size >= 100


def test_no_chunk_size_without_chunks_and_no_threshold_without_costs() -> None:
    found = recommended(of_days(*steady(100)))
    assert (found.chunk_size, found.split_above_items) == (None, None)
    free = recommended(of_days(*steady(100), costs={0: 5.0}, largest_chunk=10))
    assert (free.chunk_size, free.split_above_items) == (None, None)


# With generated histories

TRACES = traces(days=40, runs=30, seed=7)


@pytest.mark.parametrize("kind", TRACES)
def test_recommended_ceilings_breach_rarely_after_the_first_days(kind: str) -> None:
    done, fixed = (replay(TRACES[kind], name) for name in ("recommended", f"fixed {FIXED_MB:.0f} MB"))
    assert done.breaches <= fixed.breaches
    week = replay(TRACES[kind][:7], "recommended").breaches
    assert done.breaches - week <= 0.005 * 33 * 30


@pytest.mark.parametrize("kind", ["seasonal", "mended"])
def test_they_give_back_what_the_highest_peak_so_far_keeps(kind: str) -> None:
    done, highest = (replay(TRACES[kind], name) for name in ("recommended", "peak so far"))
    assert done.idle_mb < highest.idle_mb
    assert done.breaches <= highest.breaches


def test_the_back_test_prints_a_table_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(main, ["--days", "8", "--runs", "10"])
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.output.splitlines()[3:]] == list(TRACES)
    wrong = CliRunner().invoke(main, ["--output", str(tmp_path / "plot.pdf")])
    assert wrong.exit_code == 2
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        without = CliRunner().invoke(main, ["--days", "8", "--runs", "2", "--output", str(tmp_path / "plot.svg")])
        assert without.exit_code == 1
        assert "pip install 'rqmem[plot]'" in without.output
    pytest.importorskip("matplotlib")
    drawn = CliRunner().invoke(main, ["--days", "8", "--runs", "10", "--output", str(tmp_path / "plot.svg")])
    assert drawn.exit_code == 0, drawn.output
    assert "</svg>" in (tmp_path / "plot.svg").read_text()
