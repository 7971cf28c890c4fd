"""``rqmem monitor``: options, checked, to a run of `rqmem.live`, and its report."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import click
from redis import Redis
from redis.exceptions import RedisError

from rqmem.cli import write_no_more
from rqmem.cli.options import parsed
from rqmem.cli.terminal import connected, redis_options, show, warning_threshold
from rqmem.config.parsers import whole_seconds
from rqmem.errors import ConfigError, RedisUnavailable, RqmemError, UnknownName
from rqmem.live.loop import Watch
from rqmem.live.recording import MonitorOptions, Recording, to_json
from rqmem.live.recording_text import summary
from rqmem.live.saving import Output, output
from rqmem.live.screen import PlainDisplay, Show, can_draw, live_view
from rqmem.live.stopping import Stopping
from rqmem.observe.snapshot import known_queues
from rqmem.store.history import history_reader
from rqmem.text import did_you_mean

ALERTS_RAISED = 3
_ANSWER_SECONDS = 2.0


def threshold(text: str, name: str) -> float:
    """``text`` as percent of the ceiling; raises `ConfigError` naming ``name``, and the percentage for a fraction."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = math.nan
    if 0 < value <= 1:
        raise ConfigError(f"{name} {text}: give a percentage, for {text} write {100 * value:g}")
    if not 1 < value <= 100:
        raise ConfigError(f"{name} {text}: give a percentage of the ceiling above 1 and up to 100, for example 80")
    return value


@click.command()
@click.option("--interval", **parsed("TIME", whole_seconds), default="60",
              help="Between samples of the report.")  # fmt: skip
@click.option("--duration", **parsed("TIME", partial(whole_seconds, unlimited="unlimited")), default="1h",
              help="How long, or unlimited.")  # fmt: skip
@click.option("--threshold", **parsed("PERCENT", threshold), default="80",
              help="Of a job's ceiling; above it is marked and counted.")  # fmt: skip
@click.option("--output-file", **parsed("FILE", lambda text, name: output(text)),
              help="Write the report there: .json or .txt.")  # fmt: skip
@click.option("--fail-on-alert", is_flag=True, help="Exit code 3 when an alert was raised meanwhile.")
@click.option("--queue", "-q", "queues", metavar="NAME", multiple=True, help="Only this queue; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON at the end.")
@click.option("--plain", is_flag=True, help="Lines instead of the live view.")
@redis_options
@click.pass_context
def monitor(ctx: click.Context, /, url: str | None, queues: tuple[str, ...], **options: Any) -> None:
    """Watch workers, jobs and queues, and print a report at the end.

    On a terminal it shows a live view, drawn again each second (pip install
    'rqmem[tui]'). Elsewhere it prints lines: the whole state once in each
    --interval, and alerts and jobs above --threshold at once. It ends after
    --duration or on Ctrl-C. It writes nothing to Redis.

    The report has samples, figures by job type, alerts and four metrics. With
    --output-file it is saved each minute and at the end; without, a summary is
    printed. docs/reference/json.md explains the names in its JSON.

    --fail-on-alert counts alerts that are raised meanwhile. It does not count
    crossings of --threshold, nor alerts that were open before.

    \b
    rqmem monitor --interval 1m --duration 1h --output-file report.json
    """
    connection, where = connected(url, _ANSWER_SECONDS)
    file: Output | None = options["output_file"]
    try:
        history_reader.check_version(connection)
        _check_queues(connection, queues)
        watch = Watch(
            connection,
            MonitorOptions(where, options["interval"], options["threshold"], queues, warning_threshold()),
            options["duration"],
            file,
        )
    except RedisError as error:
        raise RedisUnavailable(f"Redis at {where} answered, and then not: {' '.join(str(error).split())}") from error
    with Stopping() as stopping:
        report = watch.until_over(_display(watch, plain=options["plain"], as_json=options["as_json"]), stopping)
        _finish(report, file, as_json=options["as_json"])
    raised = options["fail_on_alert"] and report.record.alerts_raised
    ctx.exit(ALERTS_RAISED if raised else 0)


def _check_queues(connection: Redis, names: tuple[str, ...]) -> None:
    """Refuse an unknown queue: with a misspelt name the monitor would see nothing for an hour."""
    known = known_queues(connection) if names else set()
    for name in names:
        if name not in known:
            known_ones = f"known are {', '.join(sorted(known))}" if known else "none had a job or a worker yet"
            raise UnknownName(f"--queue {name!r} is not known: {did_you_mean(name, known, known_ones)}")


def _display(watch: Watch, *, plain: bool, as_json: bool) -> AbstractContextManager[Show]:
    """The live view where there can be one; lines on stderr where stdout is for JSON."""
    if as_json:
        return nullcontext(PlainDisplay(watch.setting.interval_seconds, partial(show, err=True)).show)
    if not plain and can_draw():
        return live_view(watch.setting.redis, watch.until)
    return nullcontext(PlainDisplay(watch.setting.interval_seconds, show).show)


def _finish(report: Recording, file: Output | None, *, as_json: bool) -> None:
    """The report where it belongs; printed where that fails, so that it is not lost. Raises `RqmemError` then."""
    if as_json:
        _print(*to_json(report).splitlines())
    elif file is None:
        _print("", *summary(report))
    if file is None:
        return
    text = file.write(report)
    try:
        file.save(text)
    except OSError as error:
        _print(*text.splitlines())
        raise RqmemError(
            f"{file.path} could not be written ({error.strerror}); the report is printed instead"
        ) from None
    record = report.record
    told = (
        f"report: {file.path} ({len(record.steps.all)} samples, {len(report.jobs)} job types, "
        f"{record.workers.crossings.count} crossings, {record.alerts_raised} alerts)"
    )
    _print(told, err=as_json)


def _print(*lines: str, err: bool = False) -> None:
    """To stdout, or stderr. If that is closed, nothing is printed, and there is no error at the exit."""
    try:
        show(*lines, err=err)
    except OSError:
        write_no_more()
