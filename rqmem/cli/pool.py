"""``rqmem pool``: runs several `MemoryWorker`s, forked from one parent."""

from __future__ import annotations

import os
from typing import Any

import click

from rqmem.cli.options import GroupedCommand, grouped, parsed, setting_options
from rqmem.cli.worker_options import prepared, readable_name, worker_options
from rqmem.config.parsers import positive_int
from rqmem.errors import ConfigError

_MOST_WORKERS = 4096


def _count(text: str, name: str) -> int:
    count = positive_int(text, name)
    if count > _MOST_WORKERS:
        raise ConfigError(f"{name}={text!r}: a pool runs at most {_MOST_WORKERS} workers")
    return count


def _workers(text: str, name: str) -> int:
    """A number above 0, or ``auto``: one for each processor that this process may use."""
    return len(os.sched_getaffinity(0)) if text.strip().lower() == "auto" else _count(text, name)


def _between(text: str, name: str) -> tuple[int, int]:
    """Two numbers above 0, the smaller one first."""
    least_text, comma, most_text = text.partition(",")
    if not comma:
        raise ConfigError(f"{name}={text!r}: give two numbers, for example 1,8")
    least, most = _count(least_text, name), _count(most_text, name)
    if least > most:
        raise ConfigError(f"{name}={text!r}: the first number is above the second: give {most},{least}")
    return least, most


@click.command(cls=GroupedCommand)
@click.argument("names", metavar="[QUEUES]...", nargs=-1)
@grouped(
    "Pool",
    click.option("--num-workers", "-n", **parsed("COUNT", _workers),
                 help="How many workers; auto: one for each processor.  [default: 1]"),
    click.option("--autoscale", **parsed("MIN,MAX", _between),
                 help="Run between MIN and MAX workers, by how long jobs wait."),
    setting_options("Pool"),
    click.option("--name", help="Its workers are called NAME-1, NAME-2 ..."),
)  # fmt: skip
@worker_options
def pool(
    names: tuple[str, ...], more: tuple[str, ...], num_workers: int | None, autoscale: tuple[int, int] | None,
    **options: Any,
) -> None:  # fmt: skip
    """Run several workers for QUEUES ("default" if none is named).

    As rq worker-pool, with all options of 'rqmem worker'. The workers are
    forked from one parent, so they share the memory of what --preload names.
    One that dies is replaced. One of them moves scheduled jobs to their queues.

    SIGTERM ends them all after the job, or the chunk in hand; a second one at
    once. SIGHUP renews them one after another.

    \b
    rqmem pool high low -n 4 --memory 512 --preload jobs.campaigns
    """
    if num_workers is not None and autoscale is not None:
        raise ConfigError("-n and --autoscale exclude each other: give one of them")
    least, most = autoscale or (num_workers or 1, num_workers or 1)
    from rqmem.worker.pool.memory_worker_pool import MemoryWorkerPool

    read = prepared([*names, *more], options)
    own = {"serializer", "job_class", "queue_class", "exception_handlers", "config"}
    work_options = {**read.work_options, "with_scheduler": True}
    MemoryWorkerPool(
        read.queues,
        read.connect(),
        least,
        read.worker_class,
        most_workers=most,
        name=read.name or readable_name(),
        worker_options={name: value for name, value in read.worker_options.items() if name not in own},
        work_options={name: value for name, value in work_options.items() if name != "burst"},
        **{name: read.worker_options[name] for name in own},
    ).start(burst=read.work_options["burst"], logging_level=read.work_options["logging_level"])
