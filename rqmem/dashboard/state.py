"""What the views of one application share."""

from __future__ import annotations

from dataclasses import field
from typing import cast

from flask import current_app
from redis import Redis

from rqmem.dashboard.hub import Hub
from rqmem.dashboard.options import Options
from rqmem.observe.closed_periods import ClosedPeriods
from rqmem.values import dataclass

EXTENSION = "rqmem"


@dataclass(frozen=True)
class State:
    """``where``: which Redis, for people, without password."""

    connection: Redis
    where: str
    options: Options
    hub: Hub
    closed: ClosedPeriods = field(default_factory=ClosedPeriods)


def state() -> State:
    """Of the application that answers now."""
    return cast("State", current_app.extensions[EXTENSION])
