"""When a worker counts as dead, so that another may take over its runs or its name. Pure.

When Redis was away, every heartbeat looks old. So absence counts only while somebody who could reach Redis saw it, scan
after scan.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from rqmem.values import dataclass

FRESH_SECONDS = 1.0
"""Nobody takes a run or a job over that was begun or taken so short a time ago."""


def absences(seen: dict[str, float], absent: Collection[str], now: float) -> dict[str, float]:
    """Since when each owner has been seen absent without interruption, after this scan."""
    return {owner: seen.get(owner, now) for owner in absent}


def may_take_over(absent_since: float | None, now: float, heartbeat_seconds: float, known_dead: bool) -> bool:
    """True for a process known to be dead (same host), else after two intervals of seen absence."""
    return known_dead or (absent_since is not None and now - absent_since >= 2 * heartbeat_seconds)


@dataclass(frozen=True)
class Holder:
    """What Redis and this host show of the worker that has a name.

    Attributes:
        dead: its process is known to have ended. (False: it is there; None: that cannot be seen from here.)
        said_at: when it last said that it lives, epoch seconds; None: it has said nothing.
        subscribed: whether somebody listens to commands for that name; None: Redis does not say.
        tells: it is an rqmem worker, which says that it lives. For RQ's own workers there is only ``subscribed``.
    """

    dead: bool | None
    said_at: float | None
    subscribed: bool | None
    tells: bool

    @property
    def silent(self) -> bool:
        return self.said_at is None and (self.tells or self.subscribed is False)


def name_is(
    first: Holder, now_seen: Holder, waited_seconds: float, silent_seconds: float | None, heartbeat_seconds: float
) -> Literal["free", "taken", "not known"]:
    """Whether the name of a worker may be taken over.

    Args:
        first, now_seen: at the first look, and at this one.
        waited_seconds: since the first look.
        silent_seconds: for how long it has been silent at each look; None: it is not.
    """
    if now_seen.dead and (now_seen.tells or now_seen.subscribed is False):
        return "free"
    if now_seen.dead is False:
        return "taken"
    if silent_seconds is not None:
        return "free" if silent_seconds >= 2 * heartbeat_seconds else "not known"
    if now_seen.said_at is not None:
        return "taken" if now_seen.said_at != first.said_at else "not known"
    return "taken" if waited_seconds >= 2 * heartbeat_seconds else "not known"
