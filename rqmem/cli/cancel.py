"""``rqmem cancel`` and ``rqmem retry``: a job with all its children."""

from __future__ import annotations

import click

from rqmem.cli.terminal import connected, redis_options, show
from rqmem.inspection.find import find
from rqmem.job import family


@click.command(short_help="Cancel a job and all its children.")
@click.argument("job_id")
@redis_options
def cancel(job_id: str, url: str | None) -> None:
    """Cancel what is left of a job and of the children it has split into.

    What waits is taken back, what runs is told to stop; what has ended stays.
    The beginning of the id will do, where it is the only one.
    """
    connection, _ = connected(url)
    found = find(connection, job_id)
    done = family.cancel(connection, found)
    show(f"job {found}: {_jobs(done.taken_back)} cancelled, {done.stopped} running told to stop")


@click.command(short_help="Run a failed job once more.")
@click.argument("job_id")
@redis_options
def retry(job_id: str, url: str | None) -> None:
    """Run a failed job once more; of one that has split, only the children that failed.

    The beginning of the id will do, where it is the only one.
    """
    connection, _ = connected(url)
    found = find(connection, job_id)
    children = family.retry(connection, found)
    show(f"job {found} is queued again" + (f", for {_jobs(children)} that failed" if children else ""))


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count:,} jobs"
