"""Which captures are kept: the last breaches and the worst peaks of each job type, within bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rqmem.policy.kept_captures import KEPT_BREACHES, KEPT_PEAKS, MOST, MOST_BYTES, MOST_SECONDS, Capture, superfluous
from rqmem.units import MB


def capture(number: int, at: float = 0.0, peak_mb: float = 1.0, *, breached: bool = False) -> Capture:
    return Capture(f"n{number}", "x.Y", f"id{number}", "ada", at, peak_mb, 256.0, breached, MB)


def test_breaches_by_time_and_others_by_peak() -> None:
    breaches = [capture(number, at=number, peak_mb=-number, breached=True) for number in range(5)]
    peaks = [capture(10 + number, at=number, peak_mb=(7, 3, 9, 1, 8)[number]) for number in range(5)]
    gone = {each.name for each in superfluous([*peaks, *breaches], now=10)}
    assert gone == {"n0", "n1", "n11", "n13"}


def test_one_that_is_too_old_makes_room_for_a_lower_peak() -> None:
    old, new = capture(1, at=0, peak_mb=900), capture(2, at=MOST_SECONDS + 1, peak_mb=5)
    assert superfluous([old, new], now=MOST_SECONDS + 1) == [old]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcdefghijklmnopqrstuvwxyz"),
            st.floats(0, 100),
            st.floats(1, 999),
            st.booleans(),
            st.integers(0, 64 * MB),
        ),
        max_size=200,
    )
)
def test_what_stays_is_within_all_bounds(found: list[tuple[str, float, float, bool, int]]) -> None:
    every = [
        Capture(f"n{number}", job, f"id{number}", "ada", at, peak_mb, 256.0, breached, size)
        for number, (job, at, peak_mb, breached, size) in enumerate(found)
    ]
    gone = {each.name for each in superfluous(every, now=100)}
    stays = [each for each in every if each.name not in gone]
    assert len(stays) <= MOST
    assert sum(each.size_bytes for each in stays) <= MOST_BYTES
    for job in {each.job for each in every}:
        assert sum(each.job == job and each.breached for each in stays) <= KEPT_BREACHES
        assert sum(each.job == job and not each.breached for each in stays) <= KEPT_PEAKS
    if every and sum(each.size_bytes for each in every) <= MOST_BYTES:
        newest = max(every, key=lambda each: each.at)
        assert any(each.job == newest.job for each in stays)
