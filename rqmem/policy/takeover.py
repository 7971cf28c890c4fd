"""When a worker counts as dead, so that another may take its runs over. Pure.

A Redis that was away makes every heartbeat look old: absence counts only while it was seen, scan after
scan, by somebody who could reach Redis.
"""

from __future__ import annotations

from collections.abc import Collection


def absences(seen: dict[str, float], absent: Collection[str], now: float) -> dict[str, float]:
    """Since when each owner has been seen absent without interruption, after this scan."""
    return {owner: seen.get(owner, now) for owner in absent}


def may_take_over(absent_since: float | None, now: float, heartbeat_seconds: float, known_dead: bool) -> bool:
    """True for a process known to be dead (same host), else after two intervals of seen absence."""
    return known_dead or (absent_since is not None and now - absent_since >= 2 * heartbeat_seconds)
