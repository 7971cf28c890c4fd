"""``make demo``: runs a campaign of 2,000 customers under a ceiling of 256 MB, and prints a summary.

Starts an embedded Redis, a stand-in for Retell's API and a worker. Seeds and enqueues the campaign, runs it, and checks
that every customer was called exactly once; only then the exit code is 0. It stops everything that it started. Its jobs
are on a queue of its own, and none waits there afterwards.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import click

import rqmem
from rqmem.units import show_mb
from scripts import campaign_run
from scripts.campaign_run import python
from scripts.harness import MB, ROOT, dashboard, heading, running
from scripts.own_queue import own_queue
from seeds.retell_stand_in import Faults

FAULTS = Faults(rate_limit=250, error_every=300, error_mode="after", slow_every=500, slow_ms=200)


@click.command()
@click.option("--customers", type=click.IntRange(1), default=2000, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True)
@click.option("--memory", **MB, default="256", show_default=True, help="Ceiling of the worker in MB.")
@click.option("--keep", is_flag=True, help="Leave the dashboard, and what it shows, until Ctrl-C.")
def main(customers: int, seed: int, memory: float, keep: bool) -> None:
    """Run the demo in .demo/ of this repository."""
    folder = ROOT / ".demo"
    os.environ.pop("DATABASE_URL", None)  # the demo's is new each time
    with (
        campaign_run.prepared("demo", folder, "demo.db", FAULTS) as url,
        dashboard(folder / "dashboard.log") as address,
    ):
        click.secho(f"Watch it in a browser: {address}live", bold=True)
        complete = run(customers, seed, show_mb(memory), folder, url)
        if keep:
            click.secho(f"\nLook at it: {address}   (Ctrl-C ends it)", bold=True)
            with suppress(KeyboardInterrupt):
                signal.pause()
    click.echo("\nLook at it again: make demo DEMO_OPTIONS=--keep")
    sys.exit(0 if complete else 1)


def run(customers: int, seed: int, memory: str, folder: Path, url: str) -> bool:
    """Run the demo. Returns whether every customer has been called once, and every row of the plan is there."""
    started = time.monotonic()
    heading(f"Seeding {customers:,} customers")
    seeded = python("-m", "seeds.campaign", "--customers", str(customers), "--seed", str(seed), "--quiet")
    campaign_id = int(seeded.split()[-1])
    plan = folder / f"call-plan-{campaign_id}.csv"
    plan.unlink(missing_ok=True)
    connection = rqmem.connect()
    with own_queue(connection, "demo", keep_ended=True) as queue:
        heading("Enqueueing the call plan and the campaign (scripts/enqueue_campaign.py)")
        options = ["--call-plan", str(plan), "--queue", queue.name]
        job_ids = python("-m", "scripts.enqueue_campaign", str(campaign_id), *options).split()
        heading(f"rqmem worker --queue {queue.name} --memory {memory} --burst")
        with running("rqmem", "worker", "--queue", queue.name, "--memory", memory, "--burst") as worker:
            exit_code = worker.wait()
        outcome = campaign_run.report(connection, campaign_id, job_ids, url)
    rows = count_rows(plan)
    click.echo(f"rows in the call plan    {rows:>8,}")
    click.echo(f"seconds in all           {time.monotonic() - started:>8.1f}")
    if exit_code:
        click.echo(f"demo: the worker ended with {exit_code}; it says why above", err=True)
    complete = exit_code == 0 and outcome.complete and rows == customers * 7 * 48
    campaign_run.verdict(complete)
    return complete


def count_rows(path: Path) -> int:
    """Lines of a file without its header; 0 if there is no file."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(1 for _ in file) - 1


if __name__ == "__main__":
    main()
