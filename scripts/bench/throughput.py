"""How fast jobs are run and enqueued: rqmem, RQ, and other job systems where they are installed.

    pip install -r scripts/bench/peers.txt                 # the others
    python -m scripts.bench.throughput                     # all of it: an hour
    python -m scripts.bench.throughput --only noop --only latency
    python -m scripts.bench.throughput --short             # whether it runs: the figures mean little

Figures go into ``docs/throughput.json``, a section each: a section that is not measured keeps the figures it has. The
tables of ``docs/how-fast.md`` and the chart are made from there.

Rates depend on what else the machine does, and on which processor the kernel puts whom. Processor time and commands per
job hardly do, so compare those.
"""

from __future__ import annotations

import json
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
import psutil
from redis import Redis

from rqmem.text import columns
from scripts.bench.measuring import own_redis
from scripts.bench.systems import notes
from scripts.bench.throughput_chart import draw
from scripts.bench.throughput_sections import SECTIONS, Bench, Row
from scripts.harness import ROOT

FIGURES = ROOT / "docs" / "throughput.json"
CHART = ROOT / "docs" / "pictures" / "throughput.svg"
_PACKAGES = ("rqmem", "rq", "redis", "hiredis", "celery", "dramatiq", "huey", "saq", "taskiq")


def machine(connection: Redis) -> dict[str, Any]:
    """What the figures depend on."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ": ?")
    return {
        "processor": model.partition(":")[2].strip(),
        "processors": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "redis_server": connection.info("server")["redis_version"],
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def load() -> float:
    """Of the last minute."""
    return os.getloadavg()[0]


def shown(rows: list[Row]) -> str:
    """The rows as a table for a terminal."""
    head = list(rows[0])
    return "\n".join(columns([head, *([_text(row.get(name)) for name in head] for row in rows)], left=()))


def _text(value: Any) -> str:
    return f"{value:,.10g}" if isinstance(value, int | float) else str(value)


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"sections": {}}
    return found


@click.command(context_settings={"show_default": True})
@click.option("--only", multiple=True, type=click.Choice(list(SECTIONS)), help="These sections; without it all.")
@click.option("--rounds", default=3, type=click.IntRange(1), help="How often each is measured; medians are shown.")
@click.option("--short", is_flag=True, help="A fiftieth of the jobs, one round, and nothing is written.")
@click.option("--core", default=0, help="The processor that 'pinned' uses.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default=FIGURES, help="Where figures go.")
@click.option("--chart", type=click.Path(dir_okay=False, path_type=Path), default=CHART, help="Where the chart goes.")
def main(only: tuple[str, ...], rounds: int, short: bool, core: int, output: Path, chart: Path) -> None:
    """Measure, print tables, write figures and chart."""
    chosen = [name for name in SECTIONS if name in only or not only]
    click.echo(
        f"{', '.join(chosen)}: about {sum(SECTIONS[name].minutes for name in chosen):.0f} minutes unless --short"
    )
    found = read(output)
    with own_redis() as connection, notes() as done:
        found["machine"] = machine(connection)
        bench = Bench(connection, done, 1 if short else rounds, 0.02 if short else 1.0, core)
        for name in chosen:
            began, before = time.monotonic(), load()
            click.secho(f"\n{SECTIONS[name].title}", bold=True)
            rows = SECTIONS[name].measure(bench)
            seconds = time.monotonic() - began
            click.echo(
                f"{shown(rows)}\n{name} took {seconds:.0f} s; load average {before:.1f} before, {load():.1f} after"
            )
            measured = {"at": time.strftime("%Y-%m-%d"), "seconds": round(seconds), "load_before": round(before, 1)}
            found["sections"][name] = {"title": SECTIONS[name].title, **measured, "rows": rows}
            if not short:
                output.write_text(json.dumps(found, indent=1) + "\n")
    if not short and "noop" in found["sections"]:
        draw(found, chart)
        click.echo(f"figures: {output}; chart: {chart}; tables: python -m scripts.docs_tables --update")


if __name__ == "__main__":
    main()
