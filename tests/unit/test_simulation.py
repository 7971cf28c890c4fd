"""The watcher's decision over growth curves of real adversaries, recorded every 0.1 ms on an idle machine."""

from __future__ import annotations

import json
from bisect import bisect_right
from pathlib import Path

import pytest

from rqmem.policy.ceiling import CeilingAction, Limits, Reading, WatchState, decide, watch_interval

MB = 2**20
CURVES: dict[str, list[tuple[float, int]]] = json.loads((Path(__file__).parent / "growth_curves.json").read_text())
WAKE_SECONDS = 0.0002  # what a timer and a reading take
STOP_SECONDS = 0.0002  # from the decision to the stopped tree
RATE = 8e9


def usage_at(curve: list[tuple[float, int]], seconds: float) -> int:
    """Bytes at that time: between two recorded points it grew evenly."""
    milliseconds = seconds * 1000
    index = bisect_right(curve, milliseconds, key=lambda point: point[0])
    if index == 0 or index == len(curve):
        return curve[min(index, len(curve) - 1)][1] * MB
    (before, low), (after, high) = curve[index - 1], curve[index]
    return int((low + (high - low) * (milliseconds - before) / (after - before)) * MB)


def stopped_at(curve: list[tuple[float, int]], ceiling_mb: int) -> float | None:
    """MB above the ceiling when the tree stands still; None: it was never touched."""
    limits = Limits(ceiling_mb * MB, reserve_bytes=32 * MB, grace_seconds=2.0)
    state, now = WatchState(), 0.0
    while now * 1000 <= curve[-1][0]:
        usage = usage_at(curve, now)
        action, state = decide(Reading(usage, confirmed=False, in_user_code=True), limits, state, now)
        if action is CeilingAction.CONFIRM:
            usage = usage_at(curve, now + STOP_SECONDS)
            assert (
                decide(Reading(usage, confirmed=True, in_user_code=True), limits, state, now)[0] is CeilingAction.BREACH
            )
            return (usage - limits.ceiling_bytes) / MB
        now += watch_interval(limits.ceiling_bytes - usage, RATE) + WAKE_SECONDS
    return None


@pytest.mark.parametrize("ceiling_mb", [64, 128, 200, 256, 500])
@pytest.mark.parametrize("name", CURVES)
def test_whoever_grows_above_is_stopped_within_the_budget(name: str, ceiling_mb: int) -> None:
    curve = CURVES[name]
    above = stopped_at(curve, ceiling_mb)
    if max(used for _, used in curve) > ceiling_mb:
        assert above is not None
        assert above <= 8
    else:
        assert above is None


@pytest.mark.parametrize("name", CURVES)
def test_whoever_stays_below_is_not_touched(name: str) -> None:
    assert stopped_at(CURVES[name], max(used for _, used in CURVES[name])) is None


@pytest.mark.parametrize("name", CURVES)
def test_far_from_the_ceiling_a_reading_each_50_ms_is_enough(name: str) -> None:
    """The interval is as long as it can be: a fixed one of a millisecond would read 50 times as often."""
    curve = CURVES[name]
    readings, now, ceiling = 0, 0.0, 4000 * MB
    while now * 1000 <= curve[-1][0]:
        readings += 1
        now += watch_interval(ceiling - usage_at(curve, now), RATE)
    assert readings <= 1 + curve[-1][0] / 50 + 1
