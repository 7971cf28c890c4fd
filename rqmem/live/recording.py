"""The report of a run of the monitor, as a value and as JSON. Pure. This is the JSON's schema, version 1.

Sizes are in MB (2**20 bytes), times are ISO 8601 in UTC, lengths in seconds, and what is not known is null. Keys may be
added within a version; that one goes or changes its meaning makes a new version.

``schema_version``          1
``rqmem_version``           that wrote it
``complete``                false in what is saved meanwhile: the monitor was killed if it stays so
``started_at, ended_at``    of the monitor; ``seconds`` between them
``ended_by``                ``duration``, or what ended it early: ``SIGINT``, ``SIGTERM``, ``SIGHUP``, ``output closed``
``host``                    that the monitor ran on, and whose memory ``system`` is
``redis``                   which one, without password
``queues``                  that it was restricted to; empty: all
``interval_seconds``        as asked for; ``sampling_seconds``: of ``samples``, longer where there were too many
``threshold_percentage``    of a job's ceiling
``redis_away_seconds``      how long Redis did not answer; ``samples`` has a gap there
``jobs_read_at``            when ``jobs`` were read; before ``ended_at`` where Redis was away at the end
``samples``                 by interval, each the highest within it:
    ``at``                  when it began
    ``system``              ``total_mb, used_mb, used_percentage, available_mb, swap_total_mb, swap_used_mb``, and
                            ``pressure`` (PSI, percent of the time: ``some_10, some_60, full_10, full_60``)
    ``workers``             ``worker, usage_mb, limit_mb, usage_percentage`` (of the job's ceiling), ``worker_mb`` (its
                            own process), ``job, job_id, operation, items_done``; without a job ``job`` is null
    ``queues``              ``name, queued, started, deferred, failed`` at the end of the interval
    ``jobs_ended``          within it, by the workers' counts, those of stock ``rq worker`` included
``workers``                 ``worker, host, kind`` (``rqmem``; ``silent``: not heard of any more; ``rq``: not watched),
                            ``first_seen_at, last_seen_at, jobs_ended, crossings``, and ``fullest`` (as in ``samples``)
``jobs``                    by job type, of runs that ended meanwhile:
    ``job``                 the job type
    ``source``              ``runs``: each run counts exactly; ``tallies``: all are counted, peaks are up to 5 % too
                            high; ``last runs``: only the last ones, for more ended than the journal keeps one by one
    ``jobs``                that somebody enqueued: without children, and once also where one was resumed or gathered
    ``runs, failed, resumed, splits, collections, freed_mb, chunks, items, seconds``
    ``leaks``               found meanwhile; ``leak_mb_per_run``: what a run leaves, by those; null without
    ``breaches``            by layer
    ``peak_mb``             ``p50, p90, p99, highest``
    ``alerts``              raised meanwhile
    ``crossings``           of the threshold, as seen each second
    ``runs_above_threshold``  by their peak, those shorter than a second included; null: not known (``tallies``)
    ``metrics``             as below, of this job type
``metrics``                 of all: ``memory_efficiency_mb_per_1000_items`` (peak MB of runs with items by their items),
                            ``collection_effectiveness_mb`` (freed by a collection), ``splitting_rate`` (jobs that split
                            by jobs), ``alerts_per_job`` (alerts by jobs)
``alerts_raised``           meanwhile; ``alerts``: the last 1000: ``at, rule, job, job_id, queue, worker, text``
``threshold_crossings``     meanwhile; ``crossings``: the last 1000: ``at, until, worker, job, job_id, usage_mb,
                            limit_mb, usage_percentage`` (the highest), ``over``
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rqmem.live.crossings import Crossing
from rqmem.live.steps import Step, WorkerStep
from rqmem.live.system import System
from rqmem.live.workers import Totals
from rqmem.observe.statistics import JobStatistics, total
from rqmem.store.alerts.alert_records import Alert
from rqmem.store.history.history_records import Tally
from rqmem.text import json_text, timestamp

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Setting:
    """What was asked for."""

    redis: str
    interval_seconds: int
    threshold_percentage: float
    queues: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """All that is in it; times in epoch seconds. The docstring of this module tells the rest."""

    rqmem_version: str
    setting: Setting
    host: str
    started_at: float
    ended_at: float
    ended_by: str
    complete: bool
    sampling_seconds: float
    redis_away_seconds: float
    jobs_read_at: float
    samples: Sequence[Step]
    workers: Sequence[Totals]
    jobs: Sequence[JobStatistics]
    alerts_raised: int
    alerts: Sequence[Alert]
    threshold_crossings: int
    crossings: Sequence[Crossing]
    crossings_by_worker: dict[str, int]

    @property
    def seconds(self) -> float:
        return self.ended_at - self.started_at

    @property
    def tally(self) -> Tally:
        """All job types together, with all alerts, those about no job included."""
        return total(self.jobs).plus(Tally(alerts=self.alerts_raised - sum(each.tally.alerts for each in self.jobs)))


def to_json(report: Report) -> str:
    """The report by this module's schema; a line a sample, so that a long one can be read and compared."""
    fields = as_fields(report)
    lines = [f"  {json_text(name)}: {_value(value)}" for name, value in fields.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _value(value: Any) -> str:
    """A list of objects with one a line, anything else on one line: json's own indenting takes ten times as long."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(f"    {json_text(each)}" for each in value) + "\n  ]"
    return json_text(value)


def as_fields(report: Report) -> dict[str, Any]:
    """The report as JSON takes it."""
    setting = report.setting
    return {
        "schema_version": SCHEMA_VERSION,
        "rqmem_version": report.rqmem_version,
        "complete": report.complete,
        "started_at": timestamp(report.started_at),
        "ended_at": timestamp(report.ended_at),
        "seconds": round(report.seconds, 1),
        "ended_by": report.ended_by,
        "host": report.host,
        "redis": setting.redis,
        "queues": list(setting.queues),
        "interval_seconds": setting.interval_seconds,
        "sampling_seconds": report.sampling_seconds,
        "threshold_percentage": setting.threshold_percentage,
        "redis_away_seconds": round(report.redis_away_seconds, 1),
        "jobs_read_at": timestamp(report.jobs_read_at),
        "metrics": metrics(report.tally),
        "jobs": [_job(each) for each in report.jobs],
        "alerts_raised": report.alerts_raised,
        "alerts": [_alert(each) for each in report.alerts],
        "threshold_crossings": report.threshold_crossings,
        "crossings": [_crossing(each) for each in report.crossings],
        "workers": [_totals(each, report.crossings_by_worker.get(each.worker, 0)) for each in report.workers],
        "samples": [_step(each) for each in report.samples],
    }


def metrics(tally: Tally) -> dict[str, float | None]:
    """The four of the schema."""
    return {
        "memory_efficiency_mb_per_1000_items": _rounded(tally.mb_per_1000_items, 3),
        "collection_effectiveness_mb": _rounded(tally.freed_mb_per_collection, 3),
        "splitting_rate": _rounded(tally.splitting_rate, 4),
        "alerts_per_job": _rounded(tally.alerts_per_job, 4),
    }


def job_fields(job: JobStatistics) -> dict[str, Any]:
    """What the schema has of a job type, but what only the monitor sees."""
    tally, peaks = job.tally, job.peaks
    counted = ("jobs", "runs", "failed", "resumed", "splits", "collections", "chunks", "items", "alerts", "leaks")
    return {
        "job": job.job,
        "source": job.source,
        **{name: int(getattr(tally, name)) for name in counted},
        "breaches": {layer: int(count) for layer, count in tally.breaches.items()},
        "freed_mb": round(tally.freed_mb, 1),
        "seconds": round(tally.seconds, 3),
        "leak_mb_per_run": None if tally.leak_mb_per_run is None else round(tally.leak_mb_per_run, 3),
        "peak_mb": {"p50": peaks.p50_mb, "p90": peaks.p90_mb, "p99": peaks.p99_mb, "highest": peaks.highest_mb},
        "metrics": metrics(tally),
    }


def _job(job: JobStatistics) -> dict[str, Any]:
    return {**job_fields(job), "crossings": job.crossings, "runs_above_threshold": job.runs_above}


def _alert(alert: Alert) -> dict[str, Any]:
    told = ("rule", "job", "job_id", "queue", "worker", "text")
    return {"at": timestamp(alert.at), **{name: getattr(alert, name) for name in told}}


def _crossing(crossing: Crossing) -> dict[str, Any]:
    times = {"at": timestamp(crossing.at), "until": timestamp(crossing.until)}
    sizes = {"usage_mb": round(crossing.usage_mb, 1), "limit_mb": round(crossing.limit_mb, 1)}
    return {**times, **vars(crossing), **times, **sizes, "usage_percentage": crossing.usage_percentage}


def _totals(worker: Totals, crossings: int) -> dict[str, Any]:
    return {
        "worker": worker.worker,
        "host": worker.host,
        "kind": worker.kind,
        "first_seen_at": timestamp(worker.first_seen_at),
        "last_seen_at": timestamp(worker.last_seen_at),
        "jobs_ended": worker.ended,
        "crossings": crossings,
        "fullest": _worker(worker.fullest) if worker.fullest is not None else None,
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "at": timestamp(step.at),
        "system": _system(step.system),
        "workers": [_worker(each) for each in step.workers.values()],
        "queues": [dict(vars(queue)) for queue in step.queues],
        "jobs_ended": step.ended,
    }


def _system(system: System) -> dict[str, Any]:
    return {
        "total_mb": system.total_mb,
        "used_mb": system.used_mb,
        "used_percentage": system.used_percentage,
        "available_mb": system.available_mb,
        "swap_total_mb": system.swap_total_mb,
        "swap_used_mb": system.swap_used_mb,
        "pressure": asdict(system.pressure) if system.pressure is not None else None,
    }


def _worker(step: WorkerStep) -> dict[str, Any]:
    return {
        **vars(step),
        "usage_mb": round(step.usage_mb, 1),
        "limit_mb": round(step.limit_mb, 1),
        "worker_mb": round(step.worker_mb, 1),
        "job": step.job or None,
        "usage_percentage": round(100 * step.share, 1) if step.share >= 0 else None,
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
