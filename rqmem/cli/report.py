"""``rqmem report``: what happened to job types, by `rqmem.observe.period`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from rqmem.cli.job_types import one_of
from rqmem.cli.terminal import connected, redis_options, show, warning_threshold
from rqmem.config.parsers import moment
from rqmem.errors import ConfigError, RqmemError
from rqmem.live.saving import writable
from rqmem.observe.as_json import of_report
from rqmem.observe.period import PeriodReport
from rqmem.observe.period_read import read_report
from rqmem.own_files import replace
from rqmem.show.html.report_page import check_that_pages_can_be_made, to_html
from rqmem.show.report_text import to_text
from rqmem.store.history import history_reader
from rqmem.text import counted, json_text


def _to_json(report: PeriodReport) -> str:
    return json_text(of_report(report), indent=2) + "\n"


FORMATS: dict[str, Callable[[PeriodReport], str]] = {"text": to_text, "json": _to_json, "html": to_html}
_SUFFIXES = {".json": "json", ".html": "html", ".htm": "html"}


@click.command()
@click.option("--since", metavar="WHEN", default="24h", help="30m, 7d, 2026-08-06T10:30.")
@click.option("--job", metavar="TYPE", help="Only this job type; its last part is enough.")
@click.option("--format", "form", type=click.Choice(list(FORMATS)), help="Instead of the suffix of --output.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
@click.option("--output", metavar="FILE", help="Write it there.")
@redis_options
def report(since: str, job: str | None, form: str | None, as_json: bool, output: str | None, url: str | None) -> None:
    """Report on job types: runs, failures, breaches, peaks, trends.

    The journal counts by the hour for two days and by the day for 30, so a
    report begins with an hour or a day. Trends compare with an equally long
    time before. Job types whose code is gone are reported too.

    HTML is one file with plots that needs no network (pip install
    'rqmem[report]'). The names in the JSON are explained in
    docs/reference/json.md.

    \b
    rqmem report --since 7d --output report.html
    """
    now = time.time()
    after = moment(since, "--since", now)
    file = writable(output, "--output") if output is not None else None
    if as_json and form not in (None, "json"):
        raise ConfigError(f"--json and --format {form}: give one of them")
    if form == "json":
        click.echo("rqmem: --format json is called --json now", err=True)
    form = "json" if as_json else form or _SUFFIXES.get(Path(output or "").suffix.lower(), "text")
    if form == "html":
        check_that_pages_can_be_made()
        if file is None and sys.stdout.isatty():
            raise ConfigError("--format html is nothing to read on a terminal: give --output FILE too")
    threshold = warning_threshold()
    connection, where = connected(url)
    history_reader.check_version(connection)
    job = one_of(job, history_reader.types(connection)) if job is not None else None
    found = read_report(connection, where, after, now, job, warning_fraction=threshold)
    if file is None:
        click.echo(FORMATS[form](found), nl=False)
    else:
        _save(found, file, form)


def _save(found: PeriodReport, file: Path, form: str) -> None:
    text = FORMATS[form](found)
    try:
        replace(file, text, 0o666, synced=True)
    except OSError as error:
        raise RqmemError(
            f"--output {file} could not be written ({error.strerror}); what was there is as before"
        ) from None
    counts = ((len(found.types), "job type"), (found.tally.runs, "run"), (found.tally.breached, "breach"))
    show(f"report: {file} ({', '.join(counted(number, thing) for number, thing in counts)})")
    for note in found.notes:
        show(f"note: {note}", err=True)
