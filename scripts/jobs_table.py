"""README's table of the six jobs, made from their classes: ``python -m scripts.jobs_table [--update]``.

It stands between two comments, which are left where they are. ``--update`` writes it there.
"""

from __future__ import annotations

from pathlib import Path

import click

from rqmem.cli.config_tables import split_rule
from rqmem.errors import ConfigError, RqmemError
from rqmem.job.declared import Declared, find
from rqmem.units import show_mb

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- table of jobs: python -m scripts.jobs_table --update -->", "<!-- end of the table of jobs -->"
MODULES = (
    "jobs.campaigns", "jobs.campaign_batches", "jobs.training", "jobs.sentiment", "jobs.reminders", "jobs.staff",
)  # fmt: skip

_HEAD = ("job", "what it does", "queue", "ceiling MB", "chunk", "splits", "on breach")
_AFTER = {"fail": "fails", "resume": "goes on", "split": "is cut in two"}


def jobs() -> list[Declared]:
    """The jobs, in the order of their modules. Raises `ConfigError`."""
    return [each for module in MODULES for each in find(module)]


def table() -> str:
    """As Markdown, a line for each job."""
    rows = [_HEAD, ("---",) * len(_HEAD), *(_row(each) for each in jobs())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def in_readme(text: str) -> str:
    """The table that stands in README. Raises `ConfigError` where the two comments are not in it."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ConfigError(f"README.md has no place for the table: write {BEGIN!r} and below it {END!r}, once each")
    return text.partition(BEGIN)[2].partition(END)[0].strip("\n")


def updated(text: str) -> str:
    """README with the table as it is now. Raises `ConfigError`."""
    in_readme(text)
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


def _row(declared: Declared) -> tuple[str, ...]:
    limits = declared.limits
    return (
        f"`{declared.job}`",
        declared.about.rstrip("."),
        declared.queue,
        "the worker's" if limits.memory_limit_mb is None else show_mb(limits.memory_limit_mb),
        "by default" if limits.chunk_size is None else f"{limits.chunk_size:,}",
        split_rule(limits, declared.splits) or "never",
        _AFTER[declared.on_breach],
    )


@click.command()
@click.option("--update", is_flag=True, help="Write it into README.md.")
def main(update: bool) -> None:
    """Print the table of jobs."""
    try:
        if update:
            README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
        else:
            click.echo(table())
    except RqmemError as error:
        click.echo(f"jobs_table: {error}", err=True)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
