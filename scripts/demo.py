"""``make demo``: a campaign of 2,000 customers under a ceiling of 256 MB, from nothing to a summary.

Starts an embedded Redis, a stand-in for Retell's API and a worker; seeds, enqueues, runs, and checks
that every customer was called exactly once. Exit code 0 only then. What it starts it also ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import click

import rqmem
from scripts import campaign_run
from scripts.campaign_run import heading, python
from seeds.retell_stand_in import Faults

ROOT = Path(__file__).parents[1]
FAULTS = Faults(rate_limit=250, error_every=300, error_mode="after", slow_every=500, slow_ms=200)


@click.command()
@click.option("--customers", type=click.IntRange(1), default=2000, show_default=True)
@click.option("--seed", type=int, default=7, show_default=True)
@click.option("--memory", default="256", show_default=True, help="Ceiling of the worker in MB.")
def main(customers: int, seed: int, memory: str) -> None:
    """Run the demo in .demo/ of this repository."""
    started = time.monotonic()
    os.chdir(ROOT)
    folder = Path(".demo")
    folder.mkdir(exist_ok=True)
    for old in folder.glob("demo.db*"):  # an older run's, whose schema may be another
        old.unlink()
    os.environ["DATABASE_URL"] = f"sqlite:///{folder}/demo.db"
    with campaign_run.redis_server(), campaign_run.stand_in(FAULTS) as url:
        heading(f"Seeding {customers:,} customers")
        seeded = python("-m", "seeds.campaign", "--customers", str(customers), "--seed", str(seed), "--quiet")
        campaign_id = int(seeded.split()[-1])
        heading("Enqueueing the call plan and the campaign (scripts/enqueue_campaign.py)")
        plan = folder / f"call-plan-{campaign_id}.csv"
        plan.unlink(missing_ok=True)
        job_ids = python("-m", "scripts.enqueue_campaign", str(campaign_id), "--call-plan", str(plan)).split()
        heading(f"rqmem worker --queue campaigns --memory {memory} --burst")
        worker = ["-m", "rqmem", "worker", "--queue", "campaigns", "--memory", memory, "--burst"]
        exit_code = subprocess.run([sys.executable, *worker], check=False).returncode
        heading("What happened")
        outcome = campaign_run.look(campaign_id, campaign_run.calls_received(url))
        campaign_run.report_jobs(rqmem.connect(), job_ids)
        outcome.report()
        rows = count_rows(plan)
        click.echo(f"rows in the call plan    {rows:>8,}")
        click.echo(f"seconds in all           {time.monotonic() - started:>8.1f}")
        complete = outcome.complete and rows == customers * 7 * 48
        campaign_run.verdict(complete)
    click.echo("\nLook at it in rq-dashboard: make dashboard   (then http://127.0.0.1:9181)")
    sys.exit(0 if exit_code == 0 and complete else 1)


def count_rows(path: Path) -> int:
    """Lines of a file without its header; 0 where there is none."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(1 for _ in file) - 1


if __name__ == "__main__":
    main()
