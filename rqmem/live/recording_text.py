"""The report as text for people: a summary, and all of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rqmem.child_ids import short_id
from rqmem.live.recording import Recording
from rqmem.live.steps import MonitorStep, WorkerStep
from rqmem.observe.metric_words import job_lines, metric_words
from rqmem.text import counted, duration, printable, timestamp
from rqmem.units import show_mb

_SHOWN_LINES = 5


def to_text(report: Recording) -> str:
    """All of it: summary, all alerts and crossings, samples."""
    lines = summary(report, shown=None)
    lines += ["", "samples" if report.record.steps.all else "no samples"]
    for step in report.record.steps.all:
        lines += map(printable, _step(step))
    return "\n".join(lines) + "\n"


def summary(report: Recording, *, shown: int | None = _SHOWN_LINES) -> list[str]:
    """Its lines. ``shown``: how many of the last alerts and crossings to show; None: all that are kept."""
    setting, record, crossings = report.setting, report.record, report.record.workers.crossings
    lines = [
        f"rqmem monitor on {setting.redis}, {duration(report.seconds)} "
        f"from {timestamp(record.started_at)} to {timestamp(report.ended_at)} ({_ending(report)})"
    ]
    if setting.queues:
        lines.append(f"only of queues {', '.join(setting.queues)}")
    if report.away_seconds:
        lines.append(f"Redis was away for {duration(report.away_seconds)}")
    if report.jobs_read_at < report.ended_at - 1:
        lines.append(f"what jobs did is known until {timestamp(report.jobs_read_at)} only")
    lines.append("")
    lines += [line for job in report.jobs for line in job_lines(job)] or ["no job ended on a worker of rqmem"]
    lines.append(f"in all: {', '.join(metric_words(report.tally)) or 'nothing to tell'}")
    crossed = [
        f"{timestamp(each.at)}  {show_mb(each.usage_mb)} of {show_mb(each.limit_mb)} MB "
        f"({each.usage_percentage:.0f} %) {each.job} ({short_id(each.job_id)}) on {each.worker}"
        for each in crossings.kept
    ]
    lines += [
        "",
        f"{counted(crossings.count, 'crossing')} of {setting.threshold_percentage:g} % of the ceiling",
        *_last(crossed, shown),
    ]
    told = [f"{timestamp(each.at)}  {each.rule}: {each.text}" for each in record.alerts]
    lines += ["", f"{counted(record.alerts_raised, 'alert')} raised", *_last(told, shown)]
    return [printable(line) for line in lines]


def _ending(report: Recording) -> str:
    if not report.complete:
        return "not over yet"
    return "as long as asked for" if report.ended_by == "duration" else f"ended by {report.ended_by}"


def _last(lines: Sequence[str], shown: int | None) -> list[str]:
    if shown is None or len(lines) <= shown:
        return [f"  {line}" for line in lines]
    return [f"  {line}" for line in lines[-shown:]] + [f"  and {len(lines) - shown} before"]


def _step(step: MonitorStep) -> Iterable[str]:
    system = step.system
    queued, started, failed = (sum(getattr(each, n) for each in step.queues) for n in ("queued", "started", "failed"))
    yield (
        f"{timestamp(step.at)}  memory {system.used_percentage:.0f} % of {system.total_mb:,.0f} MB"
        f"  jobs {queued} queued, {started} started, {failed} failed, {step.ended} ended meanwhile"
    )
    for worker in step.workers.values():
        yield f"  {_worker(worker)}"


def _worker(worker: WorkerStep) -> str:
    if worker.share < 0:
        return f"{worker.worker}  idle, itself {show_mb(worker.worker_mb)} MB"
    return (
        f"{worker.worker}  {show_mb(worker.usage_mb)} of {show_mb(worker.limit_mb)} MB ({100 * worker.share:.0f} %), "
        f"itself {show_mb(worker.worker_mb)} MB: {worker.job} ({short_id(worker.job_id)})"
        f"{f' at {worker.operation}' if worker.operation else ''}"
    )
