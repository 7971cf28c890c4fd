"""Seeds a large dataset: ``python -m seeds.large_dataset --customers 1000000 --transcripts 50000``.

Streams: memory is the same for a thousand rows and for a million. The same seed makes the same rows on every machine;
appointments begin on the day of the first run, or on the day named.
A run may be cut off at any moment; ``--resume`` goes on with it, and nothing is written twice. It also adds to a
dataset that is whole, where more is asked for.
"""

from __future__ import annotations

import sys
import time
from datetime import date, datetime
from pathlib import Path

import click
from sqlalchemy.engine import Engine

from jobs.database import create_schema, open_database
from rqmem.errors import ConfigError
from seeds import ledger
from seeds.command_errors import one_line_errors
from seeds.dataset_parts import Wanted, parts
from seeds.filling import FilePart, TablePart, fill_file, fill_table, refuse_what_is_not_ours

COUNT = click.IntRange(min=0)


@click.command()
@click.option("--customers", type=COUNT, default=100_000, show_default=True, help="Of one campaign.")
@click.option("--transcripts", type=COUNT, default=20_000, show_default=True, help="Calls with their transcripts.")
@click.option("--appointments", type=COUNT, default=20_000, show_default=True, help="To be reminded of.")
@click.option(
    "--appointments-from",
    type=click.DateTime(["%Y-%m-%d"]),
    default=lambda: str(date.today()),
    show_default="today",
    help="Day of the first ones; the last are two weeks later.",
)
@click.option("--assignments", type=COUNT, default=20_000, show_default=True, help="Lines of the file of assignments.")
@click.option("--training-rows", type=COUNT, default=100_000, show_default=True, help="Lines of the training file.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=7, show_default=True, help="The same: same rows.")
@click.option("--database-url", help="Instead of DATABASE_URL; by default sqlite:///rqmem-app.db.")
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), default=".", show_default=True, help="For files."
)
@click.option("--resume", is_flag=True, help="Continue with what was begun; nothing is written twice.")
@click.option("--quiet", is_flag=True, help="No progress.")
def main(
    seed: int,
    database_url: str | None,
    folder: Path,
    appointments_from: datetime,
    resume: bool,
    quiet: bool,
    **counts: int,
) -> None:
    """Fill the database and files of the reference application with made-up data.

    0 leaves a part out. Prints a line for each part.
    """
    with one_line_errors(go_on="--resume goes on"):
        wanted = Wanted(**counts, appointments_from=appointments_from.date())
        engine = open_database(database_url)
        create_schema(engine)
        create_schema(engine, ledger.METADATA)
        check(engine, seed, resume)
        folder.mkdir(parents=True, exist_ok=True)
        planned = parts(wanted, folder)
        for part, _ in planned:
            if isinstance(part, FilePart):
                refuse_what_is_not_ours(engine, part)  # now, not after a million rows of the tables
        for part, count in planned:
            fill(engine, part, seed, count, quiet=quiet)


def check(engine: Engine, seed: int, resume: bool) -> None:
    """Raise `ConfigError` if the database holds a dataset, unless ``resume`` is set and the seed is the same."""
    with engine.connect() as connection:
        begun = ledger.entries(connection)
    if begun and not resume:
        raise ConfigError(f"this database holds a dataset of seed {begun[0].seed}: --resume goes on with it")
    if begun and begun[0].seed != seed:
        raise ConfigError(f"this database holds a dataset of seed {begun[0].seed}, not {seed}: give that one")


def fill(engine: Engine, part: TablePart | FilePart, seed: int, count: int, *, quiet: bool) -> None:
    """Write what is missing of one part, and say so."""
    with engine.connect() as connection:
        entry = ledger.read(connection, part.key)
    before = entry.done if entry else 0
    hidden = quiet or not sys.stderr.isatty()
    started = time.monotonic()
    written = 0

    def rate(_: object = None) -> str:
        return f"{written / max(time.monotonic() - started, 1e-3):,.0f}/s"

    label = f"{part.name}, from {before:,}" if before else part.name
    with click.progressbar(
        length=max(0, count - before), label=label, file=sys.stderr, hidden=hidden, item_show_func=rate
    ) as bar:

        def on_batch(rows: int) -> None:
            nonlocal written
            written += rows
            bar.update(rows, rows)

        if isinstance(part, FilePart):
            fill_file(engine, part, seed, count, on_batch)
        else:
            fill_table(engine, part, seed, count, on_batch)
    there = f"in {part.path}" if isinstance(part, FilePart) else f"in table {part.table.name}"
    seconds = time.monotonic() - started
    new = f"{written:,} of them now, " if before else ""
    how = f"{new}in {seconds:.1f} s ({rate()})" if written else "all of them from before"
    click.echo(f"{part.name:<14}{max(count, before):>12,} {there}: {how}")


if __name__ == "__main__":
    main(prog_name="python -m seeds.large_dataset")
