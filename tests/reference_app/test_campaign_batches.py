"""Campaigns in batches: each customer is called once, though the batch endpoint would call twice if asked twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus
from sqlalchemy import update
from sqlalchemy.engine import Engine

from jobs import call_batches
from jobs.call_batches import LONGEST_PAUSE_SECONDS, Patience, judge, seconds_to_next_look
from jobs.campaign_batches import ProcessRetellAICampaignBatchJob
from jobs.campaigns import start
from jobs.database import session_factory
from jobs.retell_api import ListedCall, RetellApi, RetellUnavailable
from jobs.sources import shared_sessions
from jobs.tables import Campaign, CampaignBatch, utc_now
from jobs.tables.campaigns import BatchStatus
from rqmem.errors import ConfigError
from rqmem.testing import wait_until
from seeds.campaign import seed_campaign
from seeds.retell_stand_in import Faults, StandIn
from tests import forked
from tests.conftest import StartWorker, WorkerProcess
from tests.reference_app.campaign_jobs import (
    ON_SQLITE,
    HastyBatchJob,
    HastyFollowUpJob,
    SoonAskingBatchJob,
    asked_too_often,
    assert_called_exactly_once,
    batches,
    campaign,
    counted,
    customers,
    enqueue,
    statuses,
)

StartOne = Callable[[], WorkerProcess]


@pytest.fixture
def worker(start_worker: StartWorker, environ: dict[str, str]) -> Iterator[StartOne]:
    """Start a worker that also moves what is scheduled."""
    started: list[WorkerProcess] = []

    def start_one() -> WorkerProcess:
        started.append(start_worker("campaigns", "--with-scheduler", "--log-level", "error", **environ))
        return started[-1]

    yield start_one
    for each in started:  # killed, it would leave its scheduler behind, which holds the pipe for its output
        each.process.terminate()
        each.finish()


def ended(database: Engine) -> None:
    wait_until(lambda: campaign(database).status == "completed")


def failures(connection: Redis) -> list[str]:
    """Last lines of the errors of all jobs that have failed."""
    ids = Queue("campaigns", connection=connection).failed_job_registry.get_job_ids()
    results = [Job.fetch(job_id, connection=connection).latest_result() for job_id in ids]
    return [(result.exc_string or "").strip().splitlines()[-1] for result in results if result is not None]


def test_a_campaign_is_called_in_batches(
    connection: Redis, database: Engine, retell: StandIn, environ: dict[str, str], start_worker: StartWorker
) -> None:
    """All lines are free: the first look after each batch sees all, and nothing has to be scheduled."""
    seed_campaign(database, count=250, seed=3)
    job = enqueue(1, connection, ProcessRetellAICampaignBatchJob)
    log = start_worker("campaigns", "--burst", "--log-level", "debug", **environ).finish()
    assert job.get_status() == JobStatus.FINISHED, log
    assert_called_exactly_once(database, retell)
    assert retell.service.record()["batches"] == 3
    assert {(batch.status, batch.batch_call_id is not None) for batch in batches(database)} == {("collected", True)}
    for checkpoint in ("customer_queries", "job_creation", "batch_dispatch", "outcomes_collected"):
        assert f"at {checkpoint}\n" in log


@ON_SQLITE
def test_a_campaign_too_heavy_for_one_job_is_split_and_two_workers_share_it(
    connection: Redis,
    database: Engine,
    retell: StandIn,
    environ: dict[str, str],
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    """A customer is said to weigh a MB: 400 do not fit."""
    config = tmp_path / "rqmem.ini"
    config.write_text(f"[job {HastyBatchJob.path()}]\nbytes_per_item = {2**20}\nitems_per_child = 150\n")
    seed_campaign(database, count=400, seed=3)
    job = enqueue(1, connection, HastyBatchJob)
    options = ("campaigns", "--with-scheduler", "--log-level", "error")  # one may look before the other has sent
    workers = [start_worker(*options, RQMEM_CONFIG=str(config), **environ) for _ in range(2)]
    ended(database)
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    for each in workers:
        each.process.terminate()
        each.finish()
    assert_called_exactly_once(database, retell)
    far = HastyBatchJob.progress(job.id, connection)
    assert far.total == far.done and far.total >= 3 and far.items == 400


def test_killed_workers_and_the_next_ones_call_each_customer_once(
    connection: Redis,
    database: Engine,
    retell: StandIn,
    environ: dict[str, str],
    start_worker: StartWorker,
    worker: StartOne,
) -> None:
    """Killed right after a batch was accepted, before anybody could write it down."""
    retell.service.set_faults(Faults(latency_ms=150))
    seed_campaign(database, count=140, seed=5)
    enqueue(1, connection, HastyBatchJob)
    for accepted in (2, 4):
        killed = start_worker("campaigns", **environ)
        wait_until(lambda: retell.service.record()["batches"] >= accepted)  # noqa: B023
        killed.kill()
        assert "sending" in {batch.status for batch in batches(database)}
    worker()
    ended(database)
    assert_called_exactly_once(database, retell)


@ON_SQLITE
@pytest.mark.parametrize("mode", ["drop", "before"])
def test_lost_answers_errors_and_the_rate_limit_do_not_call_twice(
    connection: Redis, database: Engine, retell: StandIn, worker: StartOne, mode: str
) -> None:
    """Every third request goes wrong: after ``drop`` the batch was accepted, after ``before`` it was not."""
    retell.service.set_faults(Faults(error_every=3, error_mode=mode))  # type: ignore[arg-type]
    limited = asked_too_often(retell, every=5)
    seed_campaign(database, count=160, seed=5)
    enqueue(1, connection, HastyBatchJob)
    worker()
    ended(database)
    assert_called_exactly_once(database, retell)
    record = retell.service.record()
    assert record["errors"] >= 2 and limited
    assert record["batches"] == len(batches(database)) == 8


@ON_SQLITE
def test_what_the_api_refuses_is_alone_in_the_end(
    connection: Redis, database: Engine, retell: StandIn, worker: StartOne
) -> None:
    """And a call that nobody answers is an outcome too."""
    seed_campaign(database, count=40, seed=5)
    refused = next(customer for customer in customers(database)[5:] if customer.phone.startswith("+"))
    retell.service.set_faults(Faults(refused_number=refused.phone, unanswered_every=7))
    enqueue(1, connection, HastyBatchJob)
    worker()
    ended(database)
    by_id = {customer.id: customer for customer in customers(database)}
    assert by_id[refused.id].failure == f"{refused.phone} is marked as do not call."
    unanswered = [each for each in by_id.values() if each.failure == "dial_no_answer"]
    assert len(unanswered) == retell.service.record()["calls"] // 7
    assert all(customer.call_id for customer in unanswered)
    calls = [call.call_id for call in retell.service.calls()]
    assert sorted(calls) == sorted(each.call_id for each in by_id.values() if each.call_id)


@ON_SQLITE
def test_an_api_that_is_down_and_a_refused_key_leave_nobody_in_a_batch(
    connection: Redis,
    database: Engine,
    retell: StandIn,
    environ: dict[str, str],
    start_worker: StartWorker,
    worker: StartOne,
) -> None:
    seed_campaign(database, count=50, seed=5)
    refused = enqueue(1, connection, HastyBatchJob)
    start_worker("campaigns", "--burst", **{**environ, "RETELL_API_KEY": "wrong"}).finish()
    assert refused.get_status() == JobStatus.FAILED
    assert failures(connection) == [
        "rqmem.errors.ConfigError: Retell refuses RETELL_API_KEY: API key is missing or invalid."
    ]
    assert retell.service.record()["requests"] == 1
    assert statuses(database)["batched"] == 0 and batches(database) == []

    retell.stop()
    job = enqueue(1, connection, HastyBatchJob)
    worker()
    wait_until(lambda: job.get_status() == JobStatus.SCHEDULED)
    assert statuses(database)["batched"] == 0 and batches(database) == []
    retell.start()
    ended(database)
    assert_called_exactly_once(database, retell)


@ON_SQLITE
def test_where_the_api_cannot_tell_a_person_is_asked(
    connection: Redis, database: Engine, retell: StandIn, worker: StartOne, environ: dict[str, str], redis_url: str
) -> None:
    """The answer is lost and all lines are taken: the batch may be waiting, or may never have come."""
    retell.service.set_faults(Faults(error_every=1, error_mode="drop", busy=True))
    seed_campaign(database, count=15, seed=5)
    enqueue(1, connection, SoonAskingBatchJob)
    worker()
    wait_until(lambda: retell.service.record()["batches"] == 1)
    retell.service.set_faults(Faults(busy=True))
    ended(database)
    [batch] = batches(database)
    unknown = statuses(database)["unknown"]
    assert batch.status == "unknown" and 0 < unknown == campaign(database).customers_unknown
    name = f"{campaign(database).key}-batch-{batch.id}"
    settle, full = ("scripts.settle_batch", batch.id), {**environ, "RQMEM_REDIS_URL": redis_url}
    done = forked.run_module(*settle, **full)
    assert done.returncode == 2 and f"look for {name} in Retell's dashboard" in " ".join(done.stderr.split())
    retell.service.set_faults(Faults())  # the lines are free: its calls are made
    done = forked.run_module(*settle, "--sent", **full)
    assert done.returncode in (0, 2), "a later look may have seen the calls first"
    wait_until(lambda: statuses(database)["unknown"] == 0)
    wait_until(lambda: batches(database)[0].status == "collected")
    assert_called_exactly_once(database, retell)
    assert retell.service.record()["batches"] == 1


@ON_SQLITE
def test_a_batch_that_a_person_says_was_not_sent_is_pending_again(
    database: Engine, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", environ["DATABASE_URL"])
    seed_campaign(database, count=15, seed=5)
    sessions = shared_sessions()
    start(sessions, 1)
    batch_id = call_batches.new_id()
    call_batches.open_batch(sessions, 1, batch_id, customers(database))
    call_batches.mark_unknown(sessions, batch_id)
    settle = ("scripts.settle_batch", batch_id)
    away = {**environ, "RQMEM_REDIS_URL": "redis://127.0.0.1:1"}
    done = forked.run_module(*settle, "--sent", **away)
    assert done.returncode == 1 and "Redis at redis://127.0.0.1:1" in done.stderr
    assert batches(database)[0].status == "unknown", "else nobody would follow it up, and it could not be said again"
    for code, message in ((0, "its customers are pending again"), (2, f"there is no batch {batch_id}")):
        done = forked.run_module(*settle, "--not-sent", **environ)
        assert done.returncode == code
        assert message in done.stdout + done.stderr
    assert statuses(database) == {"pending": 15}
    sessions.kw["bind"].dispose()


def test_a_chunk_costs_the_same_queries_however_large_it_is(
    database: Engine, here: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed_campaign(database, count=400, seed=3)
    seed_campaign(database, count=80, seed=3)
    seen: list[list[str]] = []
    for campaign_id, chunk_size in ((1, 100), (2, 20)):
        monkeypatch.setattr(HastyBatchJob, "chunk_size", chunk_size)
        with counted(here) as statements:
            HastyBatchJob.run(campaign_id=campaign_id)
        seen.append([" ".join(text.split()[:3]) for text in statements if "failure" not in text or "SELECT" in text])
    assert seen[0] == seen[1]
    assert sum(text.startswith("INSERT INTO campaign_batches") for text in seen[0]) == 4


def test_a_look_after_a_batch_costs_the_same_queries_however_large_it_is(
    database: Engine, here: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    for campaign_id, size in ((1, 15), (2, 90)):
        seed_campaign(database, count=size, seed=3)
        monkeypatch.setattr(HastyBatchJob, "chunk_size", size)
        HastyBatchJob.run(campaign_id=campaign_id)
        [batch] = [each for each in batches(database) if each.campaign_id == campaign_id]
        with counted(here) as statements:
            assert HastyFollowUpJob.run(campaign_id=campaign_id, batch_id=batch.id) == "close"
        seen.append([" ".join(text.split()[:3]) for text in statements])
    assert seen[0] == seen[1]
    assert set(statuses(database)) <= {"called", "failed"}


def test_only_the_last_look_counts_the_customers(
    database: Engine, here: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed_campaign(database, count=45, seed=3)
    monkeypatch.setattr(HastyBatchJob, "chunk_size", 15)
    HastyBatchJob.run(campaign_id=1)
    counts = []
    for batch in batches(database):
        with counted(here) as statements:
            assert HastyFollowUpJob.run(campaign_id=1, batch_id=batch.id) == "close"
        counts.append(sum("count(" in text for text in statements))
    assert counts == [0, 0, 1]
    ended = campaign(database)
    assert (ended.status, ended.customers_called + ended.customers_failed) == ("completed", 45)


def test_a_last_look_that_dies_at_its_end_is_made_up_for(
    database: Engine, here: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed_campaign(database, count=15, seed=3)
    HastyBatchJob.run(campaign_id=1)
    [batch] = batches(database)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    for last_step in ("jobs.campaign_batches.complete_if_over", "jobs.call_batches.mark_collected"):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(last_step, die)
            HastyFollowUpJob.run(campaign_id=1, batch_id=batch.id)
    assert HastyFollowUpJob.run(campaign_id=1, batch_id=batch.id) == "close"
    assert (campaign(database).status, batches(database)[0].status) == ("completed", "collected")


IMPATIENT = Patience(settle_seconds=600, idle_looks=20, give_up_seconds=3600)


@pytest.mark.parametrize(
    ("status", "left", "listed", "under_way", "age", "idle", "step"),
    [
        ("sent", 0, 100, 0, 5, 0, "close"),
        ("sent", 40, 60, 40, 5, 0, "look again"),
        ("sent", 100, 0, 0, 100_000, 0, "look again"),
        ("sent", 100, 0, 0, 100_000, 19, "look again"),
        ("sent", 40, 60, 1, 100_000, 20, "look again"),
        ("sent", 40, 60, 0, 599, 20, "look again"),
        ("sent", 40, 60, 0, 600, 20, "close"),
        ("sending", 0, 100, 0, 5, 0, "close"),
        ("sending", 99, 1, 0, 700, 0, "look again"),
        ("sending", 100, 0, 0, 599, 20, "look again"),
        ("sending", 100, 0, 0, 600, 20, "send again"),
        ("sending", 100, 0, 0, 600, 19, "look again"),
        ("sending", 100, 0, 0, 3600, 0, "ask a person"),
        ("sending", 100, 0, 0, 3600, 1, "look again"),
        ("unknown", 100, 0, 0, 9999, 20, "ask a person"),
        ("unknown", 0, 100, 0, 9999, 0, "close"),
    ],
)
def test_what_is_done_about_a_batch(
    status: BatchStatus, left: int, listed: int, under_way: int, age: float, idle: int, step: str
) -> None:
    found = judge(
        status,
        left=left,
        listed=listed,
        under_way=under_way,
        age_seconds=age,
        idle_looks=idle,
        patience=IMPATIENT,
    )
    assert found == step


@given(status=st.sampled_from(["sent", "sending"]), age=st.floats(0, 1e7), idle=st.integers(0, 19), left=st.integers(1))
def test_nothing_is_concluded_from_a_few_free_lines(status: BatchStatus, age: float, idle: int, left: int) -> None:
    step = judge(status, left=left, listed=0, under_way=0, age_seconds=age, idle_looks=idle, patience=IMPATIENT)
    assert step in ("look again", "ask a person")
    assert not (step == "ask a person" and status == "sent")


@given(age=st.floats(0, 1e7), shortest=st.floats(0.1, 100), idle=st.integers(0, 30))
def test_pauses_grow_to_minutes_and_no_further(age: float, shortest: float, idle: int) -> None:
    pause = seconds_to_next_look(shortest, age_seconds=age, idle_looks=idle)
    assert shortest <= pause <= LONGEST_PAUSE_SECONDS
    assert not idle or pause == shortest
    assert pause <= seconds_to_next_look(shortest, age_seconds=age * 2, idle_looks=idle)


@ON_SQLITE
def test_a_batch_in_doubt_is_not_sent_twice_however_the_lines_look(
    database: Engine, here: Engine, retell: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits: lines that are reserved, or that change from one call to the next, are not free for it."""
    seed_campaign(database, count=15, seed=3)
    seed_campaign(database, count=15, seed=3)
    monkeypatch.setattr(HastyFollowUpJob, "patience", Patience(settle_seconds=0, idle_looks=1))
    retell.service.set_faults(Faults(busy=True))
    HastyBatchJob.run(campaign_id=2)
    retell.service.set_faults(Faults(busy=True, error_every=1, error_mode="drop"))
    HastyBatchJob.run(campaign_id=1)
    [batch] = [each for each in batches(database) if each.campaign_id == 1]
    assert batch.status == "sending"

    def look() -> str:
        return HastyFollowUpJob.run(campaign_id=1, batch_id=batch.id)

    for busy in (Faults(busy=True, reserved_lines=5), Faults(busy=True, changing_lines=2)):
        retell.service.set_faults(busy)
        assert look() == "look again"
    with monkeypatch.context() as patched:
        patched.setattr(retell.service, "_make_waiting_calls", lambda: None)  # those of others come first
        retell.service.set_faults(Faults())
        assert look() == "look again", "another batch of ours waits"
    retell.service.set_faults(Faults())
    assert look() == "close"
    assert retell.service.record()["batches"] == 2


