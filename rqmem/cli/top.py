"""``rqmem top``: one worker by `rqmem.live.top`; once, or again and again on a terminal or in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import click
from redis.exceptions import RedisError

from rqmem import words
from rqmem.cli import write_no_more
from rqmem.cli.terminal import columns, connected, redis_options
from rqmem.errors import RqmemError
from rqmem.live import top as of_worker
from rqmem.live.screen import OutputClosed, Screen, can_draw, closed_is_said
from rqmem.live.stopping import Stopping
from rqmem.live.top import Top
from rqmem.observe.vocabulary import versioned
from rqmem.store.history import history_reader
from rqmem.text import clock, json_text, without_moods

_LIVE_SECONDS, _PIPE_SECONDS = 1.0, 5.0
Show = Callable[[Top, str], None]


@click.command()
@click.option("--worker", "name", metavar="NAME", help="Which one, where several run.")
@click.option("--once", is_flag=True, help="Look once, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (without --once an object a line).")
@redis_options
def top(name: str | None, once: bool, as_json: bool, url: str | None) -> None:
    """Watch one worker: usage against the ceiling, its job, and lines of code.

    It shows in which lines the memory of the running job grew, in steps of
    RQMEM_SAMPLE_STEP MB. It shows the same for those ended runs that used the
    most memory of their job type. It looks once a second on a terminal (pip
    install 'rqmem[tui]'), every five seconds in a pipe. It ends on Ctrl-C or
    with the worker. It changes nothing.

    The names in --json are explained in docs/reference/json.md.

    \b
    rqmem top --worker web-1
    """
    connection, where = connected(url)
    history_reader.check_version(connection)
    first = of_worker.read(connection, where, name, time.time())
    if once:
        click.echo(json_text(of_worker.as_json(first), indent=2) if as_json else _plain(first))
        return
    again = partial(of_worker.read, connection, where, first.worker.name)
    with Stopping() as stopping:
        _watch(first, again, stopping, as_json=as_json)


def _watch(last: Top, again: Callable[[float], Top], stopping: Stopping, *, as_json: bool) -> None:
    """Look again and again, also while Redis is away. Raises `RqmemError` when the worker is gone."""
    notice = ""
    with ExitStack() as stack:
        try:
            show, seconds = _display(stack, as_json=as_json)
            while True:
                show(last, notice)
                if stopping.wait(seconds):
                    return
                try:
                    last, notice = again(time.time()), ""
                except RedisError:
                    notice = notice or words.redis_gone_since(clock(time.time()))
                except RqmemError:
                    raise RqmemError(f"worker {last.worker.name} has ended") from None
        except OutputClosed:
            write_no_more()


def _display(stack: ExitStack, *, as_json: bool) -> tuple[Show, float]:
    """What shows a look, and the seconds between two."""
    if not as_json and can_draw():
        return partial(_draw, stack.enter_context(Screen())), _LIVE_SECONDS
    return partial(_print, as_json=as_json), _PIPE_SECONDS


def _draw(screen: Screen, seen: Top, notice: str) -> None:
    width, height = screen.size
    screen.draw(
        of_worker.lines(replace(seen, at=time.time()), width, ascii_only=screen.ascii_only, notice=notice)[:height]
    )


def _print(seen: Top, notice: str, *, as_json: bool) -> None:
    with closed_is_said():
        if as_json:
            click.echo(json_text(versioned(error=notice) if notice else of_worker.as_json(seen)))
        else:
            click.echo(f"{_plain(seen, notice)}\n")
        sys.stdout.flush()


def _plain(seen: Top, notice: str = "") -> str:
    ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
    return "\n".join(
        without_moods(each).rstrip() for each in of_worker.lines(seen, columns(), ascii_only=ascii_only, notice=notice)
    )
