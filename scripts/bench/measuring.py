"""Shared by the measurements: a Redis of their own, its work, sizes of a process, the last lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click
import psutil
from redis import Redis
from rq.job import Job, JobStatus

from rqmem.measure import linux
from rqmem.units import MB, to_mb
from scripts import harness
from scripts.bench.worker_runs import LONGEST_SECONDS, Ended, Running, stolen_since_now


@contextmanager
def own_redis() -> Iterator[Redis]:
    """A server that workers started in the block use too. At the end it is stopped and its data are removed.

    It writes no append-only file: rewriting that takes a processor for seconds, and the time would look like ours.
    At the end, print how much CPU time the host took from this machine: the figures are no better than that.
    """
    stolen = stolen_since_now()
    with harness.own_redis() as url, Redis.from_url(url) as connection:
        linux.become_subreaper()  # after the server, which is not to become our child
        os.environ["RQMEM_REDIS_URL"] = url
        connection.config_set("appendonly", "no")
        yield connection
    click.echo(f"\nprocessor time that the host took: {stolen():.0f} % (above some 5 % look again)")


def work_of(connection: Redis) -> tuple[int, float]:
    """Commands that Redis has executed, those in scripts among them, and the CPU seconds it has used."""
    stats: Any = connection.info("commandstats")
    cpu: Any = connection.info("cpu")
    return sum(each["calls"] for each in stats.values()), cpu["used_cpu_user"] + cpu["used_cpu_sys"]


def used_bytes(connection: Redis) -> int:
    """What Redis has allocated."""
    memory: Any = connection.info("memory")
    return int(memory["used_memory"])


def work_off(command: list[str], patience_seconds: float = LONGEST_SECONDS) -> Ended:
    """Have a worker work until it ends by itself. Raises `click.ClickException` where that takes too long or fails."""
    ended = Running(command).finish(patience_seconds)
    if ended.code != 0:
        raise click.ClickException(f"{' '.join(command[:2])} ended with {ended.code}: {ended.last_line}")
    return ended


def result_of(job: Job) -> Any:
    """What the job returned. Raises `click.ClickException` for one that did not finish, with its error."""
    job.refresh()
    if job.get_status() != JobStatus.FINISHED:
        why = harness.error_of(job) or "no result"
        raise click.ClickException(f"{job.description} ended {job.get_status().value}: {why}")
    return job.return_value()


def resident_mb(pid: int | None = None) -> float:
    """Of a process (None: this one), now, in MB."""
    return to_mb(psutil.Process(pid).memory_info().rss)


def peak_mb() -> float:
    """The most this process was since it began, or since `forget_peak`, in MB (``VmHWM``, proc_pid_status(5)).

    getrusage(2) would answer with its parent's size where that was larger.
    """
    status = Path("/proc/self/status").read_text()
    [kb] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(kb) * 1024 / MB


def forget_peak() -> None:
    """`peak_mb` counts from here on (proc_pid_clear_refs(5))."""
    Path("/proc/self/clear_refs").write_text("5")


def end(outside: Sequence[str]) -> NoReturn:
    """Say what is outside the budget of the design, and end with 1 where something is."""
    click.echo("\nall within the budget" if not outside else "\noutside the budget:\n  " + "\n  ".join(outside))
    sys.exit(1 if outside else 0)
