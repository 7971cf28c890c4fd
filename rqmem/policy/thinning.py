"""Which of a job's checkpoints are worth a log line, when it makes thousands of them. Pure.

Places that differ in a number only (``customer_processing_123``) are of one kind.
"""

from __future__ import annotations

import re

from rqmem.values import dataclass

STEP_FRACTION = 0.05
QUIET_SECONDS = 10.0
_MOST_KINDS = 20
_LONGEST_PLACE = 200
_NUMBERS = re.compile(r"[0-9a-f]*[0-9][0-9a-f-]*", re.IGNORECASE)


@dataclass(frozen=True)
class LastLine:
    """When the last line was written, and the highest usage logged so far as a fraction of the ceiling.

    ``kinds``: of the places logged so far, at most twenty.
    """

    at: float
    highest: float
    kinds: frozenset[str] = frozenset()


def worth_a_line(last: LastLine | None, usage_fraction: float, now: float, place: str = "") -> tuple[bool, LastLine]:
    """The first one of each kind of place, each new 5 % of the ceiling, and at least one in ten seconds."""
    kind = _NUMBERS.sub("#", place[:_LONGEST_PLACE])
    if last is None:
        return True, LastLine(now, usage_fraction, frozenset({kind}))
    is_new = kind not in last.kinds and len(last.kinds) < _MOST_KINDS
    if is_new or usage_fraction >= last.highest + STEP_FRACTION or now - last.at >= QUIET_SECONDS:
        kinds = last.kinds | {kind} if is_new else last.kinds
        return True, LastLine(now, max(usage_fraction, last.highest), kinds)
    return False, last
