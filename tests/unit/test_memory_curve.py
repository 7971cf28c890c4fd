"""The curve of an execution: bounded, and never below what was read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rqmem.policy.memory_curve import POINTS, MemoryCurve


def test_a_short_curve_has_each_step() -> None:
    curve = MemoryCurve()
    for seconds, mb in ((0.0, 20.0), (0.01, 25.0), (0.07, 24.0), (0.21, 40.0)):
        curve.add(seconds, mb)
    assert curve.points(0.3) == (25.0, 24.0, 24.0, 24.0, 40.0, 40.0)
    assert curve.step_seconds == 0.05


def test_a_peak_between_two_low_readings_stays_when_the_step_is_doubled() -> None:
    curve = MemoryCurve()
    for step in range(1000):
        curve.add((step + 0.5) * 0.05, 300.0 if step == 501 else 20.0)
    points = curve.points(50.0)
    assert len(points) <= POINTS and curve.step_seconds == 16 * 0.05
    assert [number for number, mb in enumerate(points) if mb == 300.0] == [501 // 16]


def test_an_execution_that_was_never_read_has_no_curve() -> None:
    assert MemoryCurve().points(3.0) == ()


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e5)), min_size=1, max_size=200))
def test_no_reading_is_lost_and_the_points_are_bounded(readings: list[tuple[float, float]]) -> None:
    readings = [(seconds, round(mb, 1)) for seconds, mb in sorted(readings)]
    curve = MemoryCurve()
    for seconds, mb in readings:
        curve.add(seconds, mb)
    points = curve.points(readings[-1][0])
    assert 1 <= len(points) <= POINTS
    assert max(points) == max(mb for _, mb in readings)
    for seconds, mb in readings:
        assert points[int(seconds / curve.step_seconds)] >= mb


def test_steps_before_the_first_reading_have_what_it_says() -> None:
    curve = MemoryCurve()
    curve.add(0.12, 20.0)
    assert curve.points(0.12) == (20.0, 20.0, 20.0)
