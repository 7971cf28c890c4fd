"""Which captures of runs are kept: of each job type the last breaches and the worst peaks, all within bounds. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from rqmem.units import MB
from rqmem.values import dataclass

KEPT_BREACHES, KEPT_PEAKS = 3, 3
MOST, MOST_BYTES, MOST_SECONDS = 60, 512 * MB, 14 * 86400


@dataclass(frozen=True)
class Capture:
    """A capture as its directory has it. ``at``: when the run ended, epoch seconds."""

    name: str
    job: str
    job_id: str
    worker: str
    at: float
    peak_mb: float
    limit_mb: float
    breached: bool
    size_bytes: int


def superfluous(captures: Iterable[Capture], now: float) -> list[Capture]:
    """Those to remove: too old, beyond what is kept of a job type, and the oldest beyond what is kept at all."""
    by_type: defaultdict[tuple[str, bool], list[Capture]] = defaultdict(list)
    every = list(captures)
    for each in every:
        if now - each.at <= MOST_SECONDS:
            by_type[each.job, each.breached].append(each)
    kept: list[Capture] = []
    for (_, breached), found in by_type.items():
        if breached:
            kept += sorted(found, key=lambda each: -each.at)[:KEPT_BREACHES]
        else:
            kept += sorted(found, key=lambda each: (-each.peak_mb, -each.at))[:KEPT_PEAKS]
    newest = sorted(kept, key=lambda each: -each.at)[:MOST]
    names, taken = set(), 0
    for each in newest:
        taken += each.size_bytes
        if taken <= MOST_BYTES:
            names.add(each.name)
    return [each for each in every if each.name not in names]
