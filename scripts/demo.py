"""``make demo``: a campaign of 2,000 customers under a ceiling of 256 MB, from nothing to a summary.

Starts an embedded Redis, a stand-in for Retell's API and a worker; seeds, enqueues, runs, and checks
that every customer was called exactly once. Exit code 0 only then. What it starts it also ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rq.job import Job
from sqlalchemy import func, select

import rqmem
from jobs.database import Campaign, Customer, open_sessions
from rqmem import embedded_redis
from rqmem.journal import reader
from rqmem.testing import wait_until

ROOT = Path(__file__).parents[1]
API_KEY = "key_of_the_demo"
FAULTS = [
    "--rate-limit",
    "250",
    "--error-every",
    "300",
    "--error-mode",
    "after",
    "--slow-every",
    "500",
    "--slow-ms",
    "200",
]


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
    os.environ["DATABASE_URL"] = f"sqlite:///{folder}/demo.db"
    os.environ["RETELL_API_KEY"] = API_KEY
    with redis_server(), stand_in() as url:
        os.environ["RETELL_BASE_URL"] = url
        heading(f"Seeding {customers:,} customers")
        seeded = python("-m", "seeds.campaign", "--customers", str(customers), "--seed", str(seed), "--quiet")
        campaign_id = int(seeded.split()[-1])
        heading("Enqueueing the call plan and the campaign (scripts/enqueue_campaign.py)")
        plan_path = folder / f"call-plan-{campaign_id}.csv"
        enqueue = ("-m", "scripts.enqueue_campaign", str(campaign_id), "--call-plan", str(plan_path))
        job_ids = python(*enqueue).split()
        heading(f"rqmem worker --queue campaigns --memory {memory} --burst")
        worker = ["-m", "rqmem", "worker", "--queue", "campaigns", "--memory", memory, "--burst"]
        exit_code = subprocess.run([sys.executable, *worker], check=False).returncode
        heading("What happened")
        outcome = look(campaign_id, calls_received(url), plan_path)
        report(job_ids)
        outcome.report(time.monotonic() - started)
    click.echo("\nLook at it in rq-dashboard: make dashboard   (then http://127.0.0.1:9181)")
    sys.exit(0 if exit_code == 0 and outcome.complete else 1)


@dataclass(frozen=True)
class Outcome:
    """Every customer, as the database and the stand-in have them."""

    customers: int
    called: int
    failures: Counter[str]
    pending: int
    calls_received: int
    called_twice: int
    unaccounted: int
    plan_rows: int

    @property
    def complete(self) -> bool:
        return (
            self.pending == self.called_twice == self.unaccounted == 0
            and self.called == self.calls_received
            and self.called + sum(self.failures.values()) == self.customers
            and self.plan_rows == self.customers * 7 * 48
        )

    def report(self, seconds: float) -> None:
        click.echo(f"\ncustomers                {self.customers:>8,}")
        click.echo(f"  called                 {self.called:>8,}   (the API made {self.calls_received:,} calls)")
        for reason, count in self.failures.most_common():
            click.echo(f"  failed                 {count:>8,}   {reason}")
        click.echo(f"  still pending          {self.pending:>8,}")
        click.echo(f"  called twice           {self.called_twice:>8,}")
        click.echo(f"rows in the call plan    {self.plan_rows:>8,}")
        click.echo(f"seconds in all           {seconds:>8.1f}")
        verdict = ("every customer is accounted for exactly once", "green")
        if not self.complete:
            verdict = ("SOMETHING IS MISSING OR DOUBLE", "red")
        click.secho(verdict[0], fg=verdict[1], bold=True)


def look(campaign_id: int, calls: list[dict[str, Any]], plan: Path) -> Outcome:
    """Compare what the database says with what the stand-in received."""
    with open_sessions()() as session:
        customers = session.scalars(select(Customer).where(Customer.campaign_id == campaign_id)).all()
        campaign = session.get_one(Campaign, campaign_id)
        total = session.scalar(select(func.count()).where(Customer.campaign_id == campaign_id)) or 0
    call_of = {customer.id: customer.call_id for customer in customers if customer.status == "called"}
    ours = [call for call in calls if call["metadata"]["campaign_id"] == campaign_id]
    received = Counter(call["metadata"]["customer_id"] for call in ours)
    made = {call["metadata"]["customer_id"]: call["call_id"] for call in ours}
    return Outcome(
        customers=total,
        called=len(call_of),
        failures=Counter(kind(customer.failure) for customer in customers if customer.status == "failed"),
        pending=sum(customer.status == "pending" for customer in customers) + (campaign.status != "completed"),
        calls_received=len(ours),
        called_twice=sum(count > 1 for count in received.values()),
        unaccounted=len(call_of.items() ^ made.items()),
        plan_rows=count_rows(plan),
    )


def kind(failure: str | None) -> str:
    """Why a call failed, without the number it failed for."""
    return (failure or "?").partition(", got")[0]


def report(job_ids: list[str]) -> None:
    """One line a job, from RQ and from rqmem's journal."""
    connection = rqmem.connect()
    click.echo(f"{'job':<28}{'outcome':<10}{'chunks':>7}{'peak MB':>9}{'breaches':>10}{'resumes':>9}{'seconds':>9}")
    for job_id in job_ids:
        job, run = Job.fetch(job_id, connection=connection), reader.run(connection, job_id)
        name = run.job.rpartition(".")[2]
        click.echo(
            f"{name:<28}{job.get_status().value:<10}{run.chunks:>7}{run.peak_mb:>9.1f}"
            f"{run.breaches:>10}{run.resumes:>9}{run.seconds:>9.1f}"
        )


def count_rows(path: Path) -> int:
    """Lines of a file without its header; 0 where there is none."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(1 for _ in file) - 1


@contextmanager
def redis_server() -> Iterator[None]:
    """The Redis that commands choose; an embedded one is ended again if we started it."""
    if os.environ.get("RQMEM_REDIS_URL") or os.environ.get("REDIS_URL"):
        yield
        return
    server = embedded_redis.start()
    heading(f"Embedded Redis {server.version} at {server.url}")
    try:
        yield
    finally:
        if server.started:
            embedded_redis.stop()


@contextmanager
def stand_in() -> Iterator[str]:
    """Retell's API, played by ``python -m seeds.retell_stand_in``, with its moods."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "url"
        options = ["--port", "0", "--api-key", API_KEY, "--ready-file", str(ready), *FAULTS]
        process = subprocess.Popen([sys.executable, "-m", "seeds.retell_stand_in", *options], stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: ready.exists() or process.poll() is not None, 30)
            if process.poll() is not None:
                sys.exit(1)  # it said why
            url = ready.read_text().strip()
            heading(f"Retell stand-in on {url}: 250 calls/s at most, some errors, some slow answers")
            yield url
        finally:
            process.terminate()
            process.wait()


def calls_received(url: str) -> list[dict[str, Any]]:
    """Every call the stand-in made."""
    request = urllib.request.Request(f"{url}/_record/calls", headers={"Authorization": f"Bearer {API_KEY}"})
    with urllib.request.urlopen(request) as response:
        return [json.loads(line) for line in response]


def python(*arguments: str) -> str:
    """Run a Python program of the repository; what it prints. Its failure is ours."""
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def heading(text: str) -> None:
    click.secho(f"\n== {text}", bold=True)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
