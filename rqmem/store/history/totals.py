"""What has happened to a job type since it was first seen: counters that never fall, for `rqmem.prometheus`. No I/O.

The tallies in `history_records` are of hours and days and go with them, so no sum of them is a counter. This is
one hash a job type, written with them, which goes with the type. It is small (some 70 fields at most), so its
histograms have few bounds, fixed here. A hash under no job type's name has the alerts that are about none.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rqmem.store.history.history_records import Run

PEAK_BOUNDS_MB = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192, 16384)
SECONDS_BOUNDS = (0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
ABOVE = "inf"
"""What is above the last bound."""

_TALLIED = ("jobs", "jobs_split", "runs", "failed", "resumed", "splits", "leaks", "leak_mb", "collections", "freed_mb",
            "chunks", "items", "seconds")  # fmt: skip


@dataclass(frozen=True)
class Totals:
    """Sums since the job type was first seen. Sizes in MB.

    Attributes:
        jobs, jobs_split, runs, failed, resumed, splits, leaks, leak_mb, collections, freed_mb, chunks, items, seconds:
            as in `rqmem.store.history.history_records.Tally`.
        peak_mb: the peaks of all runs, summed.
        since: when the first run began, epoch seconds; 0: not known.
        breaches: by layer; ``alerts``: by rule.
        peaks, durations: bound -> runs up to it and above the one before, each bound as text.
    """

    jobs: float = 0
    jobs_split: float = 0
    runs: float = 0
    failed: float = 0
    resumed: float = 0
    splits: float = 0
    leaks: float = 0
    leak_mb: float = 0
    collections: float = 0
    freed_mb: float = 0
    chunks: float = 0
    items: float = 0
    seconds: float = 0
    peak_mb: float = 0
    since: float = 0
    breaches: dict[str, float] = field(default_factory=dict)
    alerts: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    durations: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_hash(cls, raw: Mapping[bytes, bytes]) -> Totals:
        """The totals in a hash; fields of a newer rqmem are passed over."""
        sums: dict[str, float] = {}
        by_name: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for key, value in raw.items():
            name, colon, part = key.decode().partition(":")
            if colon:
                by_name[name][part] = float(value)
            elif cls.__dataclass_fields__.get(name) is not None:
                sums[name] = float(value)
        return cls(
            **sums, breaches=by_name["breach"], alerts=by_name["alert"],
            peaks=by_name["peak"], durations=by_name["sec"],
        )  # fmt: skip


def added(tallied: Mapping[str, float], runs: Iterable[Run], alerts: Mapping[str, int]) -> dict[str, float]:
    """What to add to the fields of a job type's hash.

    Args:
        tallied: what is added to its tallies: sums are the same there and here.
        runs: that ended.
        alerts: raised, by rule.
    """
    sums = {name: tallied[name] for name in tallied if name in _TALLIED or name.startswith("breach:")}
    counts: defaultdict[str, float] = defaultdict(int, sums)
    for run in runs:
        counts["peak_mb"] += run.peak_mb
        counts[f"peak:{bound(run.peak_mb, PEAK_BOUNDS_MB)}"] += 1
        counts[f"sec:{bound(run.seconds, SECONDS_BOUNDS)}"] += 1
    for rule, count in alerts.items():
        counts[f"alert:{rule}"] += count
    return dict(counts)


def bound(value: float, bounds: Sequence[float]) -> str:
    """The lowest of the bounds that is not below ``value``, as text."""
    at = bisect_left(bounds, value)
    return f"{bounds[at]:g}" if at < len(bounds) else ABOVE


def cumulative(counts: Mapping[str, float], bounds: Sequence[float]) -> list[tuple[float | None, float]]:
    """Each bound, and how many are up to it; last of all None, and how many there are. Other bounds are passed over."""
    found: list[tuple[float | None, float]] = []
    reached = 0.0
    for each in bounds:
        reached += counts.get(f"{each:g}", 0)
        found.append((each, reached))
    return [*found, (None, reached + counts.get(ABOVE, 0))]
