"""``rqmem cancel`` and ``rqmem retry``: a job with all its children."""

from __future__ import annotations

import click

from rqmem.cli.terminal import acting, connected, redis_options, show
from rqmem.observe.find import find


@click.command()
@click.argument("job_id")
@redis_options
def cancel(job_id: str, url: str | None) -> None:
    """Cancel what is left of a job and of the children it has split into.

    Waiting jobs are taken back, running ones are asked to stop. What has ended
    stays. The beginning of the id is enough if no other id begins with it.
    """
    connection, _ = connected(url)
    show(acting(connection).cancel(find(connection, job_id)).text)


@click.command()
@click.argument("job_id")
@click.option("--from-start", is_flag=True, help="Forget what it has done: cursors, results, children.")
@redis_options
def retry(job_id: str, from_start: bool, url: str | None) -> None:
    """Run a failed job once more; of one that has split, only the children that failed.

    The job goes on where it stopped. With --from-start it begins again, for example because its data have changed. Then
    finished work is done again, and its children are removed. --from-start also runs a cancelled job, never one that
    runs already. The beginning of the id is enough if no other id begins with it.
    """
    connection, _ = connected(url)
    actor, found = acting(connection), find(connection, job_id)
    show((actor.retry_from_start(found) if from_start else actor.retry(found)).text)
