"""``python -m scripts.bench.chunks``: what chunks cost: 10 million integers with 10 us of work each. Ten minutes.

The jobs run on a real worker. They are resumable, so each chunk saves its cursor. First each form of chunks works
through all items in ten jobs, in turns with the same work by hand (`scripts.bench.chunk_jobs.GoThrough`). Then each
form does so in one job, which must stay as small as it was after a tenth of the items. Ends with 1 if something is
outside the budget of the design, and says what. ``--short``: half a minute.
"""

from __future__ import annotations

import time
import timeit
from collections.abc import Sequence
from statistics import median

import click

from scripts.bench.chunk_jobs import WAYS, Loop, go_through
from scripts.bench.measuring import end, own_redis, result_of, work_off
from scripts.bench.worker_runs import How, empty_queue

ITEM_SECONDS = 10e-6
MOST_OVERHEAD, MOST_GROWTH_MB = 0.02, 4.0
HOW = How(256)
_SLOWER = 20  # than the work alone, before the worker is given up
_CALIBRATION_ITEMS, _CALIBRATIONS = 2000, 9


def turns_of_an_item() -> int:
    """Turns of an item in `go_through` that take `ITEM_SECONDS` of CPU here, by the quickest of some calibrations."""
    turns = 500
    numbers = range(_CALIBRATION_ITEMS)
    timer = timeit.Timer(lambda: go_through(numbers, turns), timer=time.process_time)  # others may have the processor
    took = min(timer.repeat(_CALIBRATIONS, 1))
    return max(1, round(turns * ITEM_SECONDS * _CALIBRATION_ITEMS / took))


def loops(ways: Sequence[str], count: int, turns: int, *, in_turns: bool = False) -> list[Loop]:
    """What jobs measure that go through ``count`` items, one after the other in one worker, in these ways."""
    queue = empty_queue()
    arguments = [{"way": way, "count": count, "turns": turns, "in_turns": in_turns} for way in ways]
    path = "scripts.bench.chunk_jobs.GoThrough.run"
    jobs = [queue.enqueue(path, kwargs=each, job_timeout=3600, result_ttl=-1) for each in arguments]  # read at the end
    work_off(HOW.command("--burst"), 60 + _SLOWER * len(ways) * count * ITEM_SECONDS)
    done: list[Loop] = [result_of(job) for job in jobs]
    for way, loop in zip(ways, done, strict=True):
        if loop.items != count:
            raise click.ClickException(f"{way}: {loop.items:,} of {count:,} items")
    return done


def overhead(count: int, rounds: int, turns: int) -> list[str]:
    """The table of times; returns what is outside the budget."""
    click.echo(
        f"{count:,} items in {rounds} jobs each way; medians. What chunks add to the time and to the CPU: to the"
    )
    click.echo("same work by hand, in turns with each chunk, and as what passes between chunks\n")
    click.echo(f"{'':<20}{'us an item':>12}{'to by hand':>20}{'between chunks':>21}{'items':>10}")
    click.echo(f"{'':<20}{'by hand':>12}{'time':>10}{'CPU':>10}{'time':>11}{'CPU':>10}{'a chunk':>10}")
    order = [way for _ in range(rounds) for way in WAYS]
    done = loops(order, count // rounds, turns, in_turns=True)
    outside = []
    for number, way in enumerate(WAYS):
        found = done[number :: len(WAYS)]
        share = median(each.whole.seconds / each.by_hand.seconds for each in found) - 1
        cpu = median(each.whole.cpu_seconds / each.by_hand.cpu_seconds for each in found) - 1
        between = median(each.whole.seconds / each.inside.seconds for each in found) - 1
        between_cpu = median(each.whole.cpu_seconds / each.inside.cpu_seconds for each in found) - 1
        click.echo(
            f"{way:<20}{1e6 * median(each.by_hand.seconds / each.items for each in found):>12.3f}"
            f"{share:>+10.2%}{cpu:>+10.2%}{between:>11.2%}{between_cpu:>10.2%}"
            f"{round(median(each.items / each.chunks for each in found)):>10,}"
        )
        if share > MOST_OVERHEAD:
            outside.append(f"{way}: takes {share:.1%} longer than by hand, {MOST_OVERHEAD:.0%} allowed")
    return outside


def memory(count: int, turns: int) -> list[str]:
    """The table of sizes; returns what is outside the budget."""
    click.echo(f"\n{count:,} items in one job; resident MB of the work-horse\n")
    click.echo(f"{'':<20}{'start':>7}{'after a tenth':>17}{'end':>7}{'peak':>7}{'between chunks':>18}{'chunks':>8}")
    outside = []
    for way in WAYS:  # each in a worker of its own: what one leaves is no start for the other
        [loop] = loops([way], count, turns)
        click.echo(
            f"{way:<20}{loop.start_mb:>7.1f}{loop.early_mb:>17.1f}{loop.end_mb:>7.1f}{loop.peak_mb:>7.1f}"
            f"{loop.whole.cpu_seconds / loop.inside.cpu_seconds - 1:>14.2%} CPU{loop.chunks:>8,}"
        )
        growth = loop.end_mb - loop.early_mb
        if growth > MOST_GROWTH_MB:
            outside.append(f"{way}: grew by {growth:.1f} MB after the first tenth, {MOST_GROWTH_MB:.0f} allowed")
    return outside


@click.command()
@click.option("--items", type=click.IntRange(1000), default=10_000_000, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True, help="Jobs of each way.")
@click.option("--short", is_flag=True, help="500,000 items in 5 rounds.")
def main(items: int, rounds: int, short: bool) -> None:
    """Print the tables."""
    if short:
        items, rounds = 500_000, 5
    turns = turns_of_an_item()
    with own_redis():
        outside = overhead(items, rounds, turns) + memory(items, turns)
    end(outside)


if __name__ == "__main__":
    main()
