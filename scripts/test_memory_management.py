"""Tries each mechanism for real: ``python -m scripts.test_memory_management``.

The mechanisms are tracking, collection, ceiling, chunking, splitting, resume and alert. For each, a small job runs on a
real worker with default settings, on the Redis that rqmem uses here. Prints a line with figures for each; takes about
15 seconds. Exit code 0: all hold; 1: one does not, or the worker failed.

Queue, worker and jobs have names of their own. At the end they are removed, and their history too. If other workers on
that Redis send alerts, the alerts of this script are sent too.
"""

from __future__ import annotations

import os
import signal
import sys

import click

import rqmem
from rqmem.store.history import history_reader
from scripts.harness import MB
from scripts.mechanisms.own_worker import forget, new_mark, own_worker
from scripts.mechanisms.verdicts import Verdict
from scripts.mechanisms.walk import JOB_TYPES, Walk
from seeds.command_errors import one_line_errors

_LINES = 30  # of the worker's log, shown when something does not hold


@click.command()
@click.option("--url", help="URL of Redis; by default the one rqmem's commands use.")
@click.option("--memory", **MB, default="128", show_default=True, help="The worker's ceiling in MB, 96 at least.")
def main(url: str | None, memory: float) -> None:
    """Walk through rqmem's mechanisms on a real worker, and say of each whether it holds."""
    if memory < 96:
        raise click.UsageError(f"--memory {memory:g}: give 96 MB at least, since jobs here hold 40 MB on top of Python")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what is ours is removed
    if url:
        os.environ["RQMEM_REDIS_URL"] = url
    with one_line_errors("test_memory_management"):
        found = walk(memory)
    failed = [verdict.mechanism for verdict in found if not verdict.holds]
    click.echo(f"{len(found) - len(failed)} of {len(found)} mechanisms hold")
    raise SystemExit(1 if failed else 0)


def walk(memory_mb: float) -> list[Verdict]:
    """All verdicts, printed as they are known. Raises `RqmemError`. Nothing of it is left in Redis afterwards."""
    found: list[Verdict] = []
    mark = new_mark()
    with rqmem.connect(announce=lambda line: click.echo(line, err=True)) as connection:
        history_reader.check_version(connection)
        forget(connection, mark, JOB_TYPES)  # what a run that was killed left: its alerts would keep ours quiet
        try:
            with own_worker(mark, memory_mb) as worker:
                for verdict in Walk(connection, worker, mark, memory_mb).verdicts():
                    click.secho(verdict.line, fg=None if verdict.holds else "red")
                    found.append(verdict)
                if not all(verdict.holds for verdict in found):
                    click.echo(
                        "\n".join(["", "the worker's last lines:", *worker.log().splitlines()[-_LINES:]]), err=True
                    )
        finally:
            forget(connection, mark, JOB_TYPES)
    return found


if __name__ == "__main__":
    main(prog_name="python -m scripts.test_memory_management")
