"""Runs a campaign from its first to its last call: ``python -m scripts.test_campaign --customers 1000``.

Seeds a campaign, enqueues its job on a queue of its own, starts workers, and follows the job with a progress bar. Then
it compares the database with what the stand-in for Retell received. Exit code 0 only if every customer is accounted for
exactly once. The database is ``DATABASE_URL``, else a new file in ``.campaign/`` (``--folder``), where
the workers' logs are too.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import STDOUT
from typing import Any

import click
from rq import Queue
from rq.job import Job, JobStatus
from sqlalchemy import func, select

import rqmem
from jobs.campaign_batches import ProcessRetellAICampaignBatchJob
from jobs.campaigns import ProcessRetellAICampaignJob
from jobs.database import create_schema, open_database
from jobs.sources import shared_sessions
from jobs.tables import OPEN, Campaign, Customer
from rqmem.doctor.selftest import last_words
from rqmem.units import show_mb
from scripts import campaign_run
from scripts.harness import MB, error_of, heading, running
from scripts.own_queue import own_queue, unfinished
from seeds.campaign import seed_campaign
from seeds.retell_stand_in import Faults

LOOK_SECONDS = 0.2
LOOKS = 10  # a job that was just taken from its queue is in no registry of RQ's yet
FAILED = (JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED)


def _faults(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> Faults:
    values: dict[str, Any] = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    try:
        return Faults.parse(values)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@dataclass(frozen=True)
class Workers:
    """``number`` workers with the ceiling ``memory`` in MB. Their logs go to ``folder``."""

    number: int
    memory: str
    folder: Path

    @contextmanager
    def working(self, queue: str) -> Iterator[Callable[[], bool]]:
        """Run the workers on that queue until the block is left. Yields a function: whether any is alive."""
        command = ["rqmem", "worker", "--with-scheduler", "--queue", queue, "--memory", self.memory]
        with ExitStack() as stack:
            files = [stack.enter_context(log.open("wb")) for log in self.logs]
            processes = [stack.enter_context(running(*command, stdout=file, stderr=STDOUT)) for file in files]
            yield lambda: any(process.poll() is None for process in processes)
            for process in processes:
                process.terminate()  # all at once, before each is waited for

    @property
    def logs(self) -> list[Path]:
        return [self.folder / f"worker-{number}.log" for number in range(1, self.number + 1)]

    def last_words(self) -> str:
        """The last lines of the logs, and where the logs are."""
        return f"{last_words(''.join(log.read_text(errors='replace') for log in self.logs))}   ({self.folder}/)"


@click.command()
@click.option("--customers", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True)
@click.option("--batches", is_flag=True, help="Call them in batches, with one request for 100 customers.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True)
@click.option("--memory", **MB, default="512", show_default=True, help="Ceiling of each worker in MB.")
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), default=".campaign", show_default=True,
    help="For the database and the workers' logs.",
)  # fmt: skip
@click.option(
    "--fault", "faults", metavar="NAME=VALUE", multiple=True, callback=_faults,
    help="What the stand-in does wrong, repeatable: rate_limit=50, error_every=20, error_mode=drop (or before, after), "
    "latency_ms=30, slow_every=100, slow_ms=2000, unanswered_every=10.",
)  # fmt: skip
def main(customers: int, seed: int, batches: bool, workers: int, memory: float, folder: Path, faults: Faults) -> None:
    """Seed a campaign, run it, follow it to its end, and say what became of each customer."""
    folder = folder.absolute()
    with campaign_run.prepared("test_campaign", folder, "campaign.db", faults) as url:
        complete = run(customers, seed, batches, Workers(workers, show_mb(memory), folder), url)
    sys.exit(0 if complete else 1)


def run(count: int, seed: int, batches: bool, workers: Workers, url: str) -> bool:
    """Run one campaign. Returns whether it is complete. Its queue is removed."""
    engine = open_database()
    create_schema(engine)
    connection = rqmem.connect()
    with click.progressbar(length=count, label="seeding") as bar:
        campaign_id = seed_campaign(engine, count=count, seed=seed, on_batch=bar.update).campaign_id
    job_class = ProcessRetellAICampaignBatchJob if batches else ProcessRetellAICampaignJob
    with own_queue(connection, "test-campaign") as queue:
        job = job_class.enqueue(queue, campaign_id=campaign_id)
        heading(f"{job_class.__name__} {job.id}; workers' logs in {workers.folder}/")
        started = time.monotonic()
        with workers.working(queue.name) as alive, click.progressbar(length=count, label="calling") as bar:
            follow(campaign_id, job, queue, alive, lambda done: bar.update(done - bar.pos), workers.last_words)
            ended = not alive()
        seconds = time.monotonic() - started
        outcome = campaign_run.report(connection, campaign_id, [job.id], url)
        rate = outcome.calls_received / seconds
        click.echo(f"seconds                  {seconds:>8.1f}   ({rate:,.0f} calls a second)")
        if job.get_status() in FAILED:
            click.echo(error_of(job) or "the job failed", err=True)
    if ended:
        click.echo(f"test_campaign: the workers have ended: {workers.last_words()}", err=True)
    campaign_run.verdict(outcome.complete)
    return outcome.complete


def follow(
    campaign_id: int,
    job: Job,
    queue: Queue,
    alive: Callable[[], bool],
    show: Callable[[int], object],
    last_words: Callable[[], str],
) -> None:
    """Wait until the campaign is completed, or nothing is left that could complete it."""
    settled = select(func.count()).where(Customer.campaign_id == campaign_id, Customer.status.not_in(OPEN))
    looks, waits = 0, False
    while True:
        with shared_sessions()() as session:
            show(session.scalar(settled) or 0)
            completed = session.get_one(Campaign, campaign_id).status == "completed"
        status = job.get_status()
        if status == JobStatus.SCHEDULED and not waits:
            click.echo(f"\nthe job waits to be tried again: {last_words()}", err=True)
        waits = status == JobStatus.SCHEDULED
        looks = 0 if unfinished(queue) else looks + 1
        if status in FAILED or not alive() or (status == JobStatus.FINISHED and (completed or looks > LOOKS)):
            return
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main()
