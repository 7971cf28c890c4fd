"""The report of a run of the monitor, as a value and as JSON. Pure. docs/reference/json.md explains its names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from rqmem._version import __version__
from rqmem.live.crossings import Crossing
from rqmem.live.record import Record
from rqmem.live.steps import MonitorStep, WorkerStep
from rqmem.live.workers import WorkerTotals
from rqmem.observe.as_json import of_statistics
from rqmem.observe.statistics import JobStatistics
from rqmem.observe.vocabulary import encoded, of_tally, percentage, versioned
from rqmem.store.history.history_records import Tally
from rqmem.text import json_text, timestamp_ms
from rqmem.values import dataclass

_HEAD = (
    *("rqmem_version", "complete", "started_at", "ended_at", "run_seconds", "ended_by", "host", "redis", "queues"),
    *("interval_seconds", "sampling_seconds", "threshold_percentage", "redis_away_seconds", "jobs_read_at"),
)
_OF_A_POOL = (
    *("name", "workers", "budget_mb", "reserved_mb", "usage_mb", "held_mb", "waiting", "waiting_seconds", "paused"),
    *("evictions", "pauses"),
)
_OF_AN_ALERT = ("at", "rule", "job", "job_id", "queue", "worker", "text")


@dataclass(frozen=True)
class MonitorOptions:
    """What was asked for."""

    redis: str
    interval_seconds: int
    threshold_percentage: float
    queues: tuple[str, ...]
    warning_fraction: float


@dataclass(frozen=True)
class Recording:
    """What the monitor has seen until ``ended_at`` (epoch seconds), and what jobs did until ``jobs_read_at``."""

    setting: MonitorOptions
    record: Record
    jobs: Sequence[JobStatistics]
    jobs_read_at: float
    ended_at: float
    ended_by: str = ""
    complete: bool = True

    @property
    def seconds(self) -> float:
        return self.ended_at - self.record.started_at

    @property
    def away_seconds(self) -> float:
        """How long Redis was away."""
        return self.record.away_seconds(self.ended_at)

    @property
    def tally(self) -> Tally:
        """All job types together, with all alerts, those about no job included."""
        alerts = self.record.alerts_raised - sum(each.tally.alerts for each in self.jobs)
        return Tally.total([*(each.tally for each in self.jobs), Tally(alerts=alerts)])


def to_json(report: Recording) -> str:
    """The report by this module's schema; a line a sample, so that a long one can be read and compared."""
    fields = as_fields(report)
    lines = [f"  {json_text(name)}: {_value(value)}" for name, value in fields.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _value(value: Any) -> str:
    """A list of objects with one a line, anything else on one line: json's own indenting takes ten times as long."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(f"    {json_text(each)}" for each in value) + "\n  ]"
    return json_text(value)


def as_fields(report: Recording) -> dict[str, Any]:
    record, crossings = report.record, report.record.workers.crossings
    head = {
        **vars(report.setting),
        **vars(report),
        "rqmem_version": __version__,
        "started_at": record.started_at,
        "run_seconds": report.seconds,
        "host": os.uname().nodename,
        "sampling_seconds": record.steps.step_seconds,
        "redis_away_seconds": report.away_seconds,
    }
    return {
        **versioned(**{name: head[name] for name in _HEAD}),
        "totals": of_tally(report.tally),
        "job_types": [_job_type(each) for each in report.jobs],
        "alerts_raised": record.alerts_raised,
        "alerts": [encoded({name: getattr(each, name) for name in _OF_AN_ALERT}) for each in record.alerts],
        "threshold_crossings": crossings.count,
        "crossings": [_crossing(each) for each in crossings.kept],
        "workers": [_totals(each, crossings.by_worker[each.worker]) for each in record.workers.totals],
        "samples": [_step(each) for each in record.steps.all],
    }


def _job_type(job: JobStatistics) -> dict[str, Any]:
    return {**of_statistics(job), "crossings": job.crossings, "runs_above_threshold": job.runs_above}


def _crossing(crossing: Crossing) -> dict[str, Any]:
    share = crossing.usage_percentage
    return {"at": timestamp_ms(crossing.at), **encoded(crossing), "usage_percentage": share}


def _totals(worker: WorkerTotals, crossings: int) -> dict[str, Any]:
    values = {
        "name": worker.worker,
        "host": worker.host,
        "kind": worker.kind,
        "first_seen_at": worker.first_seen_at,
        "last_seen_at": worker.last_seen_at,
        "jobs_ended": worker.ended,
        "crossings": crossings,
    }
    return {**encoded(values), "fullest": _worker(worker.fullest) if worker.fullest is not None else None}


def _step(step: MonitorStep) -> dict[str, Any]:
    system = step.system
    more = {"used_mb": system.used_mb, "used_percentage": system.used_percentage}
    of_machine = {name: value for name, value in encoded(system).items() if name != "host"}
    return {
        "at": timestamp_ms(step.at),
        "system": {**of_machine, **more},
        "workers": [_worker(each) for each in step.workers.values()],
        "queues": encoded(list(step.queues)),
        "pools": [{name: value for name, value in each.to_json().items() if name in _OF_A_POOL} for each in step.pools],
        "jobs_ended": step.ended,
    }


def _worker(step: WorkerStep) -> dict[str, Any]:
    values = dict(vars(step))
    name = values.pop("worker")
    share = percentage(step.usage_mb, step.limit_mb)
    return {"name": name, **encoded(values), "job_type": step.job or None, "usage_percentage": share}
