"""``rqmem inspect``: the story of one job, by `rqmem.observe.job`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from rqmem.cli.terminal import colour, columns, connected, redis_options, show
from rqmem.config.load import load
from rqmem.errors import ConfigError, RqmemError
from rqmem.observe import as_json as schema
from rqmem.observe.find import find, named
from rqmem.observe.job_read import read_case
from rqmem.profiling import captures, directory
from rqmem.profiling import flamegraph as html
from rqmem.show.job_text import story
from rqmem.text import json_text
from rqmem.units import show_mb


@click.command("inspect")
@click.argument("job_id")
@click.option("--json", "as_json", is_flag=True, help="Print the story as JSON.")
@click.option("--flamegraph", is_flag=True, help="Write where its memory went as HTML, from its profile.")
@click.option("--output", metavar="FILE", help="With --flamegraph: where to.  [default: JOB_ID-flamegraph.html]")
@click.option("--profile-dir", metavar="DIR", help="With --flamegraph: where profiles are.  [default: .rqmem/profiles]")
@redis_options
def inspect_job(
    job_id: str, as_json: bool, flamegraph: bool, output: str | None, profile_dir: str | None, url: str | None
) -> None:
    """Tell the story of one job, running or ended.

    It shows the job's state and what happens next, its memory over time, what
    happened when (checkpoints, chunks, collections, resumes), and each breach
    with its evidence. It also knows jobs that RQ has forgotten. The beginning
    of the id is enough if no other id begins with it.

    \b
    rqmem inspect 1f3a9c20

    --flamegraph needs a profile of the job. A worker with --profile memray
    keeps profiles of breaches, and of the worst peaks of each job type, on its
    own host.

    The names in --json are explained in docs/reference/json.md.
    """
    if flamegraph:
        if as_json:
            raise ConfigError("--flamegraph and --json do not go together: give one of them")
        _write_flamegraph(job_id, output, profile_dir, url)
        return
    if output is not None or profile_dir is not None:
        raise ConfigError("--output and --profile-dir go with --flamegraph: rqmem inspect JOB_ID --flamegraph")
    connection, _ = connected(url)
    case = read_case(connection, find(connection, job_id), time.time())
    if as_json:
        click.echo(json_text(schema.of_story(case), indent=2))
        return
    plain = not (sys.stdout.encoding or "").lower().startswith("utf")
    show(*story(case, columns(), colour, plain=plain))


def _write_flamegraph(job_id: str, output: str | None, profile_dir: str | None, url: str | None) -> None:
    """The profile of the job's last run that has one, as HTML. Redis is asked only where there is none."""
    given = {"profile_dir": ("--profile-dir", profile_dir)}
    where = directory.located(load(os.environ, given).config.profile_dir)
    try:
        directory.check(where)
        known = {each.job_id for each in captures.kept(where)}
        found = captures.find(where, named(job_id, known) or job_id)
    except OSError as error:
        raise ConfigError(f"the profile directory {where} cannot be read: {error.strerror}") from None
    if found is None:
        connection, _ = connected(url)
        full_id = find(connection, job_id)
        raise RqmemError(
            f"there is no profile of job {full_id} in {where}: 'rqmem worker --profile memray' captures the next runs, "
            f"and keeps breaches and the worst peaks of each job type; profiles are on the worker's host "
            f"(--profile-dir)"
        )
    path = Path(output if output is not None else f"{found.job_id}-flamegraph.html")
    html.write(captures.path_of(where, found), path)
    used = f"{found.peak_mb:.1f} MB of {show_mb(found.limit_mb)} MB"
    show(f"{path}: {found.job} {found.job_id}, peak {used}{', a breach' if found.breached else ''}")
