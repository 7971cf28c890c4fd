"""Which ceiling applies to a job, and what to do about a reading. Pure.

The watcher (``rqmem.worker.watcher``) reads and acts; only the decision is here, so that it can be
tested over any sequence of readings. Sizes in bytes, times in seconds on any one clock.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from rqmem.values import dataclass

MIN_INTERVAL_SECONDS = 0.0005
MAX_INTERVAL_SECONDS = 0.05


def effective_limit_mb(
    declared_mb: float | None, worker_mb: float | None, default_mb: float, budget_mb: float | None = None
) -> float:
    """The ceiling of a job in MB: its declared one, never above the worker's; else the worker's; else the default.

    In a pool it is never above the budget of all jobs, ``budget_mb``.
    """
    limit_mb = declared_mb or worker_mb or default_mb
    return min(each for each in (limit_mb, worker_mb, budget_mb) if each is not None)


def watch_interval(headroom_bytes: float, growth_bytes_per_second: float) -> float:
    """Seconds until the next reading: the time in which the machine's fastest growth uses up the headroom.

    Never learnt from the job's own growth: a calm job that bursts fools that (31 MB over, measured).
    """
    return min(MAX_INTERVAL_SECONDS, max(MIN_INTERVAL_SECONDS, headroom_bytes / growth_bytes_per_second))


class CeilingAction(Enum):
    WATCH = "watch"
    CONFIRM = "confirm"  # stop the tree and take the full reading
    BREACH = "breach"  # signal the job to unwind
    SIGNAL = "signal"  # it has not unwound yet: signal it again
    KILL = "kill"


@dataclass(frozen=True)
class Limits:
    ceiling_bytes: int
    reserve_bytes: int
    grace_seconds: float
    repeat_seconds: float = 0.1  # between two signals to a job that has not unwound
    freed_repeat_seconds: float = 0.5  # the same, to one below its ceiling again: it is probably freeing memory


@dataclass(frozen=True)
class WatchState:
    """Since when a breached job is unwinding (None: no breach), and when it was last signalled."""

    breached_at: float | None = None
    signalled_at: float = 0.0


@dataclass(frozen=True)
class Reading:
    """Usage of the tree. ``confirmed`` is the full reading; the quick one may count shared pages twice."""

    usage_bytes: int
    confirmed: bool
    in_user_code: bool


def decide(reading: Reading, limits: Limits, state: WatchState, now: float) -> tuple[CeilingAction, WatchState]:
    """The action for a reading, and the state after it.

    Promises (tested): nothing but WATCH while readings stay under the ceiling; no BREACH, and no KILL
    for memory, without a confirmed reading; user code that has not unwound when ``grace_seconds`` are
    over is killed; a horse that has unwound and is back under its ceiling may finish in its own time.
    """
    if state.breached_at is None:
        if reading.usage_bytes <= limits.ceiling_bytes:
            return CeilingAction.WATCH, state
        if not reading.confirmed:
            return CeilingAction.CONFIRM, state
        return CeilingAction.BREACH, WatchState(breached_at=now, signalled_at=now)
    over = reading.usage_bytes > limits.ceiling_bytes
    if reading.in_user_code and now - state.breached_at >= limits.grace_seconds:
        return CeilingAction.KILL, state
    if over and (
        reading.usage_bytes > limits.ceiling_bytes + limits.reserve_bytes
        or now - state.breached_at >= limits.grace_seconds
    ):
        return (CeilingAction.KILL if reading.confirmed else CeilingAction.CONFIRM), state
    patience = limits.repeat_seconds if over else limits.freed_repeat_seconds
    if reading.in_user_code and now - state.signalled_at >= patience:
        return CeilingAction.SIGNAL, replace(state, signalled_at=now)
    return CeilingAction.WATCH, state
