"""The campaign: real SDK, real database, a stand-in that counts; killed, failed, split and run again."""

from __future__ import annotations

import csv
import os
import random
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rq import Queue, Worker
from rq.job import Job, JobStatus
from sqlalchemy import select, update
from sqlalchemy.engine import Engine

from jobs.campaigns import ProcessRetellAICampaignJob, begin_calls, called, record
from jobs.database import session_factory
from jobs.exports import ExportCallPlanJob
from jobs.refusals import ALIKE, Refusals
from jobs.retell_api import (
    DEFAULT_WAIT_SECONDS,
    LONGEST_WAIT_SECONDS,
    AnswerLost,
    RetellApi,
    RetellUnavailable,
    seconds_to_wait,
)
from jobs.tables import Campaign, Customer, utc_now
from rqmem.errors import ConfigError
from rqmem.store import execution_reader
from rqmem.testing import wait_until
from scripts.own_queue import own_queue
from scripts.test_campaign import follow
from seeds.campaign import seed_campaign
from seeds.retell_stand_in import Faults, StandIn
from seeds.retell_stand_in.answers import Answer, error_answer
from tests import forked
from tests.conftest import StartCommand, StartWorker
from tests.journal_filling import a_run, remember
from tests.reference_app.campaign_jobs import (
    ON_SQLITE,
    HastyCampaignJob,
    SmallChunksJob,
    SoonSplitJob,
    assert_called_exactly_once,
    counted,
    enqueue,
    listen,
    statuses,
)
from tests.reference_app.held_jobs import HOLD_DIRECTORY, HeldExport


def test_a_campaign_is_called_and_completed(
    connection: Redis, database: Engine, retell: StandIn, environ: dict[str, str], start_worker: StartWorker
) -> None:
    retell.service.set_faults(Faults(error_every=20, error_mode="after"))
    seeded = seed_campaign(database, count=120, seed=3, agent_id="agent_7")
    job = enqueue(seeded.campaign_id, connection)
    log = start_worker("campaigns", "--memory", "256", "--burst", "--log-level", "debug", **environ).finish()
    assert job.return_value() == {"called": seeded.valid_numbers, "failed": 120 - seeded.valid_numbers}, log
    assert_called_exactly_once(database, retell)
    assert execution_reader.run(connection, job.id).chunks >= 2
    for checkpoint in ("customer_processing_1", "customer_processing_120", "api_call", "campaign_completion"):
        assert f"at {checkpoint}\n" in log
    record = retell.service.record()
    assert record["errors"] >= 2 and record["duplicates"] >= 2, "a call that was made is not made again"
    assert {call.agent_id for call in retell.service.calls()} == {"agent_7"}


def test_killed_workers_and_the_next_ones_call_each_customer_once(
    connection: Redis, database: Engine, retell: StandIn, environ: dict[str, str], start_worker: StartWorker
) -> None:
    retell.service.set_faults(Faults(latency_ms=30))
    seeded = seed_campaign(database, count=150, seed=5)
    job = enqueue(seeded.campaign_id, connection)
    for made in (30, 90):
        worker = start_worker("campaigns", "--memory", "256", **environ)
        wait_until(lambda: retell.service.record()["calls"] >= made)  # noqa: B023
        worker.kill()
    start_worker("campaigns", "--memory", "256", **environ)
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    assert_called_exactly_once(database, retell)
    assert execution_reader.run(connection, job.id).resumes == 2
    assert retell.service.record()["duplicates"] >= 1, "killed between a call and its record"


@pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)
def test_a_large_campaign_is_split_and_two_workers_share_it(
    connection: Redis, database: Engine, retell: StandIn, environ: dict[str, str], start_worker: StartWorker
) -> None:
    retell.service.set_faults(Faults(latency_ms=30))
    seeded = seed_campaign(database, count=200, seed=5)
    job = enqueue(seeded.campaign_id, connection, SoonSplitJob)
    workers = [start_worker("campaigns", "--memory", "256", **environ) for _ in range(2)]
    wait_until(lambda: retell.service.record()["calls"] >= 40)
    workers[0].kill()
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    assert job.return_value() == {"called": seeded.valid_numbers, "failed": 200 - seeded.valid_numbers}
    assert_called_exactly_once(database, retell)
    far = SoonSplitJob.progress(job.id, connection)
    assert (far.total, far.done, far.items) == (4, 4, 200)


