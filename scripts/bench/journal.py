"""``python -m scripts.bench.journal``: what the journal costs, in Redis and in jobs. Ten minutes; ``--short`` one.

Its size after a million runs, and commands and CPU of Redis a job. Real workers on a Redis of its own. Ends with 1 when
something is outside the budget of the design, and says what.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from statistics import median
from typing import Any

import click

from rqmem.store.history import history_reader
from rqmem.units import MB
from scripts.bench import jobs
from scripts.bench.journal_of_a_month import Month
from scripts.bench.measuring import end, own_redis, work_of, work_off
from scripts.bench.worker_runs import QUEUE, empty_queue, stock_worker

MOST_MB, MOST_GROWTH, MOST_CPU_OF_RQ = 64, 1.05, 0.10


def size(runs: int) -> list[str]:
    """The journal after that many runs, and after a fifth more: it must not grow any more."""
    click.echo(f"Size of the journal, {runs:,} runs of {Month.TYPES} job types in 35 days, every 250th with a story\n")
    click.echo(f"{'runs':>10}{'keys':>8}{'MB':>8}   by kind, MB")
    connection = empty_queue().connection
    month = Month(connection, runs)
    taken = {}
    for until in (runs // 10, runs // 2, runs, runs + runs // 5):
        month.go_on_until(until)
        kinds = history_reader.size(connection)
        taken[until] = sum(size_bytes for _, size_bytes in kinds.values()) / MB
        by_kind = ", ".join(f"{kind} {size_bytes / MB:.1f}" for kind, (_, size_bytes) in sorted(kinds.items()))
        click.echo(f"{until:>10,}{sum(count for count, _ in kinds.values()):>8,}{taken[until]:>8.1f}   {by_kind}")
    outside = [f"journal: {mb:.1f} MB, more than {MOST_MB}" for mb in taken.values() if mb > MOST_MB]
    if taken[runs + runs // 5] > MOST_GROWTH * taken[runs]:
        outside.append(f"journal: still grows, from {taken[runs]:.1f} to {taken[runs + runs // 5]:.1f} MB")
    return outside


def costs_in_redis(rounds: int, loads: list[tuple[str, int, Callable[..., Any], tuple[Any, ...]]]) -> list[str]:
    """Commands and Redis CPU a job: rq's worker, ours without the journal, ours with it."""
    ours = ["rqmem", "worker", QUEUE, "--burst", "--log-level", "error"]
    ways = {
        "rq worker": (stock_worker(), "on"),
        "rqmem, no journal": (ours, "off"),
        "rqmem": (ours, "on"),
    }
    outside = []
    for name, count, function, arguments in loads:
        click.echo(f"\n{count} {name} jobs, median of {rounds}{'commands a job':>21}{'Redis CPU us a job':>21}\n")
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(rounds):  # in turns, so that a slow minute of the machine is everybody's
            for way, (command, journal) in ways.items():
                found[way].append(_costs(command, journal, count, function, arguments))
        figures = {way: (median(n for n, _ in each), median(us for _, us in each)) for way, each in found.items()}
        for way, (commands, microseconds) in figures.items():
            click.echo(f"{way:<30}{commands:>20.1f}{microseconds:>21.0f}")
        (_, rq_us), (before, before_us), (after, after_us) = figures.values()
        share = (after_us - before_us) / rq_us
        click.echo(f"the journal adds {after - before:.1f} commands and {100 * share:.1f} % of rq worker's Redis CPU")
        if share > MOST_CPU_OF_RQ:
            outside.append(f"journal: adds {100 * share:.0f} % of rq worker's Redis CPU to {name} jobs")
    return outside


def _costs(
    command: list[str], journal: str, count: int, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[float, float]:
    """Redis commands a job, and microseconds of Redis CPU a job, of a worker that runs ``count`` jobs."""
    queue = empty_queue()
    for _ in range(count):
        queue.enqueue(function, *arguments)
    os.environ["RQMEM_JOURNAL"] = journal
    commands, seconds = work_of(queue.connection)
    ended = work_off(command)
    if queue.count:
        raise click.ClickException(f"{' '.join(command[:2])} did not work off its queue: {ended.last_line}")
    commands_then, seconds_then = work_of(queue.connection)
    return (commands_then - commands) / count, 1e6 * (seconds_then - seconds) / count


@click.command()
@click.option("--runs", type=click.IntRange(1000), default=1_000_000, show_default=True, help="Runs remembered.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Runs of each load.")
@click.option("--jobs", "count", type=click.IntRange(10), default=1000, show_default=True, help="No-op jobs a run.")
@click.option("--short", is_flag=True, help="A fiftieth of it, to see that it works.")
def main(runs: int, rounds: int, count: int, short: bool) -> None:
    """Print the tables."""
    if short:
        runs, rounds, count = runs // 50, 1, count // 5
    loads: list[tuple[str, int, Callable[..., Any], tuple[Any, ...]]] = [
        ("no-op", count, jobs.nothing, ()),
        ("50 ms", count // 5, jobs.work_for, (0.05,)),
    ]
    with own_redis():
        outside = size(runs) + costs_in_redis(rounds, loads)
    end(outside)


if __name__ == "__main__":
    main()
