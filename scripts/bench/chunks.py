"""``python -m scripts.bench.chunks``: what chunks cost: 10 million integers with 10 us of work each. Five minutes.

The jobs run on a real worker. They are resumable, so each chunk saves its cursor. Each form of chunks goes through all
items in one job, which must stay as small as it was after a tenth of the items. Ends with 1 if something is outside the
budget of the design, and says what. ``--short``: half a minute.
"""

from __future__ import annotations

import time
import timeit

import click

from scripts.bench.chunk_jobs import WAYS, Loop, go_through
from scripts.bench.measuring import end, own_redis, result_of, work_off
from scripts.bench.worker_runs import How, empty_queue

ITEM_SECONDS = 10e-6
MOST_OVERHEAD, MOST_GROWTH_MB = 0.02, 4.0
_SLOWER = 20  # than the work alone, before the worker is given up
_CALIBRATION_ITEMS, _CALIBRATIONS = 2000, 9


def turns_of_an_item() -> int:
    """Turns of an item in `go_through` that take `ITEM_SECONDS` of CPU here, by the quickest of some calibrations."""
    turns = 500
    numbers = range(_CALIBRATION_ITEMS)
    timer = timeit.Timer(lambda: go_through(numbers, turns), timer=time.process_time)  # others may have the processor
    took = min(timer.repeat(_CALIBRATIONS, 1))
    return max(1, round(turns * ITEM_SECONDS * _CALIBRATION_ITEMS / took))


def measured(way: str, count: int, turns: int) -> Loop:
    """What a job measures that goes through ``count`` items, in a worker of its own."""
    job = empty_queue().enqueue(
        "scripts.bench.chunk_jobs.GoThrough.run", way=way, count=count, turns=turns, job_timeout=3600
    )
    work_off(How(256).command("--burst"), 60 + _SLOWER * count * ITEM_SECONDS)
    loop: Loop = result_of(job)
    if loop.items != count:
        raise click.ClickException(f"{way}: {loop.items:,} of {count:,} items")
    return loop


def table(count: int, turns: int) -> list[str]:
    """Print the table; returns what is outside the budget."""
    click.echo(f"{count:,} items in one job: what passes between chunks, and resident MB of the work-horse\n")
    click.echo(f"{'':<20}{'between chunks':>20}{'items a':>10}{'MB at':>9}{'after':>9}{'at the':>9}")
    click.echo(f"{'':<20}{'time':>10}{'CPU':>10}{'chunk':>10}{'start':>9}{'a tenth':>9}{'end':>9}{'peak':>9}")
    outside = []
    for way in WAYS:
        loop = measured(way, count, turns)
        between = loop.whole.seconds / loop.inside.seconds - 1
        cpu = loop.whole.cpu_seconds / loop.inside.cpu_seconds - 1
        click.echo(
            f"{way:<20}{between:>10.2%}{cpu:>10.2%}{loop.items / loop.chunks:>10,.0f}"
            f"{loop.start_mb:>9.1f}{loop.early_mb:>9.1f}{loop.end_mb:>9.1f}{loop.peak_mb:>9.1f}"
        )
        growth_mb = loop.end_mb - loop.early_mb
        if between > MOST_OVERHEAD:
            outside.append(f"{way}: {between:.1%} of the items' time between chunks, {MOST_OVERHEAD:.0%} allowed")
        if growth_mb > MOST_GROWTH_MB:
            outside.append(f"{way}: grew by {growth_mb:.1f} MB after the first tenth, {MOST_GROWTH_MB:.0f} allowed")
    return outside


@click.command()
@click.option("--items", type=click.IntRange(1000), default=10_000_000, show_default=True)
@click.option("--short", is_flag=True, help="500,000 items.")
def main(items: int, short: bool) -> None:
    """Print the table."""
    turns = turns_of_an_item()
    with own_redis():
        outside = table(500_000 if short else items, turns)
    end(outside)


if __name__ == "__main__":
    main()
