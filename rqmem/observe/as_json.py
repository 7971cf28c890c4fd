"""The one JSON vocabulary, version 2: what each command prints with ``--json``, and `rqmem.api` returns. Pure.

Names are stable within a version; new ones may come. docs/reference/json.md has the rules and explains each name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rqmem.events import WHOSE, Breach, Event, LeakFound
from rqmem.observe.accounts import of_tenant
from rqmem.observe.advice import Advice, AdviceReport
from rqmem.observe.job import Case
from rqmem.observe.model import Snapshot
from rqmem.observe.next_step import outlook
from rqmem.observe.period import Period, PeriodReport, TypeReport, trend
from rqmem.observe.problems import Finding, healthy
from rqmem.observe.statistics import JobStatistics, peaks_in
from rqmem.observe.vocabulary import (
    encoded,
    job_type_head,
    of_breaches,
    of_peaks,
    of_tally,
    percentage,
    versioned,
)
from rqmem.policy.recommendation import Recommendation, TooLittle
from rqmem.store.history.history_records import Grown, Lines, Tally, Told
from rqmem.text import timestamp_ms
from rqmem.units import to_mb

_LISTS = ("workers", "hosts", "pools", "limits", "queues")


def of_snapshot(snapshot: Snapshot, found: Sequence[Finding]) -> dict[str, Any]:
    """What ``rqmem status --json`` prints."""
    memory = snapshot.memory
    return {
        **versioned(at=snapshot.at, redis=snapshot.where, state=snapshot.state, healthy=healthy(found)),
        **{name: [each.to_json() for each in getattr(snapshot, name)] for name in _LISTS},
        "since": timestamp_ms(snapshot.since),
        "job_types": [each.to_json() for each in snapshot.job_types],
        "alerts": encoded(list(snapshot.open_alerts)),
        "problems": [{"mark": each.mark, **encoded(each)} for each in found],
        "journal": {"error": snapshot.journal_error, "dropped": snapshot.dropped},
        "redis_memory": None
        if memory is None
        else {"used_mb": to_mb(memory.used_bytes), "max_mb": to_mb(memory.max_bytes), "policy": memory.policy},
    }


def of_statistics(each: JobStatistics) -> dict[str, Any]:
    return {**job_type_head(each.job_type, each.ceilings), **of_tally(each.tally, each.peaks), "source": each.source}


# One job


_OF_A_JOB = (
    *("at", "job_id", "job_type", "call", "queue", "status", "execution", "worker", "worker_silent", "running", "well"),
    *("outcome", "error", "next", "started_at", "ended_at", "usage_mb", "peak_mb", "ceiling_mb", "usage_percentage"),
    *("operation", "items_done", "last_checkpoint", "executions", "breaches", "resumes", "escalations", "children"),
)


def of_job(case: Case) -> dict[str, Any]:
    """What ``rqmem status --job --json`` prints."""
    live = case.live
    layers: dict[str, float] = {}
    for each in case.breaches:
        layers[each.layer] = layers.get(each.layer, 0) + 1
    more = {
        "at": case.now,
        "job_type": case.job,
        "execution": case.owner.execution if case.owner else "",
        "worker_silent": case.silent,
        "next": outlook(case),
        "started_at": case.began_at,
        "usage_mb": live.usage_mb if live else None,
        "usage_percentage": percentage(live.usage_mb, live.limit_mb) if live else None,
        "operation": live.operation if live else "",
        "breaches": of_breaches(layers, case.breached),
    }
    return versioned(**{name: more[name] if name in more else getattr(case, name) for name in _OF_A_JOB})


def of_story(case: Case) -> dict[str, Any]:
    """What ``rqmem inspect --json`` prints."""
    live = case.live
    grew = of_grown(case.grown)
    if live is not None and live.grew:
        grew.append(_of_growth(None, live.peak_mb, live.grew))
    return {
        **of_job(case),
        "runs": encoded(case.runs),
        "events": [of_told(told) for told in case.told],
        "events_cut_at": timestamp_ms(case.cut_at),
        "breach_records": [{"summary": each.summary(), **encoded(each)} for each in case.breaches],
        "grew": grew,
        "samples": [encoded({"at": e.at, "usage_mb": e.usage_mb, "ceiling_mb": e.limit_mb}) for e in case.samples],
    }


def of_grown(grown: Sequence[Grown]) -> list[dict[str, Any]]:
    """Where executions grew whose peaks are records of their job type."""
    return [_of_growth(each.at, each.peak_mb, each.grew) for each in grown]


def _of_growth(at: float | None, peak_mb: float, lines: Lines) -> dict[str, Any]:
    return {**encoded({"at": at, "peak_mb": peak_mb}), "grew": encoded(lines, "grew")}


def of_told(told: Told) -> dict[str, Any]:
    return {"at": timestamp_ms(told.at), **_of_event(told.event)}


def _of_event(event: Event) -> dict[str, Any]:
    """An event without whose it is; the evidence of a breach is in ``breach_records``."""
    bare = event.without_evidence() if isinstance(event, Breach) else event
    values = {name: value for name, value in vars(bare).items() if name not in WHOSE}
    if isinstance(event, LeakFound):
        values["kinds"] = values.pop("grew")  # of objects, not of lines
    growth_kb = values.pop("growth_kb_per_item", None)
    if growth_kb is not None:
        values["growth_per_item_mb"] = growth_kb / 1024
    return {"event": type(event).__name__, **encoded(values)}


# A period


def of_report(report: PeriodReport, *, steps: int | None = None) -> dict[str, Any]:
    """What ``rqmem report --json`` prints.

    Args:
        steps: the number of job types, from the first, whose hours or days are included; None: all.
    """
    period = report.period
    return {
        **versioned(rqmem_version=report.rqmem_version, redis=report.redis, job_type=report.job),
        **encoded({"since": period.since, "until": period.until, "step_seconds": period.step_seconds}),
        "before_since": timestamp_ms(period.before_since),
        "journal_since": timestamp_ms(period.known_since),
        "notes": report.notes,
        "totals": of_tally(report.tally),
        "job_types": [
            _of_type_report(each, period, steps=steps is None or number < steps)
            for number, each in enumerate(report.types)
        ],
        "quiet_job_types": list(report.quiet),
        "tenants": [of_tenant(each) for each in report.tenants],
    }


def _of_type_report(each: TypeReport, period: Period, *, steps: bool) -> dict[str, Any]:
    compared = trend(each, period)
    now, before = (encoded(figures) for figures in compared) if compared is not None else ({}, {})
    return {
        **of_statistics(each),
        "trend": {name: {"now": now[name], "before": before[name]} for name in now} or None,
        **({"steps": [_of_step(at, tally) for at, tally in each.steps]} if steps else {}),
    }


def _of_step(at: float, tally: Tally) -> dict[str, Any]:
    return {
        "at": timestamp_ms(at),
        "runs": round(tally.runs),
        "failed": round(tally.failed),
        "breaches": of_breaches(tally.breaches),
        "peak_mb": of_peaks(peaks_in(tally.peaks)),
        "code_versions": sorted(tally.code_versions),
    }


def of_advice(report: AdviceReport) -> dict[str, Any]:
    """What ``rqmem recommend --json`` prints."""
    head = versioned(rqmem_version=report.rqmem_version, at=report.at, redis=report.redis, notes=report.notes)
    return {**head, "job_types": [of_advised(each) for each in report.jobs]}


def of_advised(advice: Advice) -> dict[str, Any]:
    past, found = advice.past, advice.found
    return {
        **job_type_head(advice.job, advice.ceilings),
        "runs": int(past.runs),
        "runs_needed": found.needed if isinstance(found, TooLittle) else None,
        **encoded({"last_run_at": advice.last_run_at, "history_seconds": past.history_days * 86400}),
        "recommended": of_recommendation(found) if isinstance(found, Recommendation) else None,
    }


def of_recommendation(found: Recommendation) -> dict[str, Any]:
    values = {name: value for name, value in vars(found).items() if name not in ("runs", "history_days", "breaches")}
    return {**encoded(values), "breaches_seen": found.breaches}
