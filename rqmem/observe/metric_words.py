"""The figures of job types in words, for report and monitor. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rqmem.observe.statistics import JobStatistics
from rqmem.policy.escalation import to_declare
from rqmem.store.history.history_records import Tally
from rqmem.text import counted, duration
from rqmem.units import show_leak, show_mb

_SOURCES = {
    "runs": "",
    "tallies": "peaks up to 5 % too high: more runs ended than are kept one by one",
    "last runs": "of the last runs only: more ended than are kept one by one",
}


def job_lines(job: JobStatistics) -> Iterable[str]:
    """What happened to a job type, in three lines or four."""
    tally, peaks = job.tally, job.peaks
    told = [
        counted(tally.runs, "run"),
        f"{tally.failed:g} failed" if tally.failed else "",
        f"{tally.resumed:g} resumed" if tally.resumed else "",
        f"{tally.escalations:g} escalated" if tally.escalations else "",
        f"{tally.splits:g} split" if tally.splits else "",
        f"{counted(tally.breached, 'breach')} (by {_layers(tally.breaches)})" if tally.breached else "",
        counted(job.crossings, "crossing") if job.crossings else "",
        counted(tally.alerts, "alert") if tally.alerts else "",
        leak_words(tally),
    ]
    yield f"{job.job_type}: {', '.join(each for each in told if each)}"
    if peaks.highest_mb is not None and peaks.p50_mb is not None and peaks.p90_mb is not None:
        p99 = f", 99 % {show_mb(peaks.p99_mb)}" if peaks.p99_mb is not None else ""
        yield (
            f"  peak {show_mb(peaks.highest_mb)} MB; half stay within {show_mb(peaks.p50_mb)}, "
            f"90 % within {show_mb(peaks.p90_mb)}{p99}"
        )
    if tally.runs:
        yield (
            f"  {duration(tally.seconds)} of work, {tally.items:,.0f} items in {tally.chunks:,.0f} chunks, "
            f"{show_mb(tally.freed_mb)} MB freed in {counted(tally.collections, 'collection')}"
            + (f", {tally.mb_seconds:,.0f} MB seconds" if tally.mb_seconds else "")
        )
    if advice := escalation_words(tally.needed, job.ceilings.declared_ceiling_mb):
        yield f"  {advice}"
    if _SOURCES[job.source]:
        yield f"  ({_SOURCES[job.source]})"


def escalation_words(needed: Mapping[float, float], declared_mb: float | None) -> str:
    """Which ceiling to declare for a type that escalates; empty where the declared one does."""
    better = to_declare(needed, declared_mb)
    return "" if better is None else f"declare {show_mb(better.ceiling_mb)}: {better.share:.0%} of runs needed it"


def leak_words(tally: Tally) -> str:
    """How often a leak was found, and how large; empty without."""
    size_mb = tally.leak_mb_per_run
    return "" if size_mb is None else f"{counted(tally.leaks, 'leak')} found ({show_leak(size_mb)} a run)"


def _layers(breaches: dict[str, float]) -> str:
    return ", ".join(f"{layer} {count:g}" if len(breaches) > 1 else layer for layer, count in breaches.items())


def metric_words(tally: Tally) -> list[str]:
    """The four metrics, those that are known."""
    told = (
        ("peak MB per 1,000 items", tally.mb_per_1000_items, ".1f"),
        ("MB freed per collection", tally.freed_mb_per_collection, ".1f"),
        ("splits per job", tally.splitting_rate, ".2f"),
        ("alerts per job", tally.alerts_per_job, ".2f"),
    )
    return [f"{value:{form}} {name}" for name, value, form in told if value is not None]
