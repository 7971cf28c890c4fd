"""``rqmem enqueue``: put a job on its queue from a shell, and wait for its end where that is asked."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import click
from redis import Redis

from rqmem.cli.call import Target, arguments, resolve
from rqmem.cli.options import code_path, parsed, serializer_option
from rqmem.cli.terminal import redis_options, show
from rqmem.cli.waiting import ENDED, shown, until_ended
from rqmem.config.parsers import seconds_or_no_limit, whole_seconds
from rqmem.connection.connect import connect
from rqmem.errors import ConfigError, RqmemError
from rqmem.named_code import serializer
from rqmem.observe.find import find
from rqmem.rq_names import (
    Job,
    Queue,
    Retry,
    get_worker_keys,
    validate_job_id,
)
from rqmem.text import did_you_mean, json_text, timestamp

_TIME = parsed("TIME", whole_seconds)
_PAUSE = parsed("TIME", partial(whole_seconds, least=0))
_TTL = parsed("TIME", seconds_or_no_limit)


@click.command()
@click.argument("path")
@click.argument("arguments", nargs=-1)
@click.option(
    "--arg", "args", metavar="VALUE", multiple=True, help="A positional argument: JSON if it is JSON, else text."
)
@click.option("--kwarg", "kwargs", metavar="NAME=JSON", multiple=True, help="An argument by name; its value is JSON.")
@click.option("--queue", "-q", metavar="NAME", help="The queue. Without it: the class's, or 'default'.")
@click.option(
    "--timeout",
    **parsed("TIME", partial(seconds_or_no_limit, least=1)),
    help="The longest time that the job may run; -1: no limit.",
)
@click.option("--result-ttl", **_TTL, help="How long to keep job and result; -1: for ever.")
@click.option("--ttl", **_TIME, help="How long it may wait in the queue; then it is dropped.")
@click.option("--failure-ttl", **_TTL, help="How long to keep the job if it fails; -1: for ever.")
@click.option("--description", metavar="TEXT", help="The text to show instead of the call.")
@click.option("--depends-on", metavar="ID", multiple=True, help="A job that must finish first. May be repeated.")
@click.option("--job-id", metavar="ID", help="The id of the job. Without it: a random one.")
@click.option("--at-front", is_flag=True, help="Put it at the front of the queue.")
@click.option("--retry-max", metavar="N", type=click.IntRange(min=1), help="How often to try again if it fails.")
@click.option(
    "--retry-interval",
    **_PAUSE,
    multiple=True,
    help="The time before each retry. May be repeated; the last one holds for all further retries.",
)
@click.option("--schedule-in", **_PAUSE, help="Enqueue it after this time.")
@click.option("--schedule-at", metavar="ISO", help="Enqueue it at this time, as 2026-05-27T21:45:00[+02:00].")
@serializer_option
@click.option("--wait", **_TIME, help="Wait at most this long for the job to end, and print its result.")
@click.option("--json", "as_json", is_flag=True, help="Print the job as a JSON object.")
@click.option("--quiet", is_flag=True, help="Print nothing but the job's id and result.")
@redis_options
@code_path
def enqueue(path: str, paths: tuple[str, ...], url: str | None, as_json: bool, quiet: bool, **given: Any) -> None:
    """Enqueue the job at PATH and print its id.

    PATH is a MemoryAwareJob (module.Class) or a function (module.function). Its
    arguments are given with --arg and --kwarg, or in rq's forms: text, :JSON,
    name=text, name:=JSON, %literal, @file. A worker must run it: rqmem worker.

    \b
    rqmem enqueue jobs.mail.Send --kwarg tenant_id=7 --kwarg 'name="Ada"'
    rqmem enqueue jobs.mail.count :7 'days:=[1, 2]' --wait 1m

    A bare 7 is the text "7", as in rq; :7, --arg 7 and n:=7 are the number.

    TIME is in seconds, or as in 90s, 10m, 2h, 3d.

    Exit code 1 when --wait ends before the job, or the job fails.
    """
    sys.path[:0] = paths
    target = resolve(path)
    args, kwargs = arguments(given["arguments"], given["args"], given["kwargs"])
    target.check(args, kwargs)
    options, due = _options(given), _due(given["schedule_in"], given["schedule_at"])
    _check_serializer(given["serializer"], args, kwargs)
    connection = connect(url, announce=lambda line: None if quiet else show(line, err=True))
    if given["depends_on"]:
        options["depends_on"] = [find(connection, job_id) for job_id in given["depends_on"]]
    if given["job_id"] is not None:
        _check_free(connection, given["job_id"])
    call = {"args": args, "kwargs": kwargs, **options}
    asked_at = datetime.now(timezone.utc)
    job = _enqueue(target, given["queue"], call, due, connection, given["serializer"])
    if not quiet:
        show(_told(job, due, connection, asked_at), err=True)
        for note in target.texts_for_numbers(given["arguments"]):
            show(f"note: {note}", err=True)
    if not as_json:
        click.echo(job.id)
    if given["wait"] is None:
        if as_json:
            click.echo(json_text(_fields(job, due)))
        return
    end = until_ended(job, given["wait"])
    finished = end.status == "finished"
    if as_json:
        click.echo(json_text({**_fields(job, due), **vars(end)}, default=shown))
    elif finished:
        click.echo(json_text(end.result, default=shown))
    if end.error and finished:
        click.echo(f"rqmem: job {job.id} {end.status}, but {end.error}", err=True)
    elif end.error:
        raise RqmemError(f"job {job.id} {end.status}: {end.error}")


# Options


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """RQ's enqueue options, those that were given. Raises `ConfigError`."""
    if given["retry_interval"] and not given["retry_max"]:
        raise ConfigError("--retry-interval without --retry-max: say how often to try again")
    if given["depends_on"] and (given["schedule_in"] is not None or given["schedule_at"]):
        raise ConfigError(
            "--depends-on with --schedule-in or --schedule-at: such a job runs when due, whatever it depends on"
        )
    retry = None
    if given["retry_max"]:
        retry = Retry(max=given["retry_max"], interval=list(given["retry_interval"]) or 0)
    as_given = ("result_ttl", "ttl", "failure_ttl", "description", "job_id")
    options = {name: given[name] for name in as_given}
    options |= {"job_timeout": given["timeout"], "at_front": given["at_front"] or None, "retry": retry}
    return {name: value for name, value in options.items() if value is not None}


