"""``rqmem pause`` and ``rqmem resume``: one queue."""

from __future__ import annotations

import click

from rqmem.cli.terminal import acting, connected, redis_options, show
from rqmem.observe.snapshot import known_queues
from rqmem.store import pausing
from rqmem.text import did_you_mean


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
    done = acting(connection).pause(queue)
    show(done.text, *([f"'rqmem resume {queue}' ends it"] if done.count else []))
    if done.count and queue not in known:
        near = did_you_mean(queue, known)
        show(f"RQ knows no queue of that name yet{f': {near}' if near else ''}")


@click.command()
@click.argument("queue")
@redis_options
def resume(queue: str, url: str | None) -> None:
    """Let workers take jobs again from a queue that is paused."""
    connection, _ = connected(url)
    done, paused = acting(connection).resume(queue), sorted(pausing.paused(connection))
    show(done.text if done.count or not paused else f"{done.text}; paused are: {', '.join(paused)}")
