"""What runs that ended add to the figures of their job type: fields of the hash of a tally, and of the totals. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

from rqmem.policy.histogram import bound, bucket
from rqmem.store.history.history_records import OK, PEAK_BOUNDS_MB, SECONDS_BOUNDS, Run, Sums

_SUMS = {each.name for each in fields(Sums)}


def counts_of_tally(runs: Iterable[Run], alerts: int = 0, leak_mb: Sequence[float] = ()) -> dict[str, float]:
    """What to add to the tallies. ``alerts``: how many were raised; ``leak_mb``: what each leak leaves per run."""
    counts: defaultdict[str, float] = defaultdict(int, alerts=alerts, leaks=len(leak_mb), leak_mb=float(sum(leak_mb)))
    for run in runs:
        cost = run.mb_per_item
        for field, amount in (
            ("jobs", run.times * run.counted),
            ("jobs_split", int(run.counted and run.children > 0)),
            ("runs", run.times),
            ("failed", int(run.outcome != OK and not run.resumed)),
            ("resumed", int(run.resumed)),
            ("splits", int(run.children > 0)),
            ("escalations", int(run.escalated)),
            (f"needed:{run.needed_mb:g}" if run.needed_mb else "needed:", run.times * (run.needed_mb is not None)),
            ("collections", run.collections),
            ("chunks", run.chunks),
            ("items", run.items),
            ("freed_mb", run.freed_mb),
            ("seconds", run.times * run.seconds),
            ("mb_seconds", run.times * run.mb_seconds),
            ("peak_sum_mb", run.times * run.peak_mb if run.items else 0),
            (f"breach:{run.layer}", int(run.layer != "")),
            (f"code:{run.code_version}", run.times * (run.code_version != "")),
            (f"peak:{bucket(run.peak_mb)}", run.times * (not run.escalated)),  # the next run's peak says more
            (f"sec:{bucket(run.seconds)}", run.times),
            (f"item:{bucket(1024 * (cost or 0))}", int(cost is not None)),
        ):
            counts[field] += amount
    return {field: amount for field, amount in counts.items() if amount}


def counts_of_totals(
    tallied: Mapping[str, float], runs: Iterable[Run], alerts: Mapping[str, int]
) -> Mapping[str, float]:
    """What to add to the totals.

    ``tallied``: what is added to the tallies, which share the sums; ``alerts``: raised, by rule.
    """
    shared = {
        name: amount for name, amount in tallied.items() if name in _SUMS or name.startswith(("breach:", "needed:"))
    }
    counts: defaultdict[str, float] = defaultdict(int, shared)
    for run in runs:
        counts["peak_mb"] += run.times * run.peak_mb
        counts[f"peak:{bound(run.peak_mb, PEAK_BOUNDS_MB)}"] += run.times
        counts[f"sec:{bound(run.seconds, SECONDS_BOUNDS)}"] += run.times
    for rule, count in alerts.items():
        counts[f"alert:{rule}"] += count
    return counts
