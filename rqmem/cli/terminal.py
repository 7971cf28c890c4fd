"""What commands that show something have in common: a Redis to look at, and a terminal to show it on."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from redis.exceptions import RedisError

from rqmem.config.load import load
from rqmem.connection import connect
from rqmem.connection.looking import EMBEDDED, running_embedded, to_look_at
from rqmem.text import printable

if TYPE_CHECKING:
    from redis import Redis

    from rqmem.acting import Actor

Command = TypeVar("Command", bound=Callable[..., Any])

COLOURS: dict[str, dict[str, Any]] = {
    "plain": {}, "title": {"bold": True}, "good": {"fg": "green"}, "warning": {"fg": "yellow"}, "bad": {"fg": "red"},
}  # fmt: skip
_CODES = {"\x1b[0m", *(click.style("", **style, reset=False) for style in COLOURS.values() if style)}
_CODE = re.compile(f"({'|'.join(map(re.escape, _CODES))})")
_ANSWER_SECONDS = 3.0
_COLUMNS, _FEWEST_COLUMNS = 100, 60


def warning_threshold() -> float:
    """MEMORY_WARNING_THRESHOLD as a fraction, which recommendations depend on. Raises `ConfigError`."""
    return load(os.environ).config.warning_threshold


def redis_options(command: Command) -> Command:
    """``--url`` and ``-c``, which name the Redis of a command."""
    config = click.option(
        "--config", "-c", metavar="MODULE", expose_value=False, callback=_use_module,
        help="RQ's settings file, as rq's -c: REDIS_URL, SENTINEL ...",
    )  # fmt: skip
    return click.option("--url", "-u", help="URL of Redis.")(config(command))


def _use_module(ctx: click.Context, param: click.Parameter, module: str | None) -> None:
    """For this process and those that it starts; `rqmem.connection.connect` reads it there, as RQ does."""
    if module:
        os.environ[connect.MODULE_VARIABLE] = module


def connected(url: str | None, answer_seconds: float = _ANSWER_SECONDS) -> tuple[Redis, str]:
    """A connection for looking, whose commands fail soon, and where it leads; starts no server to look at it.

    Raises `ConfigError` or `RqmemError` for a Redis that cannot be used or is not there.
    """
    choice = connect.choose_url(url)
    if choice is None:
        running_embedded()
    connection = connect.connect(url, announce=lambda line: None)
    timeouts = {"socket_timeout": answer_seconds, "socket_connect_timeout": answer_seconds}
    connection.connection_pool.connection_kwargs.update(timeouts)  # it has no connection yet
    return connection, choice.shown if choice is not None else EMBEDDED


def to_serve(url: str | None, answer_seconds: float) -> tuple[Redis, str]:
    """A connection for a server, and where it leads. If a Redis that was named does not answer yet, a line says so.

    Raises `ConfigError` for a URL that cannot be used, `RqmemError` for an embedded server that does not run.
    """
    connection, where = to_look_at(url, answer_seconds)
    try:
        connection.ping()
    except (RedisError, OSError) as error:
        show(f"rqmem: Redis at {where} does not answer yet: {' '.join(str(error).split())}", err=True)
    return connection, where


def acting(connection: Redis) -> Actor:
    """The user of this machine who acts on that Redis."""
    from rqmem.acting import Actor

    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        name = "?"
    return Actor(connection, f"{name}@{socket.gethostname()}", "command line")


def columns() -> int:
    """How wide text may be: as the terminal, or ``COLUMNS``; 100 in a pipe."""
    return max(_FEWEST_COLUMNS, shutil.get_terminal_size((_COLUMNS, 0)).columns)


def colour(text: str, mood: str) -> str:
    """The text in the colour of its mood; `click.echo` takes it away where there is no terminal."""
    return click.style(text, **COLOURS[mood]) if COLOURS[mood] else text


def show(*lines: str, err: bool = False) -> None:
    """Print lines. What names of others would make of a line but text is an escape; colours of `colour` stay."""
    click.echo("\n".join(map(one_line, lines)), err=err)


def one_line(line: str) -> str:
    """The line with nothing in it but what can be printed, and the colours of `colour`."""
    if line.isprintable():
        return line
    return "".join(part if part in _CODES else printable(part) for part in _CODE.split(line))
