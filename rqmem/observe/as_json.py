"""The one JSON vocabulary, version 2: what each command prints with ``--json``, and `rqmem.api` returns. Pure.

Names are stable within a version; new ones may come. The rules:

- ``version`` comes first.
- Times (``at``, ``since``, ``until``, ``..._at``) are ISO 8601 in UTC: ``2026-11-24T00:31:07.120Z``.
- Sizes are in MB (2**20 bytes), as floats, and their names end in ``_mb``. Names of seconds end in ``_seconds``.
- What is not known is null, or empty where it is a text or a list.

A worker (``workers`` of status, ``worker`` of top, ``rqmem status --worker``)::

    name, host, pid, queues
    kind                 "rqmem"; "silent": rqmem's, and its heartbeat is gone; "rq": RQ's own, not watched
    state                "busy", "idle", "suspended" or "starting"
    ceiling_mb, usage_mb the ceiling of its job, else of jobs that declare none; what its job uses
    job                  {job_type, job_id, queue, started_at, usage_mb, peak_mb, ceiling_mb, operation, items_done,
                         items_total, grew, usage_percentage, run_seconds} or null; grew: [{grown_mb, line}]
    job_id, jobs         the job that RQ says it runs; how many it has run
    started_at, uptime_seconds
    own_memory_mb, own_ceiling_mb       of the worker's own process
    default_ceiling_mb   of jobs that declare none
    breaches, recycled, kept_by         since it started; "watcher" or "watcher and cgroup"
    leases               whether its horse may take short jobs by itself: "on", or "off: " and why

A job type (``job_types`` of status, report, recommend, monitor, config)::

    job_type
    ceiling_mb           of its last run; declared_ceiling_mb: by its code, as its last run reported it (config --jobs
                         reads the code); recommended_ceiling_mb: as in recommend
    jobs                 that somebody enqueued: without children; a job that was resumed or gathered counts once
    runs, failed, resumes, escalations, splits, leaks, alerts, collections, chunks, items
    breaches             {total, by_layer}; layers are "checkpoint", "watch", "kill" and "kernel"
    needed_ceilings      of a type that escalates, its runs that ended well: {ceiling_mb, runs} by what they needed
    freed_mb, leak_per_run_mb, work_seconds
    mb_seconds           the memory of its runs in MB, added up over each second
    peak_mb              {p50, p90, p99, max}
    peak_per_1000_items_mb, freed_per_collection_mb, splitting_rate, alerts_per_job   the four metrics

``rqmem status``::

    version, at, redis, state, healthy   state: "running", "suspended" or "no workers"
    workers, hosts       hosts: {name, workers, busy, usage_mb, own_memory_mb, total_mb, available_mb,
                         container_limit_mb, pressure_some_percentage, pressure_full_percentage}; pressure: the part of
                         the last ten seconds in which some process, or all, waited for memory
    pools                {name, host, at, workers, least_workers, most_workers, budget_mb, reserved_mb, usage_mb,
                         usage_percentage, held_mb, waiting, waiting_since, waiting_seconds, paused, paused_since,
                         evictions, jobs}; held_mb: by horses of idle workers; waiting: jobs for which there is no
                         room; paused: why it takes no jobs, or empty; jobs: {worker, job_id, job_type, reserved_mb,
                         usage_mb, started_at}
    queues               {name, queued, started, deferred, scheduled, failed, due, scheduler, finished, paused,
                         oldest_enqueued_at, oldest_seconds, expected_wait_seconds}; how long the next job has waited,
                         and how long a job will wait that is enqueued now
    since, job_types     what happened since then
    alerts               open ones: {rule, job_type, since, worker, text}
    problems             {mark, name, text, advice}; mark: "problem" or "note"
    journal              {error, dropped}; dropped: entries that it did not take, by kind
    redis_memory         {used_mb, max_mb, policy} or null

``rqmem inspect`` and, down to ``children``, ``rqmem status --job``::

    version, at, job_id, job_type, call, queue, status   status: RQ's; empty: RQ has forgotten it
    execution, worker, worker_silent, running, well, outcome, error, next
    started_at, ended_at of the first execution, of the last one
    usage_mb, peak_mb, ceiling_mb, usage_percentage, operation, items_done
    last_checkpoint      {operation, usage_mb, at}
    executions, breaches, resumes, escalations
    children             of a job that has split, as `rqmem.job.progress.Progress`; splits: the same for those of its
                         children that have split, 20 in the tree at most; more: how many are left out
    runs                 executions that ended, as `rqmem.store.history.history_records.Run`; curve_mb: the highest
                         usage of each curve_step_seconds from its beginning
    events               {at, event, ...} as in rqmem/events.py, oldest first; events_cut_at: of a long story the first
                         20 and the last 79 are kept, and here the first ones end; null: it has all
    breach_records       with their evidence, as `rqmem.events.Breach`, oldest first; summary: in one line
    grew                 {at, peak_mb, lines} of executions whose peak is a record of the job type; at null: it runs
    samples              {at, usage_mb, ceiling_mb} of its worker, for a job without events

``rqmem report``::

    version, rqmem_version, redis, job_type   job_type: that was asked for; null: all
    since, until, step_seconds   begins with an hour or a day, because the journal counts by those
    before_since         "before" in trends is from then to "since"; null: the journal does not go back so far
    journal_since        its first hour or day; null: it is empty
    notes, totals        sentences for the reader; the figures of all job types together
    job_types            and: source ("runs": peaks are exact; "tallies": up to 5 % too high); trend: null, or of each
                         figure {now, before}; steps: {at, runs, failed, breaches, peak_mb} of each hour or day
    quiet_job_types      job types without a run in that time

``rqmem recommend``::

    version, rqmem_version, at, redis, notes
    job_types            {job_type, runs, runs_needed, last_run_at, history_seconds, ceiling_mb, declared_ceiling_mb,
                         recommended_ceiling_mb, recommended}; recommended: as rqmem/policy/recommendation.py, or null;
                         then runs_needed says how many runs a recommendation needs

``rqmem alerts``, an object a line::

    version, id, at, rule, state, job_type, job_id, queue, worker, text, suppressed, open
                         state: "raised" or "resolved"; suppressed: how many of this kind were left out before it
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
from rqmem.observe.period import Period, Report, TypeReport, trend
from rqmem.observe.problems import Problem, healthy
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


def of_snapshot(snapshot: Snapshot, found: Sequence[Problem]) -> dict[str, Any]:
    """What ``rqmem status --json`` prints."""
    memory = snapshot.memory
    return {
        **versioned(at=snapshot.at, redis=snapshot.where, state=snapshot.state, healthy=healthy(found)),
        "workers": [each.to_json() for each in snapshot.workers],
        "hosts": [each.to_json() for each in snapshot.hosts],
        "pools": [each.to_json() for each in snapshot.pools],
        "queues": [each.to_json() for each in snapshot.queues],
        "since": timestamp_ms(snapshot.since),
        "job_types": [each.to_json() for each in snapshot.job_types],
        "alerts": encoded(list(snapshot.open_alerts)),
        "problems": encoded(list(found)),
        "journal": {"error": snapshot.journal_error, "dropped": snapshot.dropped},
        "redis_memory": None
        if memory is None
        else {"used_mb": to_mb(memory.used_bytes), "max_mb": to_mb(memory.max_bytes), "policy": memory.policy},
    }


def of_statistics(each: JobStatistics) -> dict[str, Any]:
    """A job type by its statistics."""
    return {**job_type_head(each.job, each.ceilings), **of_tally(each.tally, each.peaks), "source": each.source}


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
    """An event, and when it happened."""
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


def of_report(report: Report, *, steps: bool = True) -> dict[str, Any]:
    """What ``rqmem report --json`` prints; ``steps``: also of each hour or day."""
    period = report.period
    return {
        **versioned(rqmem_version=report.rqmem_version, redis=report.redis, job_type=report.job),
        **encoded({"since": period.since, "until": period.until, "step_seconds": period.step_seconds}),
        "before_since": timestamp_ms(period.before_since),
        "journal_since": timestamp_ms(period.known_since),
        "notes": report.notes,
        "totals": of_tally(report.tally),
        "job_types": [_of_type_report(each, period, steps=steps) for each in report.types],
        "quiet_job_types": list(report.quiet),
        "tenants": [of_tenant(each) for each in report.tenants],
    }


def _of_type_report(each: TypeReport, period: Period, *, steps: bool) -> dict[str, Any]:
    compared = trend(each, period)
    now, before = (encoded(figures) for figures in compared) if compared is not None else ({}, {})
    return {
        **of_statistics(each.statistics),
        "trend": {name: {"now": now[name], "before": before[name]} for name in now} or None,
        **({"steps": [_of_step(at, tally) for at, tally in each.steps]} if steps else {}),
    }


def _of_step(at: float, tally: Tally) -> dict[str, Any]:
    counts = {"runs": round(tally.runs), "failed": round(tally.failed), "breaches": of_breaches(tally.breaches)}
    return {"at": timestamp_ms(at), **counts, "peak_mb": of_peaks(peaks_in(tally.peaks))}


def of_advice(report: AdviceReport) -> dict[str, Any]:
    """What ``rqmem recommend --json`` prints."""
    head = versioned(rqmem_version=report.rqmem_version, at=report.at, redis=report.redis, notes=report.notes)
    return {**head, "job_types": [of_advised(each) for each in report.jobs]}


def of_advised(advice: Advice) -> dict[str, Any]:
    """A job type of it."""
    past, found = advice.past, advice.found
    return {
        **job_type_head(advice.job, advice.ceilings),
        "runs": int(past.runs),
        "runs_needed": found.needed if isinstance(found, TooLittle) else None,
        **encoded({"last_run_at": advice.last_run_at, "history_seconds": past.history_days * 86400}),
        "recommended": of_recommendation(found) if isinstance(found, Recommendation) else None,
    }


def of_recommendation(found: Recommendation) -> dict[str, Any]:
    """What is recommended, with what speaks for it."""
    values = {name: value for name, value in vars(found).items() if name not in ("runs", "history_days", "breaches")}
    return {**encoded(values), "breaches_seen": found.breaches}
