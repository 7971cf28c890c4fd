"""``rqmem worker``: runs one `MemoryWorker`."""

from __future__ import annotations

from typing import Any

import click

from rqmem.cli.options import GroupedCommand, grouped
from rqmem.cli.worker_options import prepared, readable_name, worker_options


@click.command(cls=GroupedCommand)
@click.argument("names", metavar="[QUEUES]...", nargs=-1)
@worker_options
@grouped("RQ", click.option("--name", "-n", help="Name of the worker."))
def worker(names: tuple[str, ...], more: tuple[str, ...], **options: Any) -> None:
    """Run the jobs of one or more QUEUES ("default" if none is named).

    Jobs run in a process of their own, the horse. Each job has a memory
    ceiling: the lower one of --memory and what the job declares. A job that
    reaches it is stopped, and the log says why. Then the worker runs the next.

    On SIGUSR2 the worker writes a snapshot of itself and its job to a file in
    --profile-dir. A line of the log names the file.

    \b
    rqmem worker --queue campaigns --memory 256
    rqmem worker high low --memory 512 --with-scheduler
    """
    read = prepared([*names, *more], options)
    instance = read.worker_class(
        read.queues, name=read.name or readable_name(), connection=read.connect(), **read.worker_options
    )
    instance.work(**read.work_options)
