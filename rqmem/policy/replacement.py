"""When a pool starts a worker again that has ended. Pure.

A worker that lived is replaced at once. One that dies soon after its start, time and again, is started later each time,
so that a broken import does not keep the machine busy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

LIVED_SECONDS = 10.0
MOST_SECONDS = 30.0


@dataclass(frozen=True)
class Slot:
    """The place of one worker in a pool.

    Attributes:
        early_deaths: how many workers in this place, one after another, died within `LIVED_SECONDS`.
        due_at: from when on a worker may be started here, in seconds of the pool's clock.
        retired: no worker is started here again: the last one ended as it should.
    """

    number: int
    early_deaths: int = 0
    due_at: float = 0.0
    retired: bool = False


def after_death(slot: Slot, lived_seconds: float, now: float) -> Slot:
    """The slot when its worker has died, or ended for another to begin."""
    if lived_seconds >= LIVED_SECONDS:
        return replace(slot, early_deaths=0, due_at=now)
    return replace(slot, early_deaths=slot.early_deaths + 1, due_at=now + delay_seconds(slot.early_deaths))


def delay_seconds(early_deaths: int) -> float:
    """0, 1, 2, 4 ... up to `MOST_SECONDS`, by how many early deaths there were before this one."""
    return 0.0 if early_deaths == 0 else min(MOST_SECONDS, 2.0 ** (early_deaths - 1))
