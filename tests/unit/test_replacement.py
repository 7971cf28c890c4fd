"""When a pool starts a worker again: `rqmem.policy.replacement`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rqmem.policy.replacement import LIVED_SECONDS, MOST_SECONDS, Slot, after_death

lives = st.lists(st.floats(min_value=0, max_value=2 * LIVED_SECONDS), max_size=20)


@given(lives)
def test_no_worker_waits_longer_than_the_most_and_one_that_lived_does_not_wait(lives: list[float]) -> None:
    slot, now = Slot(1), 0.0
    for lived in lives:
        now += lived
        slot = after_death(slot, lived, now)
        assert now <= slot.due_at <= now + MOST_SECONDS
        if lived >= LIVED_SECONDS:
            assert slot.due_at == now and slot.early_deaths == 0
        now = slot.due_at


def test_each_early_death_waits_longer() -> None:
    slot, waits = Slot(1), []
    for _ in range(8):
        slot = after_death(slot, 0.1, 100.0)
        waits.append(slot.due_at - 100.0)
    assert waits == [0, 1, 2, 4, 8, 16, 30, 30]
