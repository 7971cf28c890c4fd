"""Runs and tallies of the monitored time to figures by job type. Pure. Sizes in MB.

Two things are known of a job type: its last runs one by one, exact, but a bounded number of them; and by how much its
tallies grew, which count all runs, but sizes in steps of 5 %. The runs are used where they are all there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import Literal, NamedTuple

from rqmem.policy import histogram
from rqmem.store import codec
from rqmem.store.history.history_records import Run, Tally
from rqmem.store.history.run_counts import counts_of_tally
from rqmem.values import dataclass

Source = Literal["runs", "tallies", "last runs"]
"""``runs``: each one; ``tallies``: all counted, sizes in steps of 5 %; ``last runs``: more ended than are kept."""


@dataclass(frozen=True)
class PeakSpread:
    """How the peaks of runs are spread, in MB; None: no run."""

    p50_mb: float | None
    p90_mb: float | None
    p99_mb: float | None
    highest_mb: float | None


class Ceilings(NamedTuple):
    """Of a job type, in MB, under the names of the JSON vocabulary; None: not known.

    Attributes:
        ceiling_mb: of its last run.
        declared_ceiling_mb: that its code declares.
        recommended_ceiling_mb: that ``rqmem recommend`` recommends.
    """

    ceiling_mb: float | None = None
    declared_ceiling_mb: float | None = None
    recommended_ceiling_mb: float | None = None


@dataclass(frozen=True)
class JobStatistics:
    """What happened to a job type in some time.

    Attributes:
        tally: its counters; from the monitor, ``alerts`` in it are those that it saw raised.
        crossings: that the monitor saw; ``runs_above``: runs whose peak was above its threshold, None: not known.
    """

    job_type: str
    source: Source
    tally: Tally
    peaks: PeakSpread
    ceilings: Ceilings = Ceilings()
    crossings: int = 0
    runs_above: int | None = None

    @property
    def ceiling_mb(self) -> float | None:
        """The ceiling of its last run; None: not known."""
        return self.ceilings.ceiling_mb


def percentile(ordered: Sequence[float], fraction: float) -> float | None:
    """The smallest value that at least ``fraction`` of the values do not exceed (nearest rank); None without values."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(fraction * len(ordered) - 1e-9) - 1)]


def grown(before: Tally, after: Tally) -> Tally:
    """What was added to a tally; all of it, if it started again in between (the journal was cleared)."""
    if after.runs < before.runs or after.seconds < before.seconds:
        return after
    added: dict[str, object] = {}
    for each in dataclasses.fields(Tally):
        ours, theirs = getattr(before, each.name), getattr(after, each.name)
        if isinstance(theirs, dict):
            more = {key: count - ours.get(key, 0) for key, count in theirs.items()}
            added[each.name] = {key: count for key, count in more.items() if count > 0}
        else:
            added[each.name] = max(0, round(theirs - ours, 3))
    return Tally(**added)  # type: ignore[arg-type]


def tally_of(runs: Iterable[Run]) -> Tally:
    """The counters and histograms of these runs, without alerts and leaks."""
    counts = counts_of_tally(runs)
    return codec.from_hash(Tally, {field.encode(): str(amount).encode() for field, amount in counts.items()})


def peaks_of(runs: Iterable[Run]) -> PeakSpread:
    """Exact, by nearest rank."""
    ordered = sorted(chain.from_iterable(repeat(run.peak_mb, run.times) for run in runs))
    p50, p90, p99, highest = (_rounded(percentile(ordered, fraction)) for fraction in (0.5, 0.9, 0.99, 1.0))
    return PeakSpread(p50, p90, p99, highest)


def peaks_in(counts: Mapping[int, float]) -> PeakSpread:
    """The upper ends of histogram buckets: at most 5 % too high."""
    p50, p90, p99, highest = map(_rounded, histogram.percentiles(counts, (0.5, 0.9, 0.99, 1.0)))
    return PeakSpread(p50, p90, p99, highest)


def job_statistics(
    job_type: str,
    runs: Sequence[Run],
    added: Tally,
    *,
    since: float,
    queues: Sequence[str] = (),
    threshold_percentage: float,
    alerts: int = 0,
    crossings: int = 0,
    ceilings: Ceilings = Ceilings(),  # noqa: B008 - it cannot be changed
) -> JobStatistics:
    """The figures of one job type.

    Args:
        runs: its last ones that the journal keeps, in any order, also from before.
        added: by how much its tallies grew since ``since`` (epoch seconds).
        queues: only runs on these; tallies do not tell queues apart, so then the runs must do.
        alerts, crossings: that the monitor saw.
    """
    within = [run for run in runs if run.ended_at > since and (not queues or run.queue in queues)]
    complete = any(run.ended_at <= since for run in runs) or sum(run.times for run in runs) >= added.runs
    source: Source = "runs" if complete else "last runs" if queues else "tallies"
    tally = added if source == "tallies" else tally_of(within)
    above = sum(run.times for run in within if run.peak_mb > threshold_percentage / 100 * run.limit_mb > 0)
    return JobStatistics(
        job_type=job_type,
        source=source,
        tally=dataclasses.replace(tally, alerts=alerts),
        peaks=peaks_in(added.peaks) if source == "tallies" else peaks_of(within),
        ceilings=ceilings,
        crossings=crossings,
        runs_above=above if complete else None,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
