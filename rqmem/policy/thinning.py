"""Which of a job's checkpoints are worth a log line, when it makes thousands of them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

STEP_FRACTION = 0.05
QUIET_SECONDS = 10.0


@dataclass(frozen=True)
class LastLine:
    """When the last line was written, and the highest usage told so far as a fraction of the ceiling."""

    at: float
    highest: float


def worth_a_line(last: LastLine | None, usage_fraction: float, now: float) -> tuple[bool, LastLine]:
    """The first one, each new 5 % of the ceiling, and at least one in ten seconds."""
    if last is None:
        return True, LastLine(now, usage_fraction)
    if usage_fraction >= last.highest + STEP_FRACTION or now - last.at >= QUIET_SECONDS:
        return True, LastLine(now, max(usage_fraction, last.highest))
    return False, last