@ON_SQLITE
def test_a_finished_campaign_may_be_run_again_also_for_those_who_came_later(
    connection: Redis, database: Engine, retell: StandIn, environ: dict[str, str], start_worker: StartWorker
) -> None:
    seeded = seed_campaign(database, count=20, seed=3)
    jobs = [enqueue(seeded.campaign_id, connection) for _ in range(2)]
    start_worker("campaigns", "--burst", **environ).finish()
    assert jobs[0].return_value() == jobs[1].return_value()
    assert_called_exactly_once(database, retell)
    with session_factory(database).begin() as session:
        session.add(Customer(campaign_id=1, name="Late", phone="+4915112345678", country="DE", language="de"))
    again = enqueue(seeded.campaign_id, connection)
    start_worker("campaigns", "--burst", **environ).finish()
    before: Any = jobs[0].return_value()
    assert again.return_value() == {**before, "called": before["called"] + 1}
    assert_called_exactly_once(database, retell)


@ON_SQLITE
def test_calls_whose_keys_the_api_has_forgotten_are_looked_up(
    connection: Redis, database: Engine, environ: dict[str, str], start_worker: StartWorker
) -> None:
    """Killed with calls in flight, and nobody goes on for two hours."""
    with StandIn(idempotency_seconds=0.0, faults=Faults(latency_ms=50)) as retell:
        environ = {**environ, "RETELL_BASE_URL": retell.url}
        seeded = seed_campaign(database, count=60, seed=5)
        job = enqueue(seeded.campaign_id, connection)
        worker = start_worker("campaigns", **environ)
        wait_until(lambda: retell.service.record()["calls"] >= 20)
        worker.kill()
        assert statuses(database)["calling"] >= 20
        with session_factory(database).begin() as session:
            earlier = utc_now() - timedelta(hours=2)
            session.execute(update(Customer).where(Customer.status == "calling").values(calling_since=earlier))
        start_worker("campaigns", **environ)
        wait_until(lambda: job.get_status() == JobStatus.FINISHED)
        assert_called_exactly_once(database, retell)


@ON_SQLITE
def test_an_api_that_is_down_for_a_while_is_waited_for(
    connection: Redis, database: Engine, retell: StandIn, environ: dict[str, str], start_worker: StartWorker
) -> None:
    """And the job goes on after the last finished chunk: nobody in those before it is asked for again."""
    retell.service.set_faults(Faults(latency_ms=30))
    seeded = seed_campaign(database, count=160, seed=5)
    job = enqueue(seeded.campaign_id, connection, HastyCampaignJob)
    worker = start_worker("campaigns", "--with-scheduler", "--log-level", "error", **environ)
    wait_until(lambda: sum(execution_reader.run(connection, job.id).items.values()) >= 50)
    retell.stop()
    wait_until(lambda: job.get_status() == JobStatus.SCHEDULED)
    asked, done = listen(retell), sum(execution_reader.run(connection, job.id).items.values())
    retell.start()
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    worker.process.terminate()
    log = worker.finish()
    assert_called_exactly_once(database, retell)
    assert 50 <= done < 160
    assert min(each.customer for each in asked) > done
    assert sum(execution_reader.run(connection, job.id).items.values()) == 160
    assert "RetellUnavailable: Retell does not answer" in log
    assert "Traceback" not in log


@ON_SQLITE
@pytest.mark.parametrize("size", [20, 1100])
def test_a_refused_key_ends_it_at_once(
    connection: Redis, database: Engine, retell: StandIn, environ: dict[str, str], start_worker: StartWorker, size: int
) -> None:
    seed_campaign(database, count=size, seed=3)
    job = enqueue(1, connection)
    log = start_worker("campaigns", "--burst", **{**environ, "RETELL_API_KEY": "wrong"}).finish()
    assert log.count("ConfigError: Retell refuses RETELL_API_KEY") == 1, log
    assert job.get_status() == JobStatus.FAILED
    assert execution_reader.run(connection, job.id).split is None
    assert retell.service.record()["requests"] <= ProcessRetellAICampaignJob.concurrency


