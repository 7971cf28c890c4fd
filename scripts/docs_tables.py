"""What the docs say by themselves: ``python -m scripts.docs_tables [--update]``.

Tables of the settings, the six jobs and the metrics, and the pages of the reference (`scripts.reference`) are made from
the code. Each has its place between two comments in a page. ``--update`` writes them there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from rqmem.cli.config_tables import split_rule
from rqmem.config.settings import SETTINGS, default
from rqmem.errors import ConfigError
from rqmem.job.declared import Declared, find
from rqmem.units import show_mb
from scripts.reference import commands, documents, events, metrics, python_api, redis_keys
from scripts.reference.markdown import table
from seeds.command_errors import one_line_errors

DOCS = Path(__file__).parents[1] / "docs"
MODULES = (
    "jobs.campaigns", "jobs.campaign_batches", "jobs.training", "jobs.sentiment", "jobs.reminders", "jobs.staff",
)  # fmt: skip

_AFTER = {"fail": "fails", "resume": "goes on", "split": "is cut in two"}


def jobs() -> list[Declared]:
    """The jobs, in the order of their modules. Raises `ConfigError`."""
    return [each for module in MODULES for each in find(module)]


def jobs_table() -> str:
    head = ("job", "what it does", "queue", "ceiling MB", "chunk", "splits", "on breach")
    return table(head, [_job(each) for each in jobs()])


def settings_table() -> str:
    rows = []
    for field, setting in SETTINGS.items():
        option = f"; `{setting.options[0]}`" if setting.options else ""
        rows.append((f"`{setting.variable}`", default(field) or "none", setting.help + option))
    return table(("variable", "default", "meaning"), rows)


_FAST, _FIGURES = DOCS / "how-fast.md", DOCS / "throughput.json"
_MEASURED = (
    "noop", "pinned", "durations", "sizes", "latency", "workers", "queues", "depth", "swarm", "children", "enqueue",
)  # fmt: skip


def machine_table() -> str:
    """The chart, and the machine on which the figures of the page were measured."""
    figures = json.loads(_FIGURES.read_text())
    if "noop" not in figures["sections"]:
        return "Nothing is measured yet."
    found = figures["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    rows = [
        ("processors", f"{found['processors']} of {found['processor']}"),
        ("memory", f"{found['memory_gb']} GB"),
        ("software", f"Linux {found['kernel']}, Python {found['python']}, Redis {found['redis_server']}"),
        ("packages", packages),
    ]
    return f"![Jobs a second and processor time a job](pictures/throughput.svg)\n\n{table(('', ''), rows)}"


def measured_table(section: str) -> str:
    """The figures of one section, as ``python -m scripts.bench.throughput`` has written them."""
    found = json.loads(_FIGURES.read_text())["sections"].get(section)
    if found is None:
        return f"Not measured yet: `python -m scripts.bench.throughput --only {section}`."
    head = tuple(found["rows"][0])
    rows = [tuple(_figure(row.get(name, "")) for name in head) for row in found["rows"]]
    busy = f"; the load average before it was {found['load_before']}" if found["load_before"] >= 1 else ""
    return f"{table(head, rows)}\n\nMeasured on {found['at']} in {found['seconds']:,} s{busy}."


def _figure(value: Any) -> str:
    return f"{value:,.10g}" if isinstance(value, int | float) else str(value)


TABLES: dict[str, tuple[Path, Callable[[], str]]] = {
    "settings": (DOCS / "settings.md", settings_table),
    "jobs": (DOCS / "six-jobs.md", jobs_table),
    "metrics": (DOCS / "metrics.md", metrics.page),
    "commands": (DOCS / "reference" / "commands.md", commands.page),
    "python": (DOCS / "reference" / "python.md", python_api.page),
    "documents": (DOCS / "reference" / "json.md", documents.page),
    "events": (DOCS / "reference" / "events.md", events.page),
    "keys": (DOCS / "reference" / "redis-keys.md", redis_keys.page),
    "machine": (_FAST, machine_table),
    **{name: (_FAST, partial(measured_table, name)) for name in _MEASURED},
}
"""Name of a table or page -> where it is, and what makes it."""


def cut_at(begin: str, end: str, text: str) -> tuple[str, str, str]:
    """The page before, between and after two comments. Raises `ConfigError` if they are not in it."""
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ConfigError(f"the page has no place for the table: write {begin!r} and below it {end!r}, once each")
    head, _, rest = text.partition(begin)
    between, _, tail = rest.partition(end)
    return head, between, tail


def in_page(name: str, text: str) -> str:
    """The table that a page has. Raises `ConfigError` if its two comments are not in it."""
    return cut_at(*marks(name), text)[1].strip("\n")


def replaced(begin: str, end: str, text: str, made: str) -> str:
    """The page with what was made between the two comments. Raises `ConfigError`."""
    head, _, tail = cut_at(begin, end, text)
    return f"{head}{begin}\n\n{made}\n\n{end}{tail}"


def marks(name: str) -> tuple[str, str]:
    return f"<!-- table of {name}: python -m scripts.docs_tables --update -->", f"<!-- end of the table of {name} -->"


def _job(declared: Declared) -> tuple[str, ...]:
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
@click.option("--update", is_flag=True, help="Write them into their pages.")
def main(update: bool) -> None:
    """Print the tables."""
    with one_line_errors("docs_tables"):
        for name, (page, make) in TABLES.items():
            if update:
                page.write_text(replaced(*marks(name), page.read_text(encoding="utf-8"), make()), encoding="utf-8")
            else:
                click.echo(f"{make()}\n")


if __name__ == "__main__":
    main()
