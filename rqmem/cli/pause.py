"""``rqmem pause`` and ``rqmem resume``: one queue."""

from __future__ import annotations

import click

from rqmem.cli.auditing import note
from rqmem.cli.terminal import connected, redis_options, show
from rqmem.observe.snapshot import known_queues
from rqmem.store import pausing
from rqmem.text import did_you_mean

_STOCK = "a stock 'rq worker' does not know of it"


@click.command()
@click.argument("queue")
@redis_options
def pause(queue: str, url: str | None) -> None:
    """Let workers take no more jobs from a queue.

    Jobs that run go on, and jobs can be enqueued. 'rqmem resume QUEUE' ends it. Workers of rqmem hear of it within a
    second; a stock 'rq worker' does not know of it.
    """
    connection, _ = connected(url)
    known = known_queues(connection)
    if not pausing.pause(connection, queue):
        show(f"queue {queue} is paused already")
        return
    text = f"queue {queue} is paused: workers of rqmem take no job from it until 'rqmem resume {queue}'; {_STOCK}"
    note(connection, "pause", text, queue=queue)
    show(text)
    if queue not in known:
        near = did_you_mean(queue, known)
        show(f"RQ knows no queue of that name yet{f': {near}' if near else ''}")


@click.command()
@click.argument("queue")
@redis_options
def resume(queue: str, url: str | None) -> None:
    """Let workers take jobs again from a queue that is paused."""
    connection, _ = connected(url)
    if not pausing.resume(connection, queue):
        paused = sorted(pausing.paused(connection))
        show(f"queue {queue} is not paused" + (f"; paused are: {', '.join(paused)}" if paused else ""))
        return
    text = f"queue {queue} goes on"
    note(connection, "resume", text, queue=queue)
    show(text)
