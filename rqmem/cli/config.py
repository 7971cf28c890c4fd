"""``rqmem config``: the settings and where each came from; job types and what they declare."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click
from redis.exceptions import RedisError

from rqmem.cli import config_tables
from rqmem.cli.config_tables import ConfiguredType, NamedRedis
from rqmem.cli.options import code_path, given_settings, setting_options
from rqmem.cli.terminal import connected, redis_options, show
from rqmem.config.load import Origin, Settings, load
from rqmem.connection import connect
from rqmem.errors import ConfigError, RqmemError
from rqmem.integrations import installed
from rqmem.job import declared
from rqmem.job.declared import Declared
from rqmem.observe.advice import Advice
from rqmem.observe.period_read import read_advice
from rqmem.store.history import history_reader
from rqmem.text import json_text

_EMBEDDED = "embedded, of this directory"


@click.command("config")
@click.argument("modules", metavar="[MODULE]...", nargs=-1)
@click.option("--jobs", is_flag=True, help="Show job types: those of the modules, or all that are known.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@redis_options
@code_path
@setting_options()
@click.pass_context
def config(
    ctx: click.Context,
    /,
    modules: tuple[str, ...],
    jobs: bool,
    as_json: bool,
    url: str | None,
    paths: tuple[str, ...],
    **options: Any,
) -> None:
    """Show each setting, and where its value came from.

    That is the command line (give the options that the worker gets), else
    the environment, else the config file, else the default. The config file
    is the one that RQMEM_CONFIG names, else rqmem.ini in this directory.

    \b
    [rqmem]
    memory = 512
    [job jobs.training.TrainMLModelJob]
    memory_limit_mb = 2048

    With --jobs: a table of job types with the ceiling that each declares, the
    one that applies, and the one its history recommends. A MODULE may be a
    package. A [job ...] section overrides the job's class.

    Exit code 1 when a job type of the config file cannot be found.
    """
    if modules and not jobs:
        raise ConfigError(f"{modules[0]}: modules go with --jobs: rqmem config --jobs {' '.join(modules)}")
    loaded = load(os.environ, given_settings(options))
    if not jobs:
        redis = _redis(url)
        if as_json:
            click.echo(_json(config_tables.settings_json(loaded, redis, installed())))
        else:
            show(*config_tables.settings_lines(loaded, redis, installed()))
        return
    sys.path[:0] = paths
    rows, note = _rows(modules, loaded, url)
    if as_json:
        click.echo(_json(config_tables.jobs_json(rows, loaded, note)))
    else:
        show(*config_tables.jobs_lines(rows, note))
    ctx.exit(1 if any(row.problem and row.job in loaded.config.jobs for row in rows) else 0)


def _json(fields: dict[str, Any]) -> str:
    return json_text(fields, indent=2)


def _redis(url: str | None) -> NamedRedis:
    """Which Redis would be used; it is not asked anything. Raises `ConfigError`."""
    choice = connect.choose_url(url)
    if choice is None:
        return NamedRedis(_EMBEDDED, Origin())
    connect.check(choice)
    return NamedRedis(
        choice.shown, Origin("command line" if choice.source.startswith("-") else "environment", choice.source)
    )


# Job types


def _rows(modules: tuple[str, ...], loaded: Settings, url: str | None) -> tuple[list[ConfiguredType], str]:
    """The job types of the modules, or those that the journal knows; and those of the config file. By path.

    Also why nothing is recommended, if the journal cannot be read: the rest of the table is still useful.

    Raises `ConfigError`, also where there are none.
    """
    found = {each.job: each for module in modules for each in declared.find(module)}
    advised, why_not = _advice(loaded, url)
    if not modules and why_not:
        raise RqmemError(f"the job types that the journal knows cannot be read: {why_not}; or name modules")
    paths = {*found, *([] if modules else advised), *loaded.config.jobs}
    if not paths:
        raise ConfigError("no job type is known yet: name the modules where they are, as in rqmem config --jobs jobs")
    rows = [_row(path, found.get(path), advised.get(path), loaded) for path in sorted(paths)]
    return rows, f"nothing is recommended: {why_not}" if why_not else ""


def _advice(loaded: Settings, url: str | None) -> tuple[dict[str, Advice], str]:
    """Job type that the journal knows -> what is advised for it; or why it cannot be read. Raises `ConfigError`."""
    try:
        connection, where = connected(url)
        history_reader.check_version(connection)
        report = read_advice(connection, where, loaded.config.warning_threshold, time.time())
    except ConfigError:
        raise
    except (RqmemError, RedisError) as error:
        return {}, " ".join(str(error).split())
    return {each.job: each for each in report.jobs}, ""


def _row(path: str, known: Declared | None, advice: Advice | None, loaded: Settings) -> ConfiguredType:
    recommended = advice.found if advice is not None else None
    try:
        there = known if known is not None else declared.of_path(path)
    except ConfigError as error:
        return ConfiguredType(path, problem=str(error), recommended=recommended)
    return ConfiguredType(path, there, declared.applied(there, loaded), recommended=recommended)