def _due(seconds: int | None, at: str | None) -> datetime | None:
    """When the job is to be enqueued; None: now. Raises `ConfigError`."""
    if seconds is not None and at is not None:
        raise ConfigError("--schedule-in and --schedule-at: give one of them")
    if seconds is not None:
        return datetime.now(timezone.utc) + timedelta(seconds=seconds)
    if at is None:
        return None
    try:
        return datetime.fromisoformat(at.replace("Z", "+00:00")).astimezone()  # without a zone: local time, as in rq
    except (ValueError, OverflowError):
        raise ConfigError(f"--schedule-at={at!r}: give a time as 2026-05-27T21:45:00, or ...+02:00") from None


def _check_serializer(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Whether it is there and takes these arguments. Raises `ConfigError`."""
    found = serializer(name, "--serializer")
    try:
        found.dumps((args, kwargs))
    except Exception as error:  # noqa: BLE001  serializers raise many kinds
        raise ConfigError(f"--serializer {name} does not take these arguments: {error}") from None


def _check_free(connection: Redis, job_id: str) -> None:
    """RQ would put the new job over one of the same id that has not ended. Raises `ConfigError`."""
    try:
        validate_job_id(job_id)
    except ValueError as error:
        raise ConfigError(f"--job-id {job_id!r}: {error}") from None
    if Job.exists(job_id, connection):
        status = Job.fetch(job_id, connection=connection).get_status(refresh=False)
        if status not in ENDED:
            raise ConfigError(f"--job-id {job_id}: there is one, and it is {status.value}: give another id")


# The job


def _enqueue(
    target: Target, queue: str | None, call: dict[str, Any], due: datetime | None, connection: Redis, serializer: str
) -> Job:
    if queue is not None and not queue.strip():
        raise ConfigError(f"queue name {queue!r} is empty: give a name, for example --queue campaigns")
    if target.job_class is not None:
        where = {"connection": connection, "serializer": serializer}
        if due is not None:
            return target.job_class.enqueue_at(due, queue, **call, **where)
        return target.job_class.enqueue(queue, **call, **where)
    on = Queue(queue or "default", connection=connection, serializer=serializer)
    return on.enqueue(target.path, **call) if due is None else on.enqueue_at(due, target.path, **call)


def _told(job: Job, due: datetime | None, connection: Redis, asked_at: datetime) -> str:
    """What was done, for the person at the shell; whether somebody will take it."""
    if job.created_at < asked_at:
        return f"not enqueued, since it is unique: {job.description} is {job.get_status(refresh=False).value} already"
    when = f"scheduled for {due.astimezone():%Y-%m-%d %H:%M:%S}" if due is not None else "enqueued"
    queue = Queue(job.origin, connection=connection)
    return f"{when}: {job.description} on queue {job.origin!r}{'' if get_worker_keys(queue) else _unserved(queue)}"


def _unserved(queue: Queue) -> str:
    from rqmem.observe.snapshot import served_queues  # most calls need none

    near = did_you_mean(queue.name, served_queues(queue.connection))
    return f"; no worker serves it now: {f'{near} Else start one: ' if near else ''}rqmem worker {queue.name}"


def _fields(job: Job, due: datetime | None) -> dict[str, Any]:
    """What --json prints; with --wait also status, result, error and seconds at its end."""
    return {
        "job_id": job.id,
        "call": job.description,
        "queue": job.origin,
        "status": job.get_status(refresh=False).value,
        "scheduled_for": timestamp(due.timestamp()) if due is not None else None,
    }
