"""The alert for growth over curves of real work, recorded ten times a second, and over made ones."""

from __future__ import annotations

import json
from bisect import bisect_right
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqmem.config.settings import Config
from rqmem.policy.alert_rules import JobReading, Levels, judge

Curve = list[tuple[float, float]]
CURVES: dict[str, Curve] = json.loads((Path(__file__).parent / "usage_curves.json").read_text())
LOOK_SECONDS = 1 / 3  # as the worker's heart
THRESHOLD_MB = Config().alert_growth_mb_per_minute
GROW = ["imports_a_library", "jumps_and_holds", "leaks_slowly"]


def at(curve: Curve, seconds: float) -> float:
    """MB then: a reading finds what was recorded last."""
    return curve[max(0, bisect_right(curve, seconds, key=lambda point: point[0]) - 1)][1]


def told(curve: Curve, known_mb: float = 0.0, offset: float = 0.2) -> list[tuple[str, float]]:
    """When the alert was raised and resolved, by looks that begin ``offset`` seconds after the job."""
    levels, found, now = Levels(), [], offset
    while now <= curve[-1][0]:
        reading = JobReading(now, "jobs.A", "a", "q", 0.0, at(curve, now), 1e6, curve[0][1], known_mb)
        raised, resolved, levels = judge(reading, levels, Config())
        found += [("raised", now) for each in raised if each.rule == "memory-growth"]
        found += [("resolved", now) for each in resolved if each.rule == "memory-growth"]
        now += LOOK_SECONDS
    return found


def first_true(curve: Curve) -> float | None:
    """When usage was by more than the threshold above its lowest of the minute before, by every recorded point."""
    for number, (now, mb) in enumerate(curve):
        if any(mb - low > THRESHOLD_MB for then, low in curve[: number + 1] if now - then <= 60):
            return now
    return None


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("offset", [0.01, 0.2, 0.33])
def test_growth_is_told_within_a_second_of_being_true(name: str, offset: float) -> None:
    """What lasts for a second, that is; a shorter peak may be missed."""
    expected, found = first_true(CURVES[name]), told(CURVES[name], offset=offset)
    assert (expected is not None) == (name in [*GROW, "reads_a_file_in_chunks"])
    if name in GROW:
        assert expected is not None
        assert found[0][0] == "raised"
        assert expected <= found[0][1] <= expected + 1
    if expected is None:
        assert found == []


@pytest.mark.parametrize("name", CURVES)
def test_the_same_again_is_no_news(name: str) -> None:
    assert told(CURVES[name], known_mb=max(mb for _, mb in CURVES[name])) == []


@pytest.mark.parametrize("name", GROW)
def test_more_than_the_type_is_known_to_need_is_news_again(name: str) -> None:
    curve = CURVES[name]
    most = max(mb for _, mb in curve)
    assert told(curve, known_mb=most - THRESHOLD_MB - 1)[0][0] == "raised"


def test_a_jump_is_told_once_and_ends_a_minute_later() -> None:
    found = told(CURVES["jumps_and_holds"])
    assert [what for what, _ in found] == ["raised", "resolved"]
    assert 59 <= found[1][1] - found[0][1] <= 63


@given(st.floats(0, 30), st.floats(0.1, 20), st.floats(51, 800), st.floats(0, 0.33))
def test_growth_of_any_steepness_is_told_in_time(begins: float, lasts: float, mb: float, offset: float) -> None:
    steps = 100
    rising = [(begins + lasts * step / steps, 20 + mb * step / steps) for step in range(1, steps + 1)]
    curve = [(0.0, 20.0), *rising, (begins + lasts + 5, 20 + mb)]
    expected = next(now for now, used in curve if used - 20 > THRESHOLD_MB)
    assert told(curve, offset=offset)[0][1] <= expected + LOOK_SECONDS + 1e-6
