"""``rqmem recommend``: which ceilings, chunk sizes and split thresholds to give to job types."""

from __future__ import annotations

import time

import click

from rqmem.cli.job_types import one_of
from rqmem.cli.terminal import connected, redis_options, warning_threshold
from rqmem.errors import ConfigError
from rqmem.observe import as_json as schema
from rqmem.observe.advice_to_paste import PASTED
from rqmem.observe.period_read import read_advice
from rqmem.show.advice_text import to_text
from rqmem.store.history import history_reader
from rqmem.text import json_text


@click.command()
@click.option("--job", metavar="TYPE", help="Only this job type; its last part is enough.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--apply", "paste", type=click.Choice(list(PASTED)), is_flag=False, flag_value="class",
              help="Print class attributes, or lines for rqmem.ini, to paste.")  # fmt: skip
@redis_options
def recommend(job: str | None, as_json: bool, paste: str | None, url: str | None) -> None:
    """Recommend a ceiling, chunk size and split threshold for each job type.

    It looks at the highest peak of each of the last 30 days, recent days
    before old ones, and adds 15 %; after breaches it adds more. It says why,
    how sure it is, and what the ceiling would have changed. It says so if
    there is too little history. It changes nothing, not even with --apply.

    \b
    rqmem recommend --job ProcessCampaign --apply
    rqmem recommend --apply config

    The names in --json are explained in docs/reference/json.md.
    """
    if as_json and paste:
        raise ConfigError("--apply and --json: give one of them")
    threshold = warning_threshold()
    connection, where = connected(url)
    history_reader.check_version(connection)
    job = one_of(job, history_reader.types(connection)) if job is not None else None
    found = read_advice(connection, where, threshold, time.time(), job)
    if as_json:
        click.echo(json_text(schema.of_advice(found), indent=2))
    else:
        click.echo(PASTED[paste](found) if paste is not None else to_text(found), nl=False)
