"""``python -m scripts.bench.reading_rows``: what reading many rows of a database takes, in MB and seconds. Ten minutes.

Orders in a SQLite file, read as objects by a job on a real worker, a fresh one each time, in four ways: everything at
once, page by page with OFFSET, and in chunks of `SqlRows`, fixed and adaptive. ``--output FILE.svg`` draws them.
Ends with 1 when chunks need more memory than they should, and says which. ``--short``: half a minute.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import click

from scripts.bench.measuring import end, own_redis, result_of, work_off
from scripts.bench.row_jobs import ADAPTIVE, CEILING_MB, FIXED, MOST_MB, WAYS, Read, fill
from scripts.bench.worker_runs import How, empty_queue
from scripts.drawing import drawing, output_option

PARTS = (0.01, 0.03, 0.1, 0.3, 1.0)
MOST_MB_IN = {FIXED: 16.0, ADAPTIVE: 0.8 * CEILING_MB}
"""Chunks of one size need the same for any number of rows; adaptive ones grow, to the warning threshold at most."""
_PATIENCE_SECONDS = 1800.0

Table = dict[str, list[Read]]


def read(path: str, way: str, rows: int) -> Read:
    """What `scripts.bench.row_jobs.ReadOrders` measures in a worker of its own."""
    enqueued = empty_queue().enqueue(
        "scripts.bench.row_jobs.ReadOrders.run", path=path, way=way, rows=rows, job_timeout=3600
    )
    work_off(How(MOST_MB).command("--burst"), _PATIENCE_SECONDS)
    done: Read = result_of(enqueued)
    if done.rows != rows:
        raise click.ClickException(f"{way}: {done.rows:,} of {rows:,} rows")
    return done


def middle(runs: list[Read]) -> Read:
    """Medians of some readings of the same rows, which must all have come to the same total."""
    [total] = {run.total for run in runs}
    return Read(runs[0].rows, total, median(run.seconds for run in runs), median(run.growth_mb for run in runs))


def rows_of_all_ways(path: str, counts: list[int], rounds: int) -> Table:
    """Print the table of ways by number of rows, in turns, so that a slow minute of the machine is everybody's."""
    click.echo(
        f"MB above what the job had before, and seconds; medians of {rounds}; ceiling of chunks {CEILING_MB} MB\n"
    )
    click.echo(f"{'':<24}" + "".join(f"{f'{count:,} rows':>19}" for count in counts))
    click.echo(f"{'':<24}" + f"{'MB':>10}{'s':>9}" * len(counts))
    found: dict[tuple[str, int], list[Read]] = {}
    for _, count, way in itertools.product(range(rounds), counts, WAYS):
        found.setdefault((way, count), []).append(read(path, way, count))
    table = {way: [middle(found[way, count]) for count in counts] for way in WAYS}
    for way, cells in table.items():
        click.echo(f"{way:<24}" + "".join(f"{cell.growth_mb:>10.1f}{cell.seconds:>9.2f}" for cell in cells))
    return table


def faults(table: Table) -> list[str]:
    return [
        f"{way}: {cell.growth_mb:.0f} MB for {cell.rows:,} rows, {most_mb:.0f} allowed"
        for way, most_mb in MOST_MB_IN.items()
        for cell in table[way]
        if cell.growth_mb > most_mb
    ]


def draw(table: Table, figure: Any) -> None:
    memory, time = figure.subplots(1, 2)
    for way, cells in table.items():
        rows, style = [cell.rows for cell in cells], "-o" if way in MOST_MB_IN else "--o"
        memory.plot(rows, [max(cell.growth_mb, 0.1) for cell in cells], style, label=way, markersize=3)
        time.plot(rows, [cell.seconds for cell in cells], style, markersize=3)
    memory.axhline(CEILING_MB, color="tab:red", linewidth=1, label="ceiling of the chunks' jobs")
    memory.set_title("peak MB, above what the job had before", loc="left")
    time.set_title("seconds", loc="left")
    for axes in (memory, time):
        axes.set(xscale="log", yscale="log", xlabel="rows")
        axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=5)


@click.command()
@output_option
@click.option("--rows", type=click.IntRange(1000), default=1_000_000, show_default=True, help="Of the largest reading.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--short", is_flag=True, help="20,000 rows, one round.")
def main(output: Path | None, rows: int, rounds: int, short: bool) -> None:
    """Print the table, and draw it."""
    if short:
        rows, rounds = 20_000, 1
    counts = [int(part * rows) for part in PARTS]
    with tempfile.TemporaryDirectory() as folder, own_redis():
        path = Path(folder) / "orders.db"
        fill(path, rows)
        table = rows_of_all_ways(str(path), counts[-2:] if short else counts, rounds)
    if output is not None:
        with drawing(output, 10, 3.6) as figure:
            draw(table, figure)
    end(faults(table))


if __name__ == "__main__":
    main()