@ON_SQLITE
@pytest.mark.parametrize(
    ("campaign_id", "changes", "line"),
    [
        (99, {}, "ConfigError: campaign 99 does not exist; python -m seeds.campaign makes one"),
        (1, {"RETELL_API_KEY": ""}, "ConfigError: RETELL_API_KEY is not set"),
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


def test_a_chunk_costs_the_same_queries_however_large_it_is(
    database: Engine, here: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a worker, in this process: a page of customers, who they are, their marks, their outcomes."""
    seed_campaign(database, count=100, seed=3)
    seed_campaign(database, count=40, seed=3)
    seen: list[list[str]] = []
    for campaign_id, chunk_size in ((1, 25), (2, 10)):
        monkeypatch.setattr(SmallChunksJob, "chunk_size", chunk_size)
        with counted(here) as statements:
            figures = SmallChunksJob.run(campaign_id=campaign_id)
        assert figures["called"] > 0
        seen.append(statements)
    assert [text.partition(" ")[0] for text in seen[0]] == [text.partition(" ")[0] for text in seen[1]]
    assert sum("UPDATE customers" in text for text in seen[0]) == 2 * 4


@ON_SQLITE
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("count", "refused"), [(60, 20), (5, 5)])
def test_a_campaign_that_is_refused_as_a_whole_ends_it_and_its_customers_can_be_called_later(
    database: Engine, retell: StandIn, count: int, refused: int
) -> None:
    seed_campaign(database, count=count, seed=5)
    with session_factory(database).begin() as session:
        session.execute(update(Campaign).values(from_number="4711"))
    words = rf"{refused} in a row: from_number must be in E.164 format.*run it again"
    with pytest.raises(ConfigError, match=words):
        ProcessRetellAICampaignJob.run(campaign_id=1)
    assert statuses(database)["pending"] >= refused and set(statuses(database)) <= {"pending", "calling"}
    assert retell.service.record()["requests"] < 20 + ProcessRetellAICampaignJob.concurrency
    with session_factory(database).begin() as session:
        session.execute(update(Campaign).values(from_number="+14155550100"))
    ProcessRetellAICampaignJob.run(campaign_id=1)
    assert_called_exactly_once(database, retell)


@given(
    st.lists(st.sampled_from(["taken", "wrong number", "no such agent"]), max_size=60), st.none() | st.integers(0, 50)
)
def test_the_campaign_is_refused_when_none_was_taken_and_many_in_a_row_are_alike(
    told: list[str], out_of: int | None
) -> None:
    refusals = Refusals(out_of)
    enough = ALIKE if out_of is None or out_of >= ALIKE else max(out_of, 3)
    for number, each in enumerate(told):
        if each == "taken":
            refusals.accepted()
        else:
            refusals.refused(number, each)
        so_far = told[: number + 1]
        of_the_campaign = "taken" not in so_far and len(so_far) >= enough and len(set(so_far[-enough:])) == 1
        assert refusals.of_the_campaign == of_the_campaign


@ON_SQLITE
@pytest.mark.usefixtures("here")
def test_who_is_edited_after_a_crash_was_called_all_the_same(database: Engine, retell: StandIn) -> None:
    """The key of their call is refused then, with what is new."""
    seed_campaign(database, count=20, seed=5)
    ProcessRetellAICampaignJob.run(campaign_id=1)
    with session_factory(database).begin() as session:  # as a crash before the outcomes were written leaves them
        as_begun = {"status": "calling", "call_id": None, "called_at": None, "name": "Renamed"}
        session.execute(update(Customer).where(Customer.status == "called").values(as_begun))
        session.execute(update(Campaign).values(status="running"))
    ProcessRetellAICampaignJob.run(campaign_id=1)
    assert retell.service.record()["rejected"]["idempotency_key_reused"] >= 10
    assert_called_exactly_once(database, retell)


@ON_SQLITE
@pytest.mark.usefixtures("here")
def test_no_call_is_asked_for_when_the_api_may_have_forgotten_its_key_meanwhile(
    database: Engine, retell: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked up by the next run, as those that were begun long ago."""
    retell.service.set_faults(Faults(rate_limit=0.01))
    seed_campaign(database, count=3, seed=5)
    monkeypatch.setattr("jobs.campaigns.KEYS_LAST", timedelta(seconds=2))
    asked = listen(retell)
    with pytest.raises(RetellUnavailable, match="longer than it knows the key"):
        ProcessRetellAICampaignJob.run(campaign_id=1)
    told = sorted(each.answer.status for each in asked)
    assert told in ([201, 429, 429], [201, 429])  # the first that is told ends it, perhaps before the last has asked


@pytest.mark.parametrize(
    ("key", "base_url", "told"),
    [
        ("{key}\n", "{url}\n", ""),
        ("{key}\n{key}", "{url}", "RETELL_API_KEY has characters in it that no key has"),
        ("„{key}“", "{url}", "RETELL_API_KEY has characters in it that no key has"),
        ("{key}", "api.retellai.com", "RETELL_BASE_URL is no URL of an API"),
        ("{key}", "http://[::1", "RETELL_BASE_URL is no URL of an API"),
    ],
)
def test_a_key_as_files_have_it_and_what_is_none_without_repeating_it(
    retell: StandIn, monkeypatch: pytest.MonkeyPatch, key: str, base_url: str, told: str
) -> None:
    """With the end of its line the key stood in the error, which was tried again for hours."""
    monkeypatch.setenv("RETELL_API_KEY", key.format(key=retell.api_key))
    monkeypatch.setenv("RETELL_BASE_URL", base_url.format(url=retell.url))
    with pytest.raises(ConfigError) if told else nullcontext() as failure, RetellApi(0) as api:
        assert api.free_lines() == 1
    if failure is not None:
        assert told in str(failure.value) and retell.api_key not in str(failure.value)


def test_runs_of_a_campaign_at_once_do_not_wait_for_each_other_in_a_circle(database: Engine) -> None:
    """PostgreSQL failed one of them: they wrote the same customers in different orders."""
    seed_campaign(database, count=500, seed=5)
    sessions = session_factory(database)
    with sessions() as session:
        customers = list(session.scalars(select(Customer).order_by(Customer.id)))

    def call(chunk: list[Customer], seed: int) -> None:
        begin_calls(sessions, chunk)
        outcomes = [called(each.id, "call") for each in chunk]
        random.Random(seed).shuffle(outcomes)  # as the calls end
        record(sessions, outcomes)

    with ThreadPoolExecutor(4) as threads:
        for begin in range(0, 500, 50):
            list(threads.map(partial(call, customers[begin : begin + 50]), range(4)))
    assert statuses(database) == {"called": 500}


@ON_SQLITE
@pytest.mark.usefixtures("here")
def test_what_is_no_answer_of_the_api_is_no_outcome(
    database: Engine, retell: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an empty object each customer was written as called."""
    seed_campaign(database, count=4, seed=5)
    with monkeypatch.context() as patched:
        for body in b"{}", b"[]", b'{"call_id": null}', b'{"call_id": ', b"":
            patched.setattr(retell.service, "post", lambda *request, body=body: Answer(200, body))
            with pytest.raises(RetellUnavailable, match="the answer is not one of Retell"):
                ProcessRetellAICampaignJob.run(campaign_id=1)
            assert set(statuses(database)) == {"calling"}
        with RetellApi() as api, pytest.raises(AnswerLost):
            api.batch_call(from_number="+14155550100", tasks=[])
    ProcessRetellAICampaignJob.run(campaign_id=1)
    assert_called_exactly_once(database, retell)


def test_who_is_asked_too_often_says_how_long_to_wait_above_a_minute_too(
    retell: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many times as it is told; the SDK, which would not wait as long, makes no attempt of its own."""
    monkeypatch.setenv("RETELL_API_KEY", retell.api_key)
    monkeypatch.setenv("RETELL_BASE_URL", retell.url)
    post, waits = retell.service.post, []
    dates = [format_datetime(datetime.now(UTC) + timedelta(seconds=after), usegmt=True) for after in (90, -5)]
    headers = iter(["120", *dates, "0"])

    def limit(*request: Any) -> Answer:
        header = next(headers, None)
        return post(*request) if header is None else error_answer(429, "throttle", {"Retry-After": header})

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(retell.service, "post", limit)
    with monkeypatch.context() as patched, RetellApi() as api:
        patched.setattr("jobs.retell_api._sleep", sleep)
        assert api.calls("key", ["some"]) == []
    assert waits[:2] == [0, 120] and 60 < waits[2] <= 90
    assert waits[3:] == [0.1, 0.2]  # it cannot mean at once, again and again


NOW = datetime(2026, 10, 21, 7, 26, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("2", 2), ("0.5", 0.5), ("120", 120), ("-1", 0), ("nan", 0), ("1e9", LONGEST_WAIT_SECONDS),
        (None, DEFAULT_WAIT_SECONDS), ("soon", DEFAULT_WAIT_SECONDS), ("Wed, 21 Oct 2026 07:28:00 GMT", 120),
        ("Wed, 21 Oct 2026 07:28:00 -0000", 120), ("Wed, 21 Oct 2020 07:28:00 GMT", 0),
        ("Thu, 22 Oct 2026 07:28:00 GMT", LONGEST_WAIT_SECONDS),
    ],
)  # fmt: skip
def test_retry_after(header: str | None, seconds: float) -> None:
    assert seconds_to_wait(header, NOW) == seconds


@ON_SQLITE
def test_the_call_plan_breaches_is_resumed_and_is_whole(
    connection: Redis, database: Engine, tmp_path: Path, environ: dict[str, str], start_worker: StartWorker
) -> None:
    seeded = seed_campaign(database, count=600, seed=3)
    path = tmp_path / "plan.csv"
    known = replace(a_run(ExportCallPlanJob.path(), "earlier", time.time()), peak_mb=180.0, largest_chunk=1000)
    remember(connection, known)  # the demo breaches each time, whatever an item is known to cost
    job = ExportCallPlanJob.enqueue(campaign_id=seeded.campaign_id, path=str(path), connection=connection)
    start_worker("campaigns", "--memory", "90", "--burst", **environ).finish()
    assert job.return_value() == 600 * 7 * 48
    assert execution_reader.run(connection, job.id).breaches >= 1
    with path.open(newline="") as file:
        rows = [(int(row["customer_id"]), float(row["score"])) for row in csv.DictReader(file)]
    assert len(rows) == 600 * 7 * 48
    assert rows == sorted(rows, key=lambda row: (row[0], -row[1]))
    assert sorted(tmp_path.glob("plan*")) == [path]


@ON_SQLITE
def test_a_call_plan_is_whole_when_killed_at_its_end_and_has_nothing_of_another(
    connection: Redis, database: Engine, tmp_path: Path, environ: dict[str, str], start_worker: StartWorker
) -> None:
    seeded, path = seed_campaign(database, count=40, seed=3), tmp_path / "plan.csv"
    job = HeldExport.enqueue(campaign_id=seeded.campaign_id, path=str(path), connection=connection)
    for left in (tmp_path / "plan.csv.parts", tmp_path / f"plan.csv.work-{job.id}"):  # of runs that were cut off
        left.mkdir()
        (left / "000000000030.csv").write_text("another's row\n")
    environ[HOLD_DIRECTORY] = str(tmp_path)
    worker = start_worker("campaigns", **environ)
    wait_until((tmp_path / "exported").exists)
    worker.kill()
    start_worker("campaigns", **environ)
    wait_until(lambda: job.get_status(refresh=True) in (JobStatus.FINISHED, JobStatus.FAILED))
    assert job.return_value() == 40 * 7 * 48
    with path.open(newline="") as file:
        customers = [int(row["customer_id"]) for row in csv.DictReader(file)]
    assert customers == [number for number in range(1, 41) for _ in range(7 * 48)]


def run_enqueue(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return forked.run_module("scripts.enqueue_campaign", *arguments, **environ)


@ON_SQLITE
def test_the_script_that_enqueues(database: Engine, redis_url: str, connection: Redis, tmp_path: Path) -> None:
    seed_campaign(database, count=3, seed=3)
    environ = {"DATABASE_URL": str(database.url), "RQMEM_REDIS_URL": redis_url}
    done = run_enqueue("1", "--call-plan", str(tmp_path / "plan.csv"), **environ)
    in_batches = run_enqueue("1", "--batches", **environ)
    job_ids = done.stdout.split() + in_batches.stdout.split()
    assert [Job.fetch(job_id, connection=connection).func_name for job_id in job_ids] == [
        "jobs.exports.ExportCallPlanJob.run",
        "jobs.campaigns.ProcessRetellAICampaignJob.run",
        "jobs.campaign_batches.ProcessRetellAICampaignBatchJob.run",
    ]


@ON_SQLITE
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


@ON_SQLITE
def test_the_script_that_follows_a_campaign_to_its_end(
    database_url: str, redis_url: str, connection: Redis, tmp_path: Path
) -> None:
    environ = {"DATABASE_URL": database_url, "RQMEM_REDIS_URL": redis_url}
    faults = ("--fault", "error_every=9", "--fault", "error_mode=drop", "--fault", "rate_limit=200")
    done = forked.run_module(
        "scripts.test_campaign", "--customers", "60", "--folder", str(tmp_path / "run"), *faults, **environ
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ProcessRetellAICampaignJob      finished" in done.stdout
    assert done.stdout.splitlines()[-1] == "every customer is accounted for exactly once"
    assert (tmp_path / "run" / "worker-1.log").read_text()


@ON_SQLITE
def test_of_a_campaign_that_is_interrupted_no_job_is_left(
    database_url: str, redis_url: str, connection: Redis, start_command: StartCommand, tmp_path: Path
) -> None:
    options = ["--customers", "60", "--folder", f"{tmp_path}/run", "--fault", "rate_limit=2"]
    module = "scripts.test_campaign"
    script = start_command(*options, module=module, start_new_session=True, DATABASE_URL=database_url)
    wait_until(lambda: connection.keys("rqmem:run:*") or script.process.poll() is not None)
    second = forked.run_module("scripts.test_campaign", "--folder", f"{tmp_path}/run", RQMEM_REDIS_URL=redis_url)
    assert second.returncode == 2 and f"another run uses {tmp_path}/run: let it end" in second.stderr
    [queue] = Queue.all(connection=connection)
    assert queue.name.startswith("test-campaign-")
    os.killpg(script.pid, signal.SIGINT)
    assert script.process.wait(60) == 1
    assert Queue.all(connection=connection) == []
    assert connection.keys("rq:job:*") == connection.keys("rq:queue:*") == []


@ON_SQLITE
def test_a_campaign_whose_workers_end_says_why(
    database_url: str, redis_url: str, connection: Redis, tmp_path: Path
) -> None:
    environ = {"DATABASE_URL": database_url, "RQMEM_REDIS_URL": redis_url}
    options = ("--customers", "3", "--memory", "5", "--folder", str(tmp_path))
    done = forked.run_module("scripts.test_campaign", *options, **environ)
    assert done.returncode == 1
    assert "the workers have ended: rqmem: a ceiling of 5 MB cannot hold" in done.stderr
    assert re.search(r"still pending +3\n", done.stdout)
    assert "the campaign is           pending   (not completed)" in done.stdout
    assert connection.keys("rq:job:*") == []


def test_a_queue_of_ones_own_is_forgotten_and_others_are_let_be(connection: Redis) -> None:
    other = Queue("mine-but-theirs", connection=connection)
    theirs = [other.enqueue(len, "ab"), Queue("somebody's", connection=connection).enqueue(len, "ab")]
    with own_queue(connection, "mine", keep_ended=True) as queue:
        waiting, later = queue.enqueue(len, "ab"), queue.enqueue_in(timedelta(hours=1), len, "ab")
        ended = queue.enqueue(len, "abc")
        queue.remove(ended)
        ended.set_status(JobStatus.FINISHED)
        queue.finished_job_registry.add(ended, -1)
        connection.zadd(queue.finished_job_registry.key, {"expired": 1})
    assert not any(Job.exists(each.id, connection=connection) for each in (waiting, later))
    assert Job.exists(ended.id, connection=connection)
    worker = Worker([queue], connection=connection)
    worker.register_birth()
    with own_queue(connection, "mine"):
        assert Job.exists(ended.id, connection=connection), "its worker may have a job in hand"
    worker.register_death()
    with own_queue(connection, "mine"):
        pass
    assert not Job.exists(ended.id, connection=connection)
    assert all(job.get_status() == JobStatus.QUEUED for job in theirs)
    assert {each.name for each in Queue.all(connection=connection)} == {"mine-but-theirs", "somebody's"}


@pytest.mark.parametrize("options", [("--memory", "abc"), ("--folder", "/proc/x")])
def test_what_the_script_cannot_use_is_bad_usage(options: tuple[str, ...], redis_url: str) -> None:
    done = forked.run_module("scripts.test_campaign", *options, RQMEM_REDIS_URL=redis_url)
    assert done.returncode == 2
    assert " cannot be written to: " in done.stderr or "give a number of MB" in done.stderr
    assert options[1] in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("error_evry=3", "unknown fault 'error_evry'; did you mean error_every?"),
        ("error_mode=sometimes", "error_mode: Input should be 'before', 'after' or 'drop'"),
        ("error_every", "error_every: Input should be a valid integer"),
    ],
)
def test_a_fault_that_means_nothing_is_bad_usage(option: str, message: str) -> None:
    done = forked.run_module("scripts.test_campaign", "--fault", option)
    assert done.returncode == 2
    assert message in done.stderr


@ON_SQLITE
@pytest.mark.usefixtures("here")
def test_why_nothing_happens_is_told_once_where_a_job_waits_to_be_tried_again(
    database: Engine, connection: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    seed_campaign(database, count=3, seed=5)
    queue = Queue("jobs", connection=connection)
    job = queue.enqueue_in(timedelta(hours=1), "tests.sample_jobs.add", 1)
    looks = iter([True, True, False])
    follow(1, job, queue, lambda: next(looks), lambda done: None, lambda: "Retell answers 500")
    assert capsys.readouterr().err.count("the job waits to be tried again: Retell answers 500") == 1
