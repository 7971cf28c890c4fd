"""The table of honest jobs: whether any was touched, and how much longer they take than under ``rq worker``."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

import click
from rq.job import Job, JobStatus

from rqmem.store import execution_reader
from rqmem.testing.catalogue import Honest
from scripts.bench.measuring import work_off
from scripts.bench.worker_runs import How, empty_queue, stock_worker
from scripts.harness import error_of


def table(how: How, honest: Sequence[Honest], runs: int) -> list[str]:
    """Print the table; returns those that were touched."""
    click.echo(f"\nHonest jobs: {runs} runs, {how}; slower than under rq worker, by the median\n")
    click.echo(f"{'job':<31}{'ceiling':>8}{'touched':>9}{'seconds':>9}{'rq worker':>11}{'slower':>9}")
    outside = []
    for each in honest:
        name = each.name.replace("_", " ")
        if each.missing:
            click.echo(f"{name:<31}needs {', '.join(each.missing)}")
            continue
        own = replace(how, memory_mb=each.ceiling_mb or how.memory_mb)
        _run(each, stock_worker(), how.memory_mb, 1)  # its host may have to give it memory first
        done = _run(each, own.command("--burst"), how.memory_mb, runs)
        touched = [reason for reason in map(_touched, done) if reason]
        seconds, usual = _seconds(done), _seconds(_run(each, stock_worker(), how.memory_mb, runs))
        slower = f"{100 * (seconds / usual - 1):+.1f} %" if seconds and usual else "-"
        click.echo(f"{name:<31}{own.memory_mb:>8}{len(touched):>9}{seconds:>9.3f}{usual:>11.3f}{slower:>9}")
        if touched:
            outside.append(f"{name} ({how}): touched {len(touched)} of {runs}: {touched[0]}")
    return outside


def _run(honest: Honest, command: list[str], ceiling_mb: int, runs: int) -> list[Job]:
    queue = empty_queue()
    enqueued = [queue.enqueue(honest.path, kwargs=honest.kwargs(ceiling_mb)) for _ in range(runs)]
    work_off(command)
    for job in enqueued:
        job.refresh()
    return enqueued


def _touched(job: Job) -> str:
    """Why a job counts as touched; "" if it was not."""
    breaches = execution_reader.breaches(job.connection, job.id)
    if breaches:
        return breaches[0].summary()
    if job.get_status() != JobStatus.FINISHED or job.return_value() is not True:
        return error_of(job) or f"{job.get_status().value}, returned {job.return_value()!r}"
    return ""


def _seconds(done: Sequence[Job]) -> float:
    times = [(job.ended_at - job.started_at).total_seconds() for job in done if job.ended_at and job.started_at]
    return statistics.median(times) if times else 0.0
