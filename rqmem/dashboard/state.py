"""What the views of one application share."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import cast

from flask import current_app
from redis import Redis

from rqmem.dashboard.advised import Advised
from rqmem.dashboard.hub import Hub
from rqmem.dashboard.options import Options
from rqmem.observe.closed_periods import ClosedPeriods

EXTENSION = "rqmem"
WRONG_A_MINUTE = 5
"""Passwords that one address may try."""

_MOST_ADDRESSES = 1000


@dataclass
class Attempts:
    """Wrong passwords by address, in the last minute. Times in seconds of any clock."""

    wrong: dict[str, deque[float]] = field(default_factory=dict)

    def too_many(self, address: str, now: float) -> bool:
        known = self.wrong.get(address, deque())
        while known and known[0] <= now - 60:
            known.popleft()
        return len(known) >= WRONG_A_MINUTE

    def add(self, address: str, now: float) -> None:
        """One more. The address that was wrong longest ago is forgotten first."""
        self.wrong[address] = self.wrong.pop(address, deque())
        self.wrong[address].append(now)
        while len(self.wrong) > _MOST_ADDRESSES:
            del self.wrong[next(iter(self.wrong))]


@dataclass(frozen=True)
class DashboardState:
    """``where``: which Redis, for people, without password. ``connection`` reads; ``acting`` is for actions."""

    connection: Redis
    where: str
    options: Options
    hub: Hub
    acting: Redis
    closed: ClosedPeriods = field(default_factory=ClosedPeriods)
    advised: Advised = field(default_factory=Advised)
    attempts: Attempts = field(default_factory=Attempts)


def state() -> DashboardState:
    return cast("DashboardState", current_app.extensions[EXTENSION])
