"""``python -m scripts.bench.guide``: what each tip of docs/guide.md saves, measured on its own example. Two minutes.

The jobs ``Before`` and ``After`` of each section run on a real worker, a fresh one each time, in turns. ``--update``
writes the table into the guide, between its two comments. Ends with 1 where a tip leaves more than 60 %.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

import click
from redis import Redis
from rq.job import JobStatus

from rqmem.store import execution_reader
from rqmem.store.history import history_reader
from scripts.bench.guide_examples import GUIDE, Tip, make_shop, tips
from scripts.bench.measuring import end, own_redis
from scripts.bench.worker_runs import How, Running, empty_queue
from scripts.docs_tables import replaced
from seeds.command_errors import one_line_errors

BEGIN, END = "<!-- figures: python -m scripts.bench.guide --update -->", "<!-- end of the figures -->"
WORKER_MB = 1024
MOST_LEFT = 0.6
"""Of the growth of ``Before``, for ``After``."""
_PATIENCE_SECONDS = 300.0


class Example:
    """A job of the guide: its runs, each as MB above its beginning, and whether it breached."""

    def __init__(self, module: str, name: str) -> None:
        self.job = f"{module}.{name}"
        self.growths_mb: list[float] = []
        self.breached = False
        self.result: object = None

    @property
    def growth_mb(self) -> float:
        return median(self.growths_mb)

    def run(self, connection: Redis, folder: Path) -> None:
        """Once more, on a worker of its own in that folder."""
        job = empty_queue().enqueue(f"{self.job}.run", job_timeout=600)
        ended = Running(How(WORKER_MB).command("--burst"), folder).finish(_PATIENCE_SECONDS)
        self.breached = bool(execution_reader.breaches(connection, job.id))
        if job.get_status() != JobStatus.FINISHED and not self.breached:
            raise click.ClickException(f"{self.job} ended {job.get_status().value}: {ended.last_line}")
        self.result = job.return_value()
        self.growths_mb.append(max(grown(connection, self.job)))


def grown(connection: Redis, job_type: str) -> list[float]:
    """MB that a job and its children took above their beginnings, one by one."""
    return [run.peak_mb - run.initial_mb for run in history_reader.runs(connection, job_type)]


def measured(connection: Redis, folder: Path, rounds: int) -> dict[Tip, tuple[Example, Example]]:
    """Each tip's examples, in turns, so that a slow minute of the machine is everybody's."""
    found = {tip: (Example(tip.module, "Before"), Example(tip.module, "After")) for tip in tips()}
    for _ in range(rounds):
        for pair in found.values():
            for example in pair:
                example.run(connection, folder)
    return found


def table(found: dict[Tip, tuple[Example, Example]]) -> str:
    lines = ["| tip | before | after |", "| --- | ---: | ---: |"]
    for tip, (before, after) in found.items():
        link = f"[{tip.title}](#{tip.title.lower().replace(' ', '-').replace(chr(39), '')})"
        sizes = " | ".join(f"{each.growth_mb:.1f} MB{', breached' * each.breached}" for each in (before, after))
        lines.append(f"| {link} | {sizes} |")
    return "\n".join(lines)


def faults(found: dict[Tip, tuple[Example, Example]]) -> list[str]:
    """What is not as the guide says."""
    words = []
    for tip, (before, after) in found.items():
        if after.breached or (not before.breached and after.growth_mb > MOST_LEFT * before.growth_mb):
            words.append(f"{tip.title}: {after.growth_mb:.1f} MB after, {before.growth_mb:.1f} MB before")
        if not before.breached and before.result != after.result:
            words.append(f"{tip.title}: another result, {before.result!r} and {after.result!r}")
    return words


def in_guide(text: str, figures: str) -> str:
    """The guide with these figures. Raises `ConfigError`."""
    return replaced(BEGIN, END, text, figures)


@click.command()
@click.option("--orders", type=click.IntRange(1000), default=300_000, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--update", is_flag=True, help="Write the table into docs/guide.md.")
def main(orders: int, rounds: int, update: bool) -> None:
    """Print what each tip saves."""
    with tempfile.TemporaryDirectory() as name, own_redis() as connection:
        folder = Path(name)
        make_shop(folder, orders)
        found = measured(connection, folder, rounds)
    click.echo(table(found))
    if update:
        with one_line_errors("guide"):
            GUIDE.write_text(in_guide(GUIDE.read_text(), table(found)))
    end(faults(found))


if __name__ == "__main__":
    main()
