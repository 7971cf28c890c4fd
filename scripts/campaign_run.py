"""Starts what a campaign needs on this machine (a Redis, a stand-in for Retell), and judges the outcome.

Used by `scripts.demo`, `scripts.test_campaign` and `scripts.load_test`.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from redis import Redis
from rq.exceptions import NoSuchJobError
from rq.job import Job
from sqlalchemy import select

from jobs.sources import shared_sessions
from jobs.tables import OPEN, Campaign, Customer
from rqmem import child_ids
from rqmem.connection import embedded
from rqmem.connection.connect import choose_url
from rqmem.errors import ConfigError
from rqmem.job import progress
from rqmem.measure.linux import die_with_parent
from rqmem.store import execution_reader
from rqmem.store.execution_records import RunRecord
from rqmem.testing import wait_until
from scripts.harness import ROOT, heading, running
from seeds.command_errors import one_line_errors
from seeds.retell_stand_in import Faults

API_KEY = "key_of_the_stand_in"
SHOWN_CHILDREN = 20


@dataclass(frozen=True)
class Outcome:
    """Every customer, by the database and by the stand-in.

    ``campaign`` is its status. ``failed_after_call``: a call was made and failed, for example because nobody answered.
    ``unaccounted``: the database and the stand-in disagree.
    """

    campaign: str
    customers: int
    called: int
    failures: Counter[str]
    failed_after_call: int
    unknown: int
    pending: int
    calls_received: int
    called_twice: int
    unaccounted: int

    @property
    def complete(self) -> bool:
        return (
            self.campaign == "completed"
            and self.pending == self.unknown == self.called_twice == self.unaccounted == 0
            and self.called + self.failed_after_call == self.calls_received
            and self.called + sum(self.failures.values()) == self.customers
        )

    def report(self) -> None:
        click.echo(f"\ncustomers                {self.customers:>8,}")
        click.echo(f"  called                 {self.called:>8,}   (the API made {self.calls_received:,} calls)")
        for reason, count in self.failures.most_common():
            click.echo(f"  failed                 {count:>8,}   {reason}")
        if self.unknown:
            click.echo(f"  unknown                {self.unknown:>8,}   (a person has to look)")
        click.echo(f"  still pending          {self.pending:>8,}")
        click.echo(f"  called twice           {self.called_twice:>8,}")
        if self.campaign != "completed":
            click.echo(f"the campaign is          {self.campaign:>8}   (not completed)")


def verdict(complete: bool) -> None:
    """Print the verdict, as the last line."""
    text, colour = ("every customer is accounted for exactly once", "green")
    if not complete:
        text, colour = ("SOMETHING IS MISSING OR DOUBLE", "red")
    click.secho(text, fg=colour, bold=True)


def look(campaign_id: int, calls: list[dict[str, Any]]) -> Outcome:
    """Compare what the database says with what the stand-in received."""
    wanted = select(Customer.id, Customer.status, Customer.call_id, Customer.failure)
    with shared_sessions()() as session:
        customers = session.execute(wanted.where(Customer.campaign_id == campaign_id)).all()
        campaign = session.get_one(Campaign, campaign_id)
    ours = [call for call in calls if call["metadata"]["campaign_id"] == campaign_id]
    received = Counter(call["metadata"]["customer_id"] for call in ours)
    made = {call["metadata"]["customer_id"]: call["call_id"] for call in ours}
    call_of = {customer.id: customer.call_id for customer in customers if customer.call_id}
    by_status = Counter(customer.status for customer in customers)
    return Outcome(
        campaign=campaign.status,
        customers=len(customers),
        called=by_status["called"],
        failures=Counter(kind(customer.failure) for customer in customers if customer.status == "failed"),
        failed_after_call=sum(customer.status == "failed" and customer.call_id is not None for customer in customers),
        unknown=by_status["unknown"],
        pending=sum(by_status[status] for status in OPEN),
        calls_received=len(ours),
        called_twice=sum(count > 1 for count in received.values()),
        unaccounted=len(call_of.items() ^ made.items()),
    )


def kind(failure: str | None) -> str:
    """Why a call failed, without the phone number."""
    return (failure or "?").partition(", got")[0]


def report(connection: Redis, campaign_id: int, job_ids: Iterable[str], url: str) -> Outcome:
    """Print what became of the jobs and of the customers. ``url``: of the stand-in."""
    heading("What happened")
    outcome = look(campaign_id, calls_received(url))
    report_jobs(connection, job_ids)
    outcome.report()
    return outcome


def report_jobs(connection: Redis, job_ids: Iterable[str]) -> None:
    """Print a line for each job and each of its first children, from RQ and from the journal, and their progress."""
    click.echo(f"{'job':<32}{'outcome':<10}{'chunks':>7}{'peak MB':>9}{'breaches':>10}{'resumes':>9}{'seconds':>9}")
    for job_id in job_ids:
        run = execution_reader.run(connection, job_id)
        _report_job(connection, job_id, run.job.rpartition(".")[2], run)
        if run.split is None:
            continue
        for number in range(min(run.split.total, SHOWN_CHILDREN)):
            child_id = child_ids.child_id(job_id, number)
            _report_job(connection, child_id, f"  child {number}", execution_reader.run(connection, child_id))
        far = progress.progress(connection, job_id)
        click.echo(
            f"  {far.done} of {far.total} children done, {far.failed} failed: {far.items:,} customers, "
            f"{far.peak_mb:.1f} MB at most"
        )


def _report_job(connection: Redis, job_id: str, name: str, run: RunRecord) -> None:
    try:
        outcome = Job.fetch(job_id, connection=connection).get_status().value
    except NoSuchJobError:  # its time to live is over
        outcome = "?"
    click.echo(
        f"{name:<32}{outcome:<10}{run.chunks:>7}{run.peak_mb:>9.1f}"
        f"{run.breaches:>10}{run.resumes:>9}{run.seconds:>9.1f}"
    )


def make_folder(path: Path) -> None:
    """Make the folder if it is missing. Raises `ConfigError` if it cannot be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ConfigError(f"{path} cannot be written to: {error.strerror}; mend that, or name another folder") from None