@ON_SQLITE
def test_an_accepted_batch_is_waited_for_however_long_it_takes(
    database: Engine, here: Engine, retell: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed_campaign(database, count=15, seed=3)
    retell.service.set_faults(Faults(busy=True))
    HastyBatchJob.run(campaign_id=1)
    [batch] = batches(database)
    with session_factory(database).begin() as session:
        session.execute(update(CampaignBatch).values(sending_since=utc_now() - timedelta(hours=25)))
    for _ in range(3):
        assert HastyFollowUpJob.run(campaign_id=1, batch_id=batch.id) == "look again"
    assert statuses(database)["batched"] > 10
    retell.service.set_faults(Faults())
    assert HastyFollowUpJob.run(campaign_id=1, batch_id=batch.id) == "close"
    assert_called_exactly_once(database, retell)


@ON_SQLITE
@pytest.mark.parametrize("trouble", ["refused", "down"])
def test_sent_again_and_refused_or_not_connected_nobody_is_stranded(
    database: Engine, here: Engine, retell: StandIn, connection: Redis, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    seed_campaign(database, count=20, seed=5)
    retell.service.set_faults(Faults(error_every=1))
    HastyBatchJob.run(campaign_id=1)
    [batch] = batches(database)
    monkeypatch.setattr(HastyFollowUpJob, "patience", Patience(settle_seconds=0, idle_looks=1))
    refused = next(each for each in customers(database)[5:] if each.phone.startswith("+"))
    retell.service.set_faults(Faults(refused_number=refused.phone))

    def go_down(_: object) -> float:
        retell.stop()
        return 1.0

    if trouble == "down":
        monkeypatch.setattr("jobs.retell_api.API_RETRIES", 0)
        with monkeypatch.context() as patched, pytest.raises(RetellUnavailable):
            patched.setattr(RetellApi, "free_lines", go_down)
            HastyFollowUpJob.run(campaign_id=1, batch_id=batch.id)
        retell.start()
        assert [each.id for each in batches(database)] == [batch.id]
    assert HastyFollowUpJob.run(campaign_id=1, batch_id=batch.id) == "send again"
    assert statuses(database)["pending"] == 0
    for each in batches(database):
        assert HastyFollowUpJob.run(campaign_id=1, batch_id=each.id) == "close"
    [failure] = [each.failure for each in customers(database) if each.id == refused.id]
    assert failure == f"{refused.phone} is marked as do not call."
    assert statuses(database)["batched"] == 0 and campaign(database).status == "completed"
    assert len(set(retell.service.calls())) == statuses(database)["called"]


@ON_SQLITE
def test_run_again_it_follows_up_the_batches_that_no_job_does(
    database: Engine, here: Engine, retell: StandIn, connection: Redis
) -> None:
    seed_campaign(database, count=45, seed=5)
    retell.service.set_faults(Faults(busy=True))
    HastyBatchJob.run(campaign_id=1)
    queue, three = Queue("campaigns", connection=connection), len(batches(database))
    assert len(queue.get_job_ids()) == three
    HastyBatchJob.run(campaign_id=1)
    assert len(queue.get_job_ids()) == three, "they have one"
    job_id = queue.get_job_ids()[0]
    Job.fetch(job_id, connection=connection).delete()
    HastyBatchJob.run(campaign_id=1)
    assert len(queue.get_job_ids()) == three and job_id in queue.get_job_ids()
    connection.flushdb()  # the test's own server
    HastyBatchJob.run(campaign_id=1)
    assert len(queue.get_job_ids()) == three


@ON_SQLITE
def test_the_first_looks_wait_for_a_batch_that_is_not_written_yet(
    database: Engine, here: Engine, connection: Redis
) -> None:
    seed_campaign(database, count=5, seed=5)
    scheduled = Queue("campaigns", connection=connection).scheduled_job_registry
    for look in range(7):
        assert HastyFollowUpJob.run(campaign_id=1, batch_id="to-come", look=look) == "nothing to do"
    assert len(scheduled.get_job_ids()) == 6


@ON_SQLITE
@pytest.mark.parametrize(("count", "refused"), [(100, 20), (5, 5)])
def test_a_campaign_that_is_refused_as_a_whole_ends_it_and_all_stay_pending(
    database: Engine, here: Engine, retell: StandIn, count: int, refused: int
) -> None:
    seed_campaign(database, count=count, seed=5)
    with session_factory(database).begin() as session:
        session.execute(update(Campaign).values(from_number="4711"))
    words = rf"{refused} in a row: from_number must be in E.164 format.*run it again"
    with pytest.raises(ConfigError, match=words):
        HastyBatchJob.run(campaign_id=1)
    assert set(statuses(database)) <= {"pending", "failed"} and batches(database) == []
    assert all("to_number" in (each.failure or "") for each in customers(database) if each.status == "failed")
    assert retell.service.record()["requests"] < 60
    with session_factory(database).begin() as session:
        session.execute(update(Campaign).values(from_number="+14155550100"))
    HastyBatchJob.run(campaign_id=1)
    for batch in batches(database):
        HastyFollowUpJob.run(campaign_id=1, batch_id=batch.id)
    assert_called_exactly_once(database, retell)


def test_outcomes_of_calls() -> None:
    def call(status: str, reason: str | None = None) -> ListedCall:
        return ListedCall("call_1", status, reason, {"customer_id": 5})

    under_way = [call("registered"), call("ongoing")]
    assert call_batches.outcomes_of(under_way) == []
    ends = [call("ended", "user_hangup"), call("not_connected", "dial_busy"), call("error")]
    found = call_batches.outcomes_of(ends)
    assert [(each["status"], each["failure"]) for each in found] == [
        ("called", None), ("failed", "dial_busy"), ("failed", "error"),
    ]  # fmt: skip
    assert {(each["customer"], each["call_id"]) for each in found} == {(5, "call_1")}
