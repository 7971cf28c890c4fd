"""``rqmem pool``: runs several `MemoryWorker`s, forked from one parent."""

from __future__ import annotations

import os
from typing import Any

import click

from rqmem.cli.options import GroupedCommand, grouped, parsed, setting_options
from rqmem.cli.worker_options import prepared, readable_name, worker_options
from rqmem.config.parsers import positive_int


def _workers(text: str, name: str) -> int:
    """A number above 0, or ``auto``: one for each processor that this process may use."""
    return len(os.sched_getaffinity(0)) if text.strip().lower() == "auto" else positive_int(text, name)


@click.command(cls=GroupedCommand)
@click.argument("names", metavar="[QUEUES]...", nargs=-1)
@grouped(
    "Pool",
    click.option("--num-workers", "-n", **parsed("COUNT", _workers), default="1", show_default=True,
                 help="How many workers; auto: one for each processor."),
    setting_options("Pool"),
    click.option("--name", help="Its workers are called NAME-1, NAME-2 ..."),
)  # fmt: skip
@worker_options
def pool(names: tuple[str, ...], more: tuple[str, ...], num_workers: int, **options: Any) -> None:
    """Run several workers for QUEUES ("default" if none is named).

    As rq worker-pool, with all options of 'rqmem worker'. The workers are
    forked from one parent, so they share the memory of what --preload names.
    One that dies is replaced. One of them moves scheduled jobs to their queues.

    SIGTERM ends them all after the job, or the chunk in hand; a second one at
    once. SIGHUP renews them one after another.

    \b
    rqmem pool high low -n 4 --memory 512 --preload jobs.campaigns
    """
    from rqmem.worker.pool.memory_worker_pool import MemoryWorkerPool

    read = prepared([*names, *more], options)
    own = {"serializer", "job_class", "queue_class", "exception_handlers", "config"}
    work_options = {**read.work_options, "with_scheduler": True}
    MemoryWorkerPool(
        read.queues,
        read.connect(),
        num_workers,
        read.worker_class,
        name=read.name or readable_name(),
        new_connection=read.connect,
        worker_options={name: value for name, value in read.worker_options.items() if name not in own},
        work_options={name: value for name, value in work_options.items() if name != "burst"},
        **{name: read.worker_options[name] for name in own},
    ).start(burst=read.work_options["burst"], logging_level=read.work_options["logging_level"])