@contextmanager
def prepared(script: str, folder: Path, database: str, faults: Faults) -> Iterator[str]:
    """What a campaign needs, until the block is left: a folder, a database, Redis and a stand-in, whose URL it yields.

    The database is a new SQLite file of that name in the folder, unless DATABASE_URL names another. An error ends the
    process with one line, and SIGTERM ends what was started too.
    """
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    named = os.environ.get("DATABASE_URL")
    os.environ["DATABASE_URL"] = named or f"sqlite:///{folder}/{database}"
    with (
        one_line_errors(script),
        own_folder(folder, None if named else database),
        redis_server(),
        stand_in(faults) as url,
    ):
        yield url


@contextmanager
def own_folder(path: Path, database: str | None) -> Iterator[None]:
    """Lock the folder until the block is left. Files of ``database`` that an older run left in it are removed.

    Raises `ConfigError` if it cannot be written to, or another run has it.
    """
    make_folder(path)
    with (path / "lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another run uses {path}: let it end, or name another folder") from None
        for old in path.glob(f"{database}*") if database else ():
            old.unlink()
        yield


@contextmanager
def redis_server() -> Iterator[None]:
    """The Redis that rqmem's commands use. An embedded one is stopped at the end if this script started it."""
    if choose_url() is not None:
        yield
        return
    server = embedded.start()
    heading(f"Embedded Redis {server.version} at {server.url}")
    try:
        yield
    finally:
        if server.started:
            embedded.stop()


@contextmanager
def stand_in(faults: Faults) -> Iterator[str]:
    """Run ``python -m seeds.retell_stand_in`` in place of Retell's API. Its URL and key go into the environment."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "url"
        command = ["seeds.retell_stand_in", "--port", "0", "--api-key", API_KEY, "--ready-file", str(ready)]
        with running(
            *command, *_as_options(faults), stdout=subprocess.DEVNULL,
            process_group=0, preexec_fn=die_with_parent,  # after Ctrl-C it still answers the workers' last calls
        ) as process:  # fmt: skip
            wait_until(lambda: ready.exists() or process.poll() is not None, 30)
            if process.poll() is not None:
                sys.exit(1)  # it said why
            url = ready.read_text().strip()
            os.environ["RETELL_API_KEY"], os.environ["RETELL_BASE_URL"] = API_KEY, url
            heading(f"Retell stand-in on {url}{_mood(faults)}")
            yield url


def _as_options(faults: Faults) -> list[str]:
    """The options of the stand-in's command that set these faults."""
    options: list[str] = []
    for name, value in faults.as_dict().items():
        option = f"--{name.replace('_', '-')}"
        options += [option, str(value)] if not isinstance(value, bool) else [option] if value else []
    return options


def _mood(faults: Faults) -> str:
    usual = Faults().as_dict()
    changed = [f"{name}={value}" for name, value in faults.as_dict().items() if value != usual[name]]
    return f" ({', '.join(changed)})" if changed else ""


def calls_received(url: str) -> list[dict[str, Any]]:
    request = urllib.request.Request(f"{url}/_record/calls", headers={"Authorization": f"Bearer {API_KEY}"})
    with urllib.request.urlopen(request) as response:
        return [json.loads(line) for line in response]


def python(*arguments: str) -> str:
    """Run a Python program of the repository and return what it prints. If it fails, exit with its code."""
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout
