"""``rqmem journal``: how large the journal is, and forgetting it."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import click
from redis import Redis

from rqmem.cli.terminal import connected, one_line, redis_options, show
from rqmem.errors import ConfigError, JournalVersionError, UnknownName
from rqmem.observe.vocabulary import encoded, versioned
from rqmem.store.history import clearing, history_reader
from rqmem.text import columns, counted, did_you_mean, json_text, listed
from rqmem.units import MB

_NAMED = 3  # job types in an error message


@click.group("journal")
def journal_group() -> None:
    """What rqmem remembers in Redis, apart from what jobs need.

    It has memory readings, the last runs of each job type, figures of all
    runs, events of jobs, breaches and alerts. It stays under 64 MB. A worker
    with RQMEM_JOURNAL=off remembers nothing.
    """


@journal_group.command(short_help="Show how many keys and bytes it has.")
@redis_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def size(url: str | None, as_json: bool) -> None:
    """Show how many keys the journal has and the memory they take in Redis.

    It also shows how many entries were dropped, by kind: because Redis was
    away or refused them, or because there were too many at once.
    """
    connection, _ = connected(url)
    note = _version_note(connection)
    kinds = history_reader.size(connection)
    dropped = {} if note else history_reader.dropped(connection)
    if as_json:
        click.echo(json_text(_as_json(kinds, dropped, note), indent=2))
        return
    for line in _table(kinds):
        show(line)
    if any(dropped.values()):
        told = ", ".join(f"{kind} {count:,}" for kind, count in sorted(dropped.items()) if count)
        show("", f"never written (Redis away, or full, or too much at once): {told}")
    if note:
        show("", f"note: {note}")


@journal_group.command(short_help="Forget it.")
@redis_options
@click.option("--job-type", metavar="TYPE", help="Only what is known of this job type.")
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
@click.pass_context
def clear(ctx: click.Context, url: str | None, job_type: str | None, yes: bool) -> None:
    """Forget the journal, or what is known of one job type.

    Running jobs, and jobs that will be resumed, are not affected. Workers go
    on writing, so what happens from now on is remembered.
    """
    if not yes and not sys.stdin.isatty():
        raise ConfigError("there is no terminal to ask on: give --yes to forget the journal")
    connection, where = connected(url)
    if job_type is not None:
        _check_type(connection, job_type)
    if not yes and not click.confirm(one_line(_question(connection, where, job_type))):
        click.echo("nothing was forgotten")
        ctx.exit(1)
    removed = clearing.clear(connection) if job_type is None else clearing.clear_type(connection, job_type)
    show(f"forgot {job_type or 'the journal'}: {counted(removed, 'key')}")


def _question(connection: Redis, where: str, job_type: str | None) -> str:
    if job_type is not None:
        return f"Forget what is known of {job_type} on {where}?"
    total_keys, total_bytes = _total(history_reader.size(connection))
    return f"Forget the journal on {where} ({counted(total_keys, 'key')}, {total_bytes / MB:.1f} MB)?"


def _check_type(connection: Redis, job_type: str) -> None:
    """Raise `UnknownName` for a job type that the journal has not, naming near ones."""
    history_reader.check_version(connection)
    known = history_reader.types(connection)
    if job_type in known:
        return
    latest = sorted(known, key=lambda name: -known[name])
    there = f"it has {listed(latest, _NAMED)}" if known else "it has none at all; is it the right --url?"
    hint = did_you_mean(job_type, known, there, _NAMED)
    raise UnknownName(f"the journal has no job type {job_type!r}: {hint}")


def _version_note(connection: Redis) -> str:
    """Which version wrote the journal, if it is another one; its size can be read anyway."""
    try:
        history_reader.check_version(connection)
    except JournalVersionError as error:
        return str(error)
    return ""


def _table(kinds: Mapping[str, tuple[int, int]]) -> list[str]:
    total_keys, total_bytes = _total(kinds)
    rows = sorted(kinds.items(), key=lambda each: -each[1][1])
    figures = [*rows, ("total", (total_keys, total_bytes))]
    return columns([("kind", "keys", "KB"), *((kind, f"{n:,}", f"{size / 1024:,.1f}") for kind, (n, size) in figures)])


def _as_json(kinds: Mapping[str, tuple[int, int]], dropped: Mapping[str, int], note: str) -> dict[str, object]:
    total_keys, total_bytes = _total(kinds)
    return {
        **versioned(keys=total_keys, size_mb=total_bytes / MB),
        "kinds": [encoded({"kind": kind, "keys": each[0], "size_mb": each[1] / MB}) for kind, each in kinds.items()],
        "dropped": dict(dropped),
        "note": note,
    }


def _total(kinds: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    return sum(count for count, _ in kinds.values()), sum(size_bytes for _, size_bytes in kinds.values())
