"""``rqmem status``: one screen or one job; once, or again and again."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import click
from redis import Redis
from redis.exceptions import RedisError

from rqmem import words
from rqmem.cli.terminal import (
    colour,
    columns,
    connected,
    one_line,
    redis_options,
    show,
    warning_threshold,
)
from rqmem.errors import ConfigError
from rqmem.observe import as_json as schema
from rqmem.observe.problems import healthy, problems
from rqmem.observe.snapshot import read_status, read_worker, worker_names
from rqmem.observe.vocabulary import versioned
from rqmem.show.status_text import screen, worker_lines
from rqmem.text import clock, did_you_mean, json_text
from rqmem.values import dataclass

_EVERY_SECONDS = 2.0
_ROWS_IN_A_PIPE = 50


@dataclass(frozen=True)
class _Look:
    """What to show, as text for given columns and rows and as JSON; ``well``: there is no problem."""

    lines: Callable[[int, int | None], list[str]]
    fields: dict[str, Any]
    well: bool


@click.command()
@click.option("--job", "job_id", metavar="ID", help="Only this job; the beginning of its id is enough.")
@click.option("--worker", metavar="NAME", help="Only this worker: whether it lives.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing: the exit code tells.")
@click.option("--watch", "-w", is_flag=True, help="Again every two seconds, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (with --watch an object a line).")
@redis_options
@click.pass_context
def status(
    ctx: click.Context, job_id: str | None, worker: str | None, quiet: bool, watch: bool, as_json: bool, url: str | None
) -> None:
    """Show on one screen what runs, what is wrong, and what to do.

    It shows workers with the memory of their jobs, queues, what happened to
    each job type lately, and problems. Act on a problem; look at a note. The
    command changes nothing.

    Exit code 0 when there is no problem, else 1; also 1 when Redis does not
    answer. With --job: 1 when the job failed, was stopped, or its worker is
    not heard of. With --worker: 0 while that worker is heard of, else 1. Use
    that as a probe, for example in Kubernetes:

    \b
    livenessProbe: {exec: {command:
      [sh, -c, "rqmem status --worker $POD_NAME --quiet"]}, periodSeconds: 30,
      timeoutSeconds: 10, failureThreshold: 10}

    While Redis is away no worker is heard of, and workers wait for it. So let
    the probe allow for that time (failureThreshold times periodSeconds).

    The names in --json are explained in docs/reference/json.md.
    """
    if job_id is not None and worker is not None:
        raise ConfigError("--job and --worker: give one of them")
    if quiet and (watch or as_json):
        raise ConfigError("--quiet prints nothing: leave out --watch and --json")
    connection, where = connected(url)
    look: Callable[[], _Look]
    if worker is not None:
        look = lambda: _at_worker(connection, worker)  # noqa: E731
    elif job_id is not None:
        from rqmem.observe.find import find  # not for a probe, which is to be quick

        found = find(connection, job_id)
        look = lambda: _at_job(connection, found)  # noqa: E731
    else:
        threshold = warning_threshold() if as_json else None
        look = lambda: _at_all(connection, where, threshold)  # noqa: E731
    if quiet:
        ctx.exit(0 if look().well else 1)
    well = _watch(look, as_json=as_json) if watch else _once(look(), as_json=as_json)
    ctx.exit(0 if well else 1)


def _at_all(connection: Redis, where: str, threshold: float | None) -> _Look:
    snapshot = read_status(connection, where, time.time(), threshold)
    found = problems(snapshot)
    return _Look(
        lambda width, rows: screen(snapshot, found, width, rows, colour),
        schema.of_snapshot(snapshot, found),
        healthy(found),
    )


def _at_worker(connection: Redis, name: str) -> _Look:
    now = time.time()
    worker = read_worker(connection, name, now)
    if worker is None:
        hint = did_you_mean(name, worker_names(connection))
        text = f"no worker {name!r} is registered{f': {hint}' if hint else ''}"
        return _Look(lambda width, rows: [text], versioned(name=name, kind=None), False)
    return _Look(
        lambda width, rows: worker_lines(worker, now, width, colour),
        versioned(at=now) | worker.to_json(),
        worker.kind != "silent",
    )


def _at_job(connection: Redis, job_id: str) -> _Look:
    from rqmem.observe.job_read import read_case
    from rqmem.show.job_text import header

    case = read_case(connection, job_id, time.time())
    return _Look(lambda width, rows: header(case, width, colour), schema.of_job(case), case.well)


def _once(look: _Look, *, as_json: bool) -> bool:
    if as_json:
        click.echo(json_text(look.fields, indent=2))
    else:
        show(*look.lines(columns(), shutil.get_terminal_size((0, _ROWS_IN_A_PIPE)).lines - 1))
    return look.well


def _watch(look: Callable[[], _Look], *, as_json: bool) -> bool:
    """Look again and again, also while Redis is away, until Ctrl-C; whether all was well at the last look."""
    last: _Look | None = None
    lost_at = ""
    try:
        while True:
            try:
                last, lost_at, away = look(), "", ""
            except RedisError as error:
                lost_at = lost_at or clock(time.time())
                away = f"{words.REDIS_GONE['away']} since {lost_at}, trying again: {' '.join(str(error).split())}"
            _draw(last, away, as_json=as_json)
            time.sleep(_EVERY_SECONDS)
    except KeyboardInterrupt:
        return last is not None and last.well and not lost_at


def _draw(look: _Look | None, away: str, *, as_json: bool) -> None:
    if as_json:
        fields = versioned(error=away) if away or look is None else look.fields
        click.echo(json_text(fields))
        return
    on_terminal = sys.stdout.isatty()
    size = shutil.get_terminal_size()
    rows = (size.lines if on_terminal else _ROWS_IN_A_PIPE) - 1 - bool(away)
    shown = look.lines(columns(), rows) if look is not None else []
    lines = [colour(away[: columns()], "bad"), *shown] if away else shown
    if on_terminal:  # over the last one, so that nothing flickers
        text = "".join(f"{one_line(line)}\x1b[K\n" for line in lines[: size.lines - 1])
        click.echo(f"\x1b[H{text}\x1b[J", nl=False)
    else:
        show(*lines, "")
    sys.stdout.flush()
