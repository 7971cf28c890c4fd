"""Shows how the chunk size adapts: ``python -m scripts.chunk_size_plot --output chunk_size.svg``.

Runs the simulated jobs (`scripts.simulated_jobs`) under one ceiling, prints what adaptive and fixed sizes cost, and
draws chunk size and memory over time, one pair of panels a kind of job. Nothing is measured on this machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rqmem.units import MB
from scripts.drawing import drawing, output_option
from scripts.simulated_jobs import BASELINE_MB, WARNING_FRACTION, Run, catalogue, run

DECLARED = 100
FIXED = (10, 100, 1000, 10_000)
COLUMNS = 3


@click.command()
@output_option
@click.option(
    "--ceiling", "ceiling_mb", type=click.IntRange(min=BASELINE_MB + 36), default=128, show_default=True, metavar="MB"
)
@click.option("--items", type=click.IntRange(min=1000), default=100_000, show_default=True, help="Items of most jobs.")
@click.option("--seed", type=int, default=1, show_default=True)
def main(output: Path | None, ceiling_mb: int, items: int, seed: int) -> None:
    """Simulate how the chunk size adapts to kinds of jobs; print a table, and draw it."""
    jobs = catalogue(items, seed)
    click.echo(
        f"Ceiling {ceiling_mb} MB, of which {BASELINE_MB} MB are used before the job. Adaptive chunks begin with"
    )
    click.echo(f"{DECLARED} items. Breaches, and overhead (time between chunks and lost in breaches, as a fraction of")
    click.echo("the items' own):\n")
    click.echo(f"{'':<16}{'adaptive':>13}" + "".join(f"{f'fixed {size:,}':>16}" for size in FIXED))
    runs = [run(job, ceiling_mb, DECLARED) for job in jobs]
    for job, adaptive in zip(jobs, runs, strict=True):
        fixed = [run(job, ceiling_mb, size, adaptive=False) for size in FIXED]
        click.echo(f"{job.name:<16}{_cell(adaptive):>13}" + "".join(f"{_cell(each):>16}" for each in fixed))
    if output is not None:
        rows = -(-len(runs) // COLUMNS)
        with drawing(output, 5 * COLUMNS, 3.2 * rows) as figure:
            _draw(figure, rows, runs, ceiling_mb)


def _cell(done: Run) -> str:
    return f"{done.breaches or '-'}  {done.overhead:>7.1%}"


def _draw(figure: Any, rows: int, runs: list[Run], ceiling_mb: int) -> None:
    for done, part in zip(runs, figure.subfigures(rows, COLUMNS, squeeze=False).flat, strict=False):
        memory, size = part.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        memory.set_title(f"{done.job.name}: breaches {done.breaches}, overhead {done.overhead:.1%}", loc="left")
        _draw_memory(memory, done, ceiling_mb)
        _draw_size(size, done)
    handles, labels = memory.get_legend_handles_labels()
    more, named = size.get_legend_handles_labels()
    figure.legend(handles + more, labels + named, loc="outside lower right", ncols=7)


def _draw_memory(axes: Any, done: Run, ceiling_mb: int) -> None:
    steps = [done.steps[0], *done.steps]  # a step is drawn from the end of the one before
    times = [0.0, *(step.at_seconds for step in done.steps)]
    low, high = [step.before / MB for step in steps], [step.peak / MB for step in steps]
    axes.axhline(ceiling_mb, color="tab:red", label="ceiling")
    axes.axhline(WARNING_FRACTION * ceiling_mb, color="tab:orange", linestyle="--", label="warning")
    axes.fill_between(times, 0, low, step="pre", color="tab:blue", alpha=0.2, linewidth=0, label="before the chunk")
    axes.fill_between(times, low, high, step="pre", color="tab:blue", alpha=0.7, linewidth=0, label="its peak")
    stopped = [step.at_seconds for step in done.steps if step.breached]
    axes.plot(stopped, [ceiling_mb] * len(stopped), "x", color="black", markersize=5, label="breach")
    axes.set_ylim(0, 1.1 * ceiling_mb)
    axes.set_ylabel("MB")


def _draw_size(axes: Any, done: Run) -> None:
    sizes = [step.items for step in done.steps]
    times = [0.0, *(step.at_seconds for step in done.steps)]
    axes.step(times, [sizes[0], *sizes], where="pre", color="tab:green", linewidth=1, label="items of the chunk")
    axes.axhline(DECLARED, color="grey", linestyle=":", label="declared")
    axes.set_yscale("log")
    axes.set_ylim(0.8, 3 * max(sizes))
    axes.set_ylabel("items")
    axes.set_xlabel("seconds")


if __name__ == "__main__":
    main()
