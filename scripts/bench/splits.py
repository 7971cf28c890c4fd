"""``python -m scripts.bench.splits``: what it costs to split, run and gather 1,000, 10,000 and 100,000 children.

Children of one item each, on a real worker and a Redis of its own: time and Redis commands a child, Redis memory of a
child that waits, growth of the parent while it splits. A worker is started twice for each tree: between the two all
children are there, and none has run. Ends with 1 if something is outside the budget of the design, and says what.
``--short``: half a minute.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import mean, median
from typing import Any

import click
from redis import Redis
from rq.job import Job, JobStatus

from rqmem import child_ids
from scripts.bench.measuring import end, own_redis, result_of, used_bytes, work_of, work_off
from scripts.bench.split_jobs import Phases
from scripts.bench.worker_runs import How, empty_queue

MOST_GROWN = 1.2  # time a child among many, against among few
MOST_LIVE_KB, MOST_GROWTH_MB = 2.5, 8.0
SMALL_PART = 0.01  # of a child's time: a smaller part is printed, but not judged by itself
HOW = How(256)
_SAMPLE = 200
_START_SECONDS, _CHILD_SECONDS = 60.0, 0.2  # before a worker is given up


@dataclass(frozen=True)
class Tree:
    """What a job with its children took; times and commands a child, Redis memory a child that waits.

    ``hash_kb`` is RQ's own hash of the job, ``other_kb`` all else.
    """

    children: int
    split_us: float
    run_us: float
    gather_us: float
    commands: float
    hash_kb: float
    other_kb: float
    growth_mb: float

    @property
    def all_us(self) -> float:
        return self.split_us + self.run_us + self.gather_us


def grow(connection: Redis, children: int) -> Tree:
    """Have a job split into ``children``, run them, and gather."""
    queue = empty_queue()
    patience, (commands, _) = _patience(children), work_of(connection)
    job = queue.enqueue("scripts.bench.split_jobs.SumUp.run", kwargs={"numbers": children}, job_timeout=int(patience))
    before = used_bytes(connection)
    work_off(HOW.command("--burst", "--max-jobs", "1"), patience)
    if job.get_status() != JobStatus.DEFERRED:
        result_of(job)  # which says why
    if queue.count != children:
        raise click.ClickException(f"after the split {queue.count:,} of {children:,} children wait")
    live_bytes = (used_bytes(connection) - before) / children
    hash_bytes = mean(_hash_bytes(connection, job.id, number) for number in _spread(children))
    work_off(HOW.command("--burst"), patience)
    phases: Phases = result_of(job)
    if phases.total != sum(range(children)):
        raise click.ClickException(f"{children:,} children gathered {phases.total:,}")
    return Tree(
        children=children,
        split_us=1e6 * phases.split_seconds / children,
        run_us=1e6 * phases.run_seconds / children,
        gather_us=1e6 * phases.gather_seconds / children,
        commands=(work_of(connection)[0] - commands) / children,
        hash_kb=hash_bytes / 1024,
        other_kb=(live_bytes - hash_bytes) / 1024,
        growth_mb=phases.growth_mb,
    )


def _hash_bytes(connection: Redis, parent_id: str, number: int) -> int:
    taken: Any = connection.memory_usage(Job.key_for(child_ids.child_id(parent_id, number)), samples=0)
    return int(taken)


def _spread(children: int) -> range:
    """Numbers of some children, from the first to the last."""
    return range(0, children, max(1, children // _SAMPLE))


def _patience(children: int) -> float:
    return _START_SECONDS + _CHILD_SECONDS * children


def trees(connection: Redis, sizes: Sequence[int], rounds: int) -> list[str]:
    """The table by number of children; returns what is outside the budget."""
    click.echo(f"Children of one item each, medians of {rounds}\n")
    click.echo(
        f"{'':>9}{'us a child':>30}{'commands':>11}{'Redis, KB a waiting child':>27}{'parent':>9}{'all, to':>10}"
    )
    click.echo(
        f"{'children':>9}{'split':>7}{'run':>7}{'gather':>8}{'all':>8}{'a child':>11}"
        f"{'hash of RQ':>14}{'all else':>13}{'grew MB':>9}{'smallest':>10}"
    )
    done: dict[int, list[Tree]] = {size: [] for size in sizes}
    for _, size in itertools.product(range(rounds), sizes):  # in turns: the machine's speed changes
        done[size].append(grow(connection, size))
    medians = [_medians(each) for each in done.values()]
    for tree in medians:
        click.echo(
            f"{tree.children:>9,.0f}{tree.split_us:>7.0f}{tree.run_us:>7.0f}{tree.gather_us:>8.1f}{tree.all_us:>8.0f}"
            f"{tree.commands:>11.1f}{tree.hash_kb:>14.2f}{tree.other_kb:>13.2f}{tree.growth_mb:>9.1f}"
            f"{tree.all_us / medians[0].all_us:>10.2f}"
        )
    return [fault for tree in medians for fault in faults(tree, medians[0])]


def _medians(done: Sequence[Tree]) -> Tree:
    return Tree(*(median(getattr(each, field.name) for each in done) for field in fields(Tree)))


def faults(tree: Tree, smallest: Tree) -> list[str]:
    """What is outside the budget. Small parts of a child's time are not judged."""
    outside = []
    for part in ("split", "run", "gather", "all"):
        few, many = getattr(smallest, f"{part}_us"), getattr(tree, f"{part}_us")
        if many > MOST_GROWN * few and many > SMALL_PART * tree.all_us:
            outside.append(
                f"{tree.children:,} children, {part}: {many:.1f} us each, {many / few:.2f} times that of "
                f"{smallest.children:,}"
            )
    if tree.other_kb > MOST_LIVE_KB:
        outside.append(f"{tree.other_kb:.2f} KB of Redis a waiting child on top of RQ's hash, {MOST_LIVE_KB} allowed")
    if tree.growth_mb > MOST_GROWTH_MB:
        outside.append(f"the parent grew by {tree.growth_mb:.1f} MB, {MOST_GROWTH_MB:.0f} allowed")
    return outside


@click.command()
@click.option("--children", type=click.IntRange(100), default=100_000, show_default=True, help="Of the largest tree.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Trees of each size.")
@click.option("--short", is_flag=True, help="400 children.")
def main(children: int, rounds: int, short: bool) -> None:
    """Print the tables."""
    sizes = [children // 100, children // 10, children]
    if short:
        sizes, rounds = [100, 400], 1
    with own_redis() as connection:
        outside = trees(connection, sizes, rounds)
    end(outside)


if __name__ == "__main__":
    main()
