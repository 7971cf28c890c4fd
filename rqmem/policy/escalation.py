"""Escalation: under which ceiling a job goes on after a breach, and which one a job type had better begin with. Pure.

A job takes each step of its ``escalate_to`` at most once, so it cannot go on for ever. Sizes in MB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from rqmem.values import dataclass

FEWEST_RUNS = 10
"""With fewer runs nothing is said about what a job type needs."""


@dataclass(frozen=True)
class Step:
    """A ceiling of ``escalate_to``. ``queue``: for jobs whose worker does not allow it; empty: none."""

    ceiling_mb: float
    queue: str = ""


@dataclass(frozen=True)
class Needed:
    """What a job type needs: ``share`` (0 to 1) of its runs needed ``ceiling_mb`` or more."""

    ceiling_mb: float
    share: float


def next_step(steps: Sequence[Step], ceiling_mb: float, asked_mb: float, allowed_mb: float | None) -> Step | None:
    """The step that follows a breach; its ``queue`` is empty if the job may stay in its queue. None: there is none.

    A step that this worker does not allow and that names no queue is passed over.

    Args:
        ceiling_mb: that was breached.
        asked_mb: the last step that the job has taken; 0: none.
        allowed_mb: the worker's ``--memory``; None: it allows any ceiling.
    """
    for step in steps:
        if step.ceiling_mb <= max(ceiling_mb, asked_mb):
            continue
        if allowed_mb is None or step.ceiling_mb <= allowed_mb:
            return Step(step.ceiling_mb)
        if step.queue:
            return step
    return None


def why_none(steps: Sequence[Step], ceiling_mb: float, asked_mb: float) -> tuple[str, float]:
    """Why `next_step` found none, and of which ceiling that is said: ``last`` or ``not allowed``."""
    left = [step.ceiling_mb for step in steps if step.ceiling_mb > max(ceiling_mb, asked_mb)]
    return ("not allowed", left[0]) if left else ("last", max([ceiling_mb, *(step.ceiling_mb for step in steps)]))


def needed_mb(ceilings: Sequence[float], peak_mb: float) -> float | None:
    """The lowest of these ceilings that a run with this peak would have kept; None: none of them."""
    return min((each for each in ceilings if peak_mb <= each), default=None)


def usual_mb(counts: Mapping[float, float]) -> float | None:
    """The ceiling that most runs needed: at least half of them need no more. None: there are too few runs.

    ``counts``: runs by the ceiling that they needed.
    """
    total, below = sum(counts.values()), 0.0
    if total < FEWEST_RUNS:
        return None
    for ceiling_mb in sorted(counts):
        below += counts[ceiling_mb]
        if 2 * below >= total:
            return ceiling_mb
    raise AssertionError("all runs are counted")


def begin_with(ceilings: Sequence[float], counts: Mapping[float, float], allowed_mb: float | None) -> float | None:
    """The ceiling that a job begins with, by what runs of its type needed. None: the one it declares.

    It is one of ``ceilings``, which begin with the declared one, and never above ``allowed_mb``.
    """
    usual = usual_mb(counts)
    fitting = [each for each in ceilings[1:] if allowed_mb is None or each <= allowed_mb]
    chosen = None if usual is None else max((each for each in fitting if each <= usual), default=None)
    return chosen if chosen is not None and chosen > ceilings[0] else None


def to_declare(counts: Mapping[float, float], declared_mb: float | None) -> Needed | None:
    """The ceiling that had better be declared, since most runs needed it; None: the declared one does."""
    usual = usual_mb(counts)
    if usual is None or usual <= (min(counts) if declared_mb is None else declared_mb):
        return None
    total = sum(counts.values())
    return Needed(usual, sum(count for each, count in counts.items() if each >= usual) / total)


def written(steps: Sequence[Step]) -> str:
    """The steps as text for `read`; empty: there are none."""
    return json.dumps([[step.ceiling_mb, step.queue] for step in steps]) if steps else ""


def read(text: str) -> tuple[Step, ...]:
    return tuple(Step(ceiling_mb, queue) for ceiling_mb, queue in json.loads(text)) if text else ()
