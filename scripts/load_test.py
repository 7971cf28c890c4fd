"""The six jobs under load: ``python -m scripts.load_test``.

Makes a large dataset, runs every job on real workers, with fewer and with more records, and the same work written
naively (`scripts.load.naive`) under a stock ``rq worker``; reads memory meanwhile, and checks what became of every
record. Each job runs at the ceiling that it declares, as it is and with chunks of one size, and with fewer records
under each ``--memory`` with ``--timeout``; there once more with ``--preload``, which shares the memory of its imports,
where these alone nearly fill it (retell-sdk takes some 65 MB). Writes the figures as JSON (its schema is
docs/six-jobs.md) and one HTML page with plots that opens with no network.

Exit code 0: all rules hold (`scripts.load.rules`, which says how growth is compared); 1: one does not, and it is named;
2: something is wrong with the call. Data are kept in ``.load`` for the next time; Redis is one of our own.

Of each job ``--records`` are run, of training ten times as many rows. Calls go to a stand-in for Retell, messages to a
mail server of our own; both are limited to 100,000. Naive functions get fewer where they take long
(`scripts.load.jobs`).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import click
from redis import Redis

from rqmem.connection import embedded
from rqmem.errors import ConfigError
from rqmem.measure import linux
from scripts import campaign_run
from scripts.harness import ROOT, without_settings
from scripts.load import report, rules
from scripts.load.jobs import LoadedJob, named
from scripts.load.page import to_html
from scripts.load.report import Found
from scripts.load.running import Bench
from scripts.load.trials import Idle, Measured, Trial
from seeds.command_errors import one_line_errors

FEW, MANY, SHORT = 10_000, 50_000, 1_200
LEAST_MB = 64

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--records", type=click.IntRange(1), metavar="N",
    help=f"Records of each job; compared with {FEW:,}, or with half of N where N is small.  [default: {MANY:,}]",
)  # fmt: skip
@click.option(
    "--memory", "ceilings_mb", type=click.IntRange(LEAST_MB), metavar="MB", multiple=True, default=[128],
    show_default=True, help="A worker's ceiling, in addition to the declared ones; may be repeated.",
)  # fmt: skip
@click.option(
    "--timeout", type=click.IntRange(1), default=300, show_default=True, help="Of a job on those, in seconds."
)
@click.option("--jobs", "names", metavar="NAME", multiple=True, help="A job's class; may be repeated.  [default: all]")
@click.option("--output", type=FILE, default="load-test.json", show_default=True)
@click.option("--html", type=FILE, default="load-test.html", show_default=True)
@click.option("--naive/--no-naive", default=True, show_default=True, help="Also run what the jobs are compared with.")
@click.option(
    "--short", is_flag=True, help=f"{SHORT:,} records, if --records names no other number: some twenty minutes."
)
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), default=".load", show_default=True, help="For data."
)
def main(
    records: int | None, ceilings_mb: tuple[int, ...], timeout: int, names: tuple[str, ...], output: Path, html: Path,
    naive: bool, short: bool, folder: Path,
) -> None:  # fmt: skip
    """Run the six jobs under load, and the same naively; say what memory they took and what became of each record."""
    with one_line_errors("load_test"):
        many = records or (SHORT if short else MANY)
        jobs = named(names)
        check(output, html)
        campaign_run.make_folder(folder)
        output, html, folder = output.absolute(), html.absolute(), folder.absolute()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended then too
        os.chdir(ROOT)
        plan = [(job, trials(job, many, ceilings_mb, timeout, naive=naive)) for job in jobs]
        click.echo(f"{few_of(many):,} and {many:,} records")
        with own_server(folder) as connection:
            found = run_all(Bench(connection, folder), plan, many)
        output.write_text(json.dumps(report.to_json(found), indent=1) + "\n")
        html.write_text(to_html(found))
    click.echo("\n" + "\n".join(report.summary(found)))
    click.echo(f"\n{output}\n{html}")
    for fault in found.faults:
        click.secho(fault, fg="red", err=True)
    if not found.faults:
        click.secho("every ceiling held, every record has its outcome once", fg="green", bold=True)
    sys.exit(1 if found.faults else 0)


def check(*files: Path) -> None:
    """Raise `ConfigError` for anything that would fail only after the runs."""
    for path in files:
        if not path.absolute().parent.is_dir():
            raise ConfigError(f"{path}: there is no directory {path.absolute().parent}; make it, or name another")
        if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
            raise ConfigError(f"{path} cannot be written; name another")
    for name in ("plotly", "retell", "sklearn", "apprise", "vaderSentiment"):
        if find_spec(name) is None:
            raise ConfigError(f"{name} is not installed, which the jobs or the page need: pip install 'rqmem[all]'")


def few_of(many: int) -> int:
    return FEW if many >= 2 * FEW else max(1, many // 2)


def trials(job: LoadedJob, many: int, ceilings_mb: Sequence[int], timeout: int, *, naive: bool) -> list[Trial]:
    """All runs of a job, in this order. A run with a lower ceiling decides whether the next one is needed."""
    counts = sorted({job.records(few_of(many)), job.records(many)})
    few = counts[0]
    adaptive = job.job_class.adaptive
    made = [Trial("rqmem", "declared", job.name, n, job.ceiling_mb) for n in (counts[-1:] if adaptive else counts)]
    if adaptive:
        made += [Trial("rqmem", "fixed", job.name, count, job.ceiling_mb) for count in counts]
    for ceiling_mb in ceilings_mb:
        made += [
            Trial("rqmem", "lower", job.name, few, float(ceiling_mb), timeout),
            Trial("rqmem", "preload", job.name, few, float(ceiling_mb), timeout),
        ]
    if naive:
        counts = sorted({job.naive_records(count) for count in counts})
        made += [Trial("naive", "declared", job.name, count, job.ceiling_mb) for count in counts]
    return made


def run_all(bench: Bench, plan: Sequence[tuple[LoadedJob, list[Trial]]], many: int) -> Found:
    """Seed and run, and print each run as it ends."""
    began = time.monotonic()
    runs: list[Measured] = []
    idle: list[Idle] = []
    for job, some in plan:
        click.secho(f"\n{job.name}, {job.ceiling_mb:g} MB", bold=True)
        for count in sorted({trial.records for trial in some}):
            bench.seed(job, count)
        idle.append(Idle(job.name, bench.idle_mb(job, preload=False), bench.idle_mb(job, preload=True)))
        click.echo(report.heading())
        for trial in some:
            if trial.setting == "preload" and not rules.wants_preload(runs[-1], idle[-1]):
                continue  # it fits as it is
            measured = bench.run(job, trial)
            runs.append(measured)
            click.echo(report.line(measured))
            if remark := report.remark(measured, idle[-1]):
                click.echo(f"  {remark}")
    faults = rules.faults(runs)
    return Found(few_of(many), many, runs, idle, faults, time.monotonic() - began, time.time())


@contextmanager
def own_server(folder: Path) -> Iterator[Redis]:
    """A Redis that nobody else uses, and no settings from outside. This process adopts what workers leave behind."""
    with mock.patch.dict(os.environ, without_settings(), clear=True):  # as it was before, in the end
        server = embedded.start(folder)
        if not server.started:
            raise ConfigError(f"another load test uses {folder}: let it end, or give another --folder")
        was_subreaper = linux.become_subreaper()  # after the server, which is not to become our child
        os.environ["RQMEM_REDIS_URL"] = server.url
        try:
            with Redis.from_url(server.url) as connection:
                yield connection
        finally:
            embedded.stop(folder)
            linux.become_subreaper(was_subreaper)


if __name__ == "__main__":
    main(prog_name="python -m scripts.load_test")
