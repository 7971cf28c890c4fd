"""The report as text for people: a summary, and all of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rqmem.live.recording import Report
from rqmem.live.steps import Step, WorkerStep
from rqmem.observe.statistics import JobStatistics
from rqmem.store.history.history_records import Tally
from rqmem.text import counted, duration, printable, short_id, timestamp
from rqmem.units import show_leak, show_mb

_SHOWN_LINES = 5
_SOURCES = {
    "runs": "",
    "tallies": "peaks up to 5 % too high: more runs ended than are kept one by one",
    "last runs": "of the last runs only: more ended than are kept one by one",
}


def to_text(report: Report) -> str:
    """All of it: summary, all alerts and crossings, samples."""
    lines = summary(report, shown=None)
    lines += ["", "samples" if report.samples else "no samples"]
    for step in report.samples:
        lines += map(printable, _step(step))
    return "\n".join(lines) + "\n"


def summary(report: Report, *, shown: int | None = _SHOWN_LINES) -> list[str]:
    """Its lines. ``shown``: so many of the last alerts and crossings; None: all that are kept."""
    setting = report.setting
    lines = [
        f"rqmem monitor on {setting.redis}, {duration(report.seconds)} "
        f"from {timestamp(report.started_at)} to {timestamp(report.ended_at)} ({_ending(report)})"
    ]
    if setting.queues:
        lines.append(f"only of queues {', '.join(setting.queues)}")
    if report.redis_away_seconds:
        lines.append(f"Redis was away for {duration(report.redis_away_seconds)}")
    if report.jobs_read_at < report.ended_at - 1:
        lines.append(f"what jobs did is known until {timestamp(report.jobs_read_at)} only")
    lines.append("")
    lines += [line for job in report.jobs for line in job_lines(job)] or ["no job ended on a worker of rqmem"]
    lines.append(f"in all: {', '.join(metric_words(report.tally)) or 'nothing to tell'}")
    crossed = [
        f"{timestamp(each.at)}  {show_mb(each.usage_mb)} of {show_mb(each.limit_mb)} MB "
        f"({each.usage_percentage:.0f} %) {each.job} ({short_id(each.job_id)}) on {each.worker}"
        for each in report.crossings
    ]
    crossings = counted(report.threshold_crossings, "crossing")
    lines += ["", f"{crossings} of {report.setting.threshold_percentage:g} % of the ceiling", *_last(crossed, shown)]
    told = [f"{timestamp(each.at)}  {each.rule}: {each.text}" for each in report.alerts]
    lines += ["", f"{counted(report.alerts_raised, 'alert')} raised", *_last(told, shown)]
    return [printable(line) for line in lines]


def _ending(report: Report) -> str:
    if not report.complete:
        return "not over yet"
    return "as long as asked for" if report.ended_by == "duration" else f"ended by {report.ended_by}"


def job_lines(job: JobStatistics) -> Iterable[str]:
    """What happened to a job type, in three lines or four."""
    tally, peaks = job.tally, job.peaks
    told = [
        counted(tally.runs, "run"),
        f"{tally.failed:g} failed" if tally.failed else "",
        f"{tally.resumed:g} resumed" if tally.resumed else "",
        f"{tally.splits:g} split" if tally.splits else "",
        f"{counted(tally.breached, 'breach')} (by {_layers(tally.breaches)})" if tally.breached else "",
        counted(job.crossings, "crossing") if job.crossings else "",
        counted(tally.alerts, "alert") if tally.alerts else "",
        leak_words(tally),
    ]
    yield f"{job.job}: {', '.join(each for each in told if each)}"
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
        )
    if _SOURCES[job.source]:
        yield f"  ({_SOURCES[job.source]})"


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


def _last(lines: Sequence[str], shown: int | None) -> list[str]:
    if shown is None or len(lines) <= shown:
        return [f"  {line}" for line in lines]
    return [f"  {line}" for line in lines[-shown:]] + [f"  and {len(lines) - shown} before"]


def _step(step: Step) -> Iterable[str]:
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
