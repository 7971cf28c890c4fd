"""``rqmem redis``: the embedded Redis of the current directory, and which Redis commands use."""

from __future__ import annotations

from typing import Any

import click

from rqmem.cli.terminal import redis_options, show
from rqmem.connection import connect, embedded
from rqmem.errors import ConfigError
from rqmem.observe.vocabulary import versioned
from rqmem.text import json_text
from rqmem.units import show_mb, to_mb


@click.group("redis")
def redis_group() -> None:
    """Start, stop and look at the embedded Redis.

    Commands use the Redis named by --url, RQMEM_REDIS_URL, RQ_REDIS_URL or
    REDIS_URL, in this order. Where none is named they use an embedded server,
    started when needed: one for each user and directory, its data in
    .rqmem/redis.
    """


@redis_group.command()
def start() -> None:
    """Start the embedded Redis, unless it runs already.

    It goes on running in the background until `rqmem redis stop`.
    """
    server = embedded.start()
    click.echo("started" if server.started else "already running")
    _show(server)


@redis_group.command()
def stop() -> None:
    """Stop the embedded Redis. Its data are saved and kept."""
    stopped = embedded.stop()
    click.echo("stopped" if stopped else "no embedded Redis runs for this directory")


@redis_group.command()
@redis_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(url: str | None, as_json: bool) -> None:
    """Show whether the embedded Redis runs, and whether commands use it."""
    choice = connect.choose_url(url)
    if choice is not None:
        connect.check(choice)
    if as_json:
        click.echo(json_text(_fields(choice, embedded.status()), indent=2))
        return
    if choice is not None:
        show(f"commands here use {choice.shown} (from {choice.source}), not the embedded Redis")
    server = embedded.status()
    if server is None:
        click.echo("no embedded Redis runs for this directory")
    else:
        click.echo("the embedded Redis of this directory is running")
        _show(server)


@redis_group.command("url")
@redis_options
def show_url(url: str | None) -> None:
    """Print the URL of the Redis that commands use.

    The embedded Redis is started if it is the one. The URL is printed as it was
    given, with its password, for use in scripts: rq info --url "$(rqmem redis url)"
    """
    choice = connect.choose_url(url)
    if choice is None:
        click.echo(embedded.start().url)
    else:
        connect.check(choice)
        if not choice.url:
            raise ConfigError(f"{choice.source} names {choice.shown}, which has no URL")
        click.echo(choice.url)


def _fields(choice: connect.Choice | None, server: embedded.Server | None) -> dict[str, Any]:
    """``redis``: which one commands use, without its password; ``embedded``: the server of this directory, or null."""
    head = versioned(redis=choice.shown if choice else "embedded", source=choice.source if choice else "")
    of_server = server and {
        "url": server.url,
        "version": server.version,
        "pid": server.pid,
        "uptime_seconds": float(server.uptime_seconds),
        "keys": server.keys,
        "used_mb": to_mb(server.memory_bytes),
        "data": str(server.data),
    }
    return {**head, "embedded": of_server}


def _show(server: embedded.Server) -> None:
    memory, uptime = f"{show_mb(to_mb(server.memory_bytes))} MB", f"{server.uptime_seconds} s"
    facts = vars(server) | {"memory": memory, "uptime": uptime}
    for name in ("url", "version", "pid", "memory", "uptime", "keys", "data"):
        show(f"  {name:<8} {facts[name]}")
