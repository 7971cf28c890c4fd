"""What the protection costs: CPU of the watching worker, and what many breaches leave in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import click
import psutil
from rq import Queue
from rq.job import Job, JobStatus

from rqmem.testing import wait_until
from scripts.bench import jobs
from scripts.bench.measuring import resident_mb
from scripts.bench.worker_runs import How, cpu_share, empty_queue, serving

_NEAR_MB = 20
_FIRST_BREACHES = 5
_SETTLE_SECONDS = 0.5
_SPARE_MB = 4.0  # may the worker grow by: what its journal keeps of the last runs
_BREACH_SECONDS = 3.0  # the longest that one of many may take


def watching(how: How, idle_seconds: float, busy_seconds: float) -> list[str]:
    """CPU of the worker process itself, in per cent of a core. Returns what is outside the budget."""
    click.echo(f"\nWatching: CPU of the worker process, {how}\n")
    works: list[tuple[str, float, float, Callable[..., Any] | None, tuple[Any, ...]]] = [
        ("idle", 0.1, idle_seconds, None, ()),
        ("busy horse, far from the ceiling", 1.0, busy_seconds, jobs.work_for, ()),
        (f"busy horse, {_NEAR_MB} MB below it", 3.0, busy_seconds, jobs.work_near, (how.memory_mb, _NEAR_MB)),
    ]
    outside = []
    for name, most_percent, seconds, work, arguments in works:
        queue = empty_queue()
        with serving(how) as worker:
            if work is not None:
                wait_until(partial(_started, queue.enqueue(work, *arguments, seconds + 3 * _SETTLE_SECONDS)))
            time.sleep(_SETTLE_SECONDS)
            percent = 100 * cpu_share(worker.pid, partial(time.sleep, seconds))
        click.echo(f"{name:<34}{percent:>6.2f} %")
        if percent > most_percent:
            outside.append(f"watching, {name} ({how}): {percent:.2f} % of a core, more than {most_percent:g}")
    return outside


def _started(job: Job) -> bool:
    return job.get_status() == JobStatus.STARTED


def breaches_in_a_row(how: How, count: int) -> list[str]:
    """One worker, many breaches, good jobs between them: nothing may pile up. Returns what did."""
    click.echo(f"\n{count} breaches in a row on one worker, a good job after each, {how}\n")
    click.echo(f"{'after':>6}{'RSS MB':>9}{'fds':>6}{'zombies':>9}{'keys':>7}{'keys a pair':>13}{'good jobs':>11}")
    queue = empty_queue()
    first = min(_FIRST_BREACHES, count)
    with serving(how) as worker:
        good = _breach(queue, first)
        after_first = _figures(worker.pid, queue)
        _show(first, after_first, good)
        good += _breach(queue, count - first)
        at_end = _figures(worker.pid, queue)
        _show(count, at_end, good)
    faults = []
    if good < count:
        faults.append(f"{count - good} good jobs did not finish")
    if at_end.descriptors > after_first.descriptors + 2 or at_end.zombies > after_first.zombies:
        faults.append("descriptors or zombies pile up")
    if at_end.resident_mb > after_first.resident_mb + _SPARE_MB:
        faults.append(f"the worker has grown by {at_end.resident_mb - after_first.resident_mb:.1f} MB")
    if at_end.keys / count > after_first.keys / first:
        faults.append("keys in Redis pile up beyond those of the jobs that are kept")
    return [f"{count} breaches in a row ({how}): {'; '.join(faults)}"] if faults else []


def _breach(queue: Queue, count: int) -> int:
    """Run ``count`` jobs that breach, each followed by a good one. Returns how many good ones finished."""
    after: list[Job] = []
    for _ in range(count):
        queue.enqueue("rqmem.testing.adversaries.blocks")
        after.append(queue.enqueue(jobs.nothing))
    if after:
        wait_until(lambda: after[-1].get_status() in (JobStatus.FINISHED, JobStatus.FAILED), count * _BREACH_SECONDS)
    return sum(job.get_status() == JobStatus.FINISHED for job in after)


@dataclass(frozen=True)
class _Figures:
    """Of a worker: resident MB, open descriptors, unreaped children; and the keys in its Redis."""

    resident_mb: float
    descriptors: int
    zombies: int
    keys: int


def _figures(pid: int, queue: Queue) -> _Figures:
    process = psutil.Process(pid)
    keys: Any = queue.connection.dbsize()
    zombies = sum(child.status() == psutil.STATUS_ZOMBIE for child in process.children())
    return _Figures(resident_mb(pid), process.num_fds(), zombies, keys)


def _show(count: int, seen: _Figures, good: int) -> None:
    click.echo(
        f"{count:>6}{seen.resident_mb:>9.1f}{seen.descriptors:>6}{seen.zombies:>9}{seen.keys:>7}"
        f"{seen.keys / count:>13.2f}{good:>11}"
    )
