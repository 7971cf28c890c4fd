"""``rqmem inspect``: the story of one job, by `rqmem.inspection`."""

from __future__ import annotations

import json
import sys
import time

import click

from rqmem.cli.terminal import colour, columns, connected, never_fail_on_a_letter
from rqmem.inspection import schema
from rqmem.inspection.find import find
from rqmem.inspection.read import read_case
from rqmem.inspection.story import story


@click.command("inspect", short_help="Tell the story of one job: memory, breaches, resumes.")
@click.argument("job_id")
@click.option("--json", "as_json", is_flag=True, help="Print the story as JSON.")
@click.option("--url", "-u", help="URL of Redis.")
def inspect_job(job_id: str, as_json: bool, url: str | None) -> None:
    """Tell the story of one job, running or ended.

    How it stands and what becomes of it, its memory over time against its
    ceiling, what happened when (checkpoints, chunks, collections, resumes),
    and its breaches with their evidence. The beginning of the id will do,
    where it is the only one. What RQ has forgotten, the journal still tells.

    \b
    rqmem inspect 1f3a9c20

    The keys of --json stand in rqmem/inspection/schema.py.
    """
    connection, _ = connected(url)
    case = read_case(connection, find(connection, job_id), time.time())
    never_fail_on_a_letter()
    if as_json:
        click.echo(json.dumps(schema.whole(case), indent=2, ensure_ascii=False))
        return
    plain = not (sys.stdout.encoding or "").lower().startswith("utf")
    click.echo("\n".join(story(case, columns(), colour, plain=plain)))
