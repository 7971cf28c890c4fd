"""The campaign: real SDK, real database, a stand-in that counts; killed, failed and run again."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from rq.job import Job, JobStatus
from sqlalchemy import select
from sqlalchemy.engine import Engine

from jobs.campaigns import ProcessRetellAICampaignJob
from jobs.database import Campaign, Customer, create_schema, open_database, session_factory
from jobs.exports import ExportCallPlanJob
from rqmem.journal import reader
from rqmem.testing import wait_until
from seeds.campaign import seed_campaign
from seeds.phone_numbers import is_e164
from seeds.retell_stand_in import Faults, StandIn
from tests.conftest import ROOT, StartWorker


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path}/app.db")
    create_schema(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def retell() -> Iterator[StandIn]:
    with StandIn() as stand_in:
        yield stand_in


@pytest.fixture
def environ(database: Engine, retell: StandIn) -> dict[str, str]:
    """What a worker needs to find both."""
    return {
        "DATABASE_URL": str(database.url),
        "RETELL_API_KEY": retell.api_key,
        "RETELL_BASE_URL": retell.url,
        "RQMEM_HEARTBEAT": "0.5",
    }


def enqueue(campaign_id: int, connection: Redis) -> Job:
    return ProcessRetellAICampaignJob.enqueue(campaign_id=campaign_id, connection=connection)


def customers(database: Engine) -> list[Customer]:
    with session_factory(database)() as session:
        return list(session.scalars(select(Customer).order_by(Customer.id)))


def campaign(database: Engine) -> Campaign:
    with session_factory(database)() as session:
        return session.get_one(Campaign, 1)


def assert_called_exactly_once(database: Engine, retell: StandIn) -> None:
    """Every customer with a number has one call, the one the API made; every other one a reason."""
    calls = [(json.loads(call.metadata)["customer_id"], call.call_id) for call in retell.service.calls()]
    made = dict(calls)
    assert len(made) == len(calls)
    for customer in customers(database):
        if is_e164(customer.phone):
            assert (customer.status, customer.call_id) == ("called", made[customer.id])
        else:
            assert customer.status == "failed"
            assert customer.failure
            assert customer.id not in made
    ended = campaign(database)
    assert ended.status == "completed"
    assert ended.customers_called == len(calls)
    assert ended.customers_called + ended.customers_failed == len(customers(database))


def test_a_campaign_is_called_and_completed(
    connection: Redis, database: Engine, retell: StandIn, environ: dict[str, str], start_worker: StartWorker
) -> None:
    seeded = seed_campaign(database, count=120, seed=3)
    job = enqueue(seeded.campaign_id, connection)
    log = start_worker("campaigns", "--memory", "256", "--burst", "--log-level", "debug", **environ).finish()
    assert job.return_value() == {"called": seeded.valid_numbers, "failed": 120 - seeded.valid_numbers}, log
    assert_called_exactly_once(database, retell)
    assert reader.run(connection, job.id).chunks == 3
    for checkpoint in ("customer_processing_1", "customer_processing_120", "api_call", "campaign_completion"):
        assert f"at {checkpoint}\n" in log


def test_errors_after_the_call_was_made_do_not_repeat_it(
    connection: Redis, database: Engine, retell: StandIn, environ: dict[str, str], start_worker: StartWorker
) -> None:
    retell.service.set_faults(Faults(error_every=10, error_mode="after"))
    seeded = seed_campaign(database, count=30, seed=3)
    job = enqueue(seeded.campaign_id, connection)
    start_worker("campaigns", "--burst", **environ).finish()
    assert job.get_status() == JobStatus.FINISHED
    record = retell.service.record()
    assert record["errors"] >= 2
    assert record["duplicates"] >= 2
    assert_called_exactly_once(database, retell)


def test_a_killed_worker_and_another_one_call_each_customer_once(
    connection: Redis, database: Engine, retell: StandIn, environ: dict[str, str], start_worker: StartWorker
) -> None:
    seeded = seed_campaign(database, count=400, seed=5)
    job = enqueue(seeded.campaign_id, connection)
    for made in (60, 160):
        worker = start_worker("campaigns", "--memory", "256", **environ)
        wait_until(lambda: retell.service.record()["calls"] >= made, 60)  # noqa: B023
        worker.kill()
    start_worker("campaigns", "--memory", "256", **environ)
    wait_until(lambda: job.get_status() == JobStatus.FINISHED, 60)
    assert_called_exactly_once(database, retell)
    assert reader.run(connection, job.id).resumes == 2


def test_a_finished_campaign_may_be_run_again(
    connection: Redis, database: Engine, retell: StandIn, environ: dict[str, str], start_worker: StartWorker
) -> None:
    seeded = seed_campaign(database, count=20, seed=3)
    jobs = [enqueue(seeded.campaign_id, connection) for _ in range(2)]
    start_worker("campaigns", "--burst", **environ).finish()
    assert jobs[0].return_value() == jobs[1].return_value()
    assert_called_exactly_once(database, retell)


@pytest.mark.parametrize(
    ("campaign_id", "changes", "line"),
    [
        (99, {}, "ConfigError: campaign 99 does not exist; python -m seeds.campaign makes one"),
        (1, {"RETELL_API_KEY": ""}, "ConfigError: RETELL_API_KEY is not set"),
        (1, {"RETELL_API_KEY": "wrong"}, "ConfigError: Retell refuses RETELL_API_KEY"),
        (1, {"DATABASE_URL": "sqlite:////nowhere/x.db"}, "ConfigError: database sqlite:////nowhere/x.db cannot be"),
        (1, {"DATABASE_URL": "sqlite://"}, "ConfigError: database sqlite:// has no tables yet"),
        (1, {"DATABASE_URL": "nonsense"}, "ConfigError: DATABASE_URL is not a database URL"),
    ],
)
def test_what_a_person_must_mend_is_one_line_and_the_job_is_kept(
    connection: Redis,
    database: Engine,
    environ: dict[str, str],
    start_worker: StartWorker,
    campaign_id: int,
    changes: dict[str, str],
    line: str,
) -> None:
    seed_campaign(database, count=20, seed=3)
    job = enqueue(campaign_id, connection)
    worker = start_worker("campaigns", "--burst", **{**environ, **changes})
    log = worker.finish()
    assert worker.process.returncode == 0
    assert log.count(line) == 1, log
    assert "Traceback" not in log
    assert job.get_status() == JobStatus.FAILED
    assert job.id in job.failed_job_registry


def test_the_call_plan_breaches_is_resumed_and_is_whole(
    connection: Redis, database: Engine, tmp_path: Path, environ: dict[str, str], start_worker: StartWorker
) -> None:
    seeded = seed_campaign(database, count=600, seed=3)
    path = tmp_path / "plan.csv"
    job = ExportCallPlanJob.enqueue(campaign_id=seeded.campaign_id, path=str(path), connection=connection)
    start_worker("campaigns", "--memory", "90", "--burst", **environ).finish()
    assert job.return_value() == 600 * 7 * 48
    assert reader.run(connection, job.id).breaches >= 1
    with path.open(newline="") as file:
        rows = [(int(row["customer_id"]), float(row["score"])) for row in csv.DictReader(file)]
    assert len(rows) == 600 * 7 * 48
    assert rows == sorted(rows, key=lambda row: (row[0], -row[1]))
    assert sorted(tmp_path.glob("plan*")) == [path]


def run_enqueue(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.enqueue_campaign", *arguments]
    full = {**os.environ, **environ}
    return subprocess.run(command, cwd=ROOT, env=full, capture_output=True, text=True, timeout=60)


def test_the_script_that_enqueues(database: Engine, redis_url: str, connection: Redis, tmp_path: Path) -> None:
    seed_campaign(database, count=3, seed=3)
    environ = {"DATABASE_URL": str(database.url), "RQMEM_REDIS_URL": redis_url}
    done = run_enqueue("1", "--call-plan", str(tmp_path / "plan.csv"), **environ)
    kinds = [Job.fetch(job_id, connection=connection).func_name for job_id in done.stdout.split()]
    assert kinds == ["jobs.exports.ExportCallPlanJob.run", "jobs.campaigns.ProcessRetellAICampaignJob.run"]


@pytest.mark.parametrize(
    ("campaign_id", "changes", "code", "message"),
    [
        ("99", {}, 2, "campaign 99 does not exist"),
        ("one", {}, 2, "'one' is not a valid integer"),
        ("1", {"DATABASE_URL": "sqlite://"}, 2, "has no tables yet"),
        ("1", {"DATABASE_URL": "sqlite:////nowhere/x.db"}, 2, "cannot be opened"),
        ("1", {"RQMEM_REDIS_URL": "redis://127.0.0.1:1"}, 1, "Redis at redis://127.0.0.1:1"),
    ],
)
def test_the_script_says_what_is_wrong(
    database: Engine, redis_url: str, campaign_id: str, changes: dict[str, str], code: int, message: str
) -> None:
    seed_campaign(database, count=1, seed=3)
    environ = {"DATABASE_URL": str(database.url), "RQMEM_REDIS_URL": redis_url, **changes}
    done = run_enqueue(campaign_id, **environ)
    assert done.returncode == code
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
