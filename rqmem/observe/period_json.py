"""The report as JSON: what ``rqmem report --format json`` prints. Pure. This is the schema, version 1.

Sizes in MB (2**20 bytes), times ISO 8601 in UTC, lengths in seconds, shares from 0 to 1, what is not known null. Keys
may be added within a version; that one goes or changes its meaning makes a new version::

    schema_version, rqmem_version, redis   1; that wrote it; which one, without password
    job                  that was asked for; null: all
    since, until         what is told of; begins with an hour or a day, since the journal counts by those
    step_seconds         which of the two
    before_since         "before" in trends is from then to "since"; null: the journal does not go back so far
    journal_since        its first hour or day; null: it is empty
    notes                what a reader should know, a sentence each
    metrics              of all job types together: memory_efficiency_mb_per_1000_items (peak MB of runs with items by
                         their items), collection_effectiveness_mb (freed by a collection), splitting_rate (jobs that
                         split by jobs), alerts_per_job (alerts by jobs)
    jobs                 by job type:
        jobs             that somebody enqueued: without children, and once also where one was resumed or gathered
        job, runs, failed, resumed, splits, collections, chunks, items, alerts, leaks, freed_mb, seconds
        leak_mb_per_run  what a run leaves for good, by the leaks found; null without
        breaches         by layer: "checkpoint", "watch", "kill", "kernel"
        source           "runs": peaks are exact; "tallies": up to 5 % too high
        peak_mb          {p50, p90, p99, highest}
        ceiling_mb       of its last run
        metrics          as above
        trend            null, or of each {now, before}: runs_per_hour, failed_share, breached_share, p90_mb (up to 5 %
                         too high), mb_per_1000_items
        steps            {at, runs, failed, breaches, p50_mb, p90_mb, highest_mb} of each hour or day with a run
    quiet                job types that nothing happened to meanwhile
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rqmem.live.recording import job_fields, metrics
from rqmem.observe.period import Period, Report, TypeReport, trend
from rqmem.observe.statistics import peaks_in
from rqmem.store.history.history_records import Tally
from rqmem.text import timestamp

SCHEMA_VERSION = 1


def as_fields(report: Report) -> dict[str, Any]:
    """All of it, as `json` takes it."""
    period = report.period
    return {
        "schema_version": SCHEMA_VERSION,
        "rqmem_version": report.rqmem_version,
        "redis": report.redis,
        "job": report.job,
        "since": timestamp(period.since),
        "until": timestamp(period.until),
        "step_seconds": int(period.step_seconds),
        "before_since": _time(period.before_since),
        "journal_since": _time(period.known_since),
        "notes": report.notes,
        "metrics": metrics(report.tally),
        "jobs": [_job(each, period) for each in report.types],
        "quiet": list(report.quiet),
    }


def _job(each: TypeReport, period: Period) -> dict[str, Any]:
    return {
        **job_fields(each.statistics),
        "ceiling_mb": each.limit_mb,
        "trend": _trend(each, period),
        "steps": [_step(at, tally) for at, tally in each.steps],
    }


def _trend(each: TypeReport, period: Period) -> dict[str, dict[str, float | None]] | None:
    compared = trend(each, period)
    if compared is None:
        return None
    now, before = (asdict(figures) for figures in compared)
    return {name: {"now": _rounded(now[name]), "before": _rounded(before[name])} for name in now}


def _step(at: float, tally: Tally) -> dict[str, Any]:
    peaks = peaks_in(tally.peaks)
    return {
        "at": timestamp(at),
        "runs": int(tally.runs),
        "failed": int(tally.failed),
        "breaches": int(tally.breached),
        "p50_mb": peaks.p50_mb,
        "p90_mb": peaks.p90_mb,
        "highest_mb": peaks.highest_mb,
    }


def _time(at: float | None) -> str | None:
    return None if at is None else timestamp(at)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
