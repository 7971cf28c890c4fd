"""Calls in flight: how many, how often the API is asked, and what becomes of them when the job ends early."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from itertools import count, pairwise
from typing import Any

import pytest
from redis import Redis
from rq.command import send_stop_job_command
from rq.job import Job, JobStatus
from rq.timeouts import JobTimeoutException, UnixSignalDeathPenalty
from sqlalchemy.engine import Engine

from jobs.campaigns import ProcessRetellAICampaignJob
from jobs.retell_api import RetellApi
from rqmem.store import execution_reader
from rqmem.store.history import history_reader
from rqmem.testing import wait_until
from seeds.campaign import seed_campaign
from seeds.retell_stand_in import Faults, StandIn
from tests.conftest import StartWorker
from tests.reference_app.campaign_jobs import (
    ON_SQLITE,
    BrieflyPatientJob,
    GreedyCampaignJob,
    HastyCampaignJob,
    WideCampaignJob,
    assert_called_exactly_once,
    connections_to,
    enqueue,
    listen,
    statuses,
)

IN_FLIGHT = ProcessRetellAICampaignJob.concurrency
TEN_MINUTES = Faults(latency_ms=600_000)


@ON_SQLITE
def test_calls_are_in_flight_together(
    connection: Redis, database: Engine, retell: StandIn, environ: dict[str, str], start_worker: StartWorker
) -> None:
    """The first eight are answered once all have come; never more than eight are there."""
    post, numbers, lock, together = retell.service.post, count(1), threading.Lock(), threading.Barrier(8, timeout=20)
    there: set[int] = set()
    most: list[int] = []

    def post_together(*request: Any) -> Any:
        with lock:
            number = next(numbers)
            there.add(number)
            most.append(len(there))
        if number <= 8:
            together.wait()
        try:
            return post(*request)
        finally:
            with lock:
                there.remove(number)

    retell.service.post = post_together  # type: ignore[method-assign, assignment]
    seeded = seed_campaign(database, count=40, seed=3)
    job = enqueue(seeded.campaign_id, connection)
    log = start_worker("campaigns", "--burst", **environ).finish()
    assert job.get_status() == JobStatus.FINISHED, log
    assert max(most) == 8
    assert_called_exactly_once(database, retell)


@ON_SQLITE
def test_many_in_flight_stay_under_the_ceiling(
    connection: Redis, database: Engine, retell: StandIn, environ: dict[str, str], start_worker: StartWorker
) -> None:
    retell.service.set_faults(Faults(latency_ms=300))
    seeded = seed_campaign(database, count=600, seed=3)
    job = enqueue(seeded.campaign_id, connection, WideCampaignJob)
    start_worker("campaigns", "--memory", "256", **environ)
    together = [0]

    def ended() -> bool:
        together.append(connections_to(retell.url))
        return job.get_status() in (JobStatus.FINISHED, JobStatus.FAILED)

    wait_until(ended, 120)
    assert 5 * IN_FLIGHT < max(together) <= 200
    assert job.get_status() == JobStatus.FINISHED
    assert_called_exactly_once(database, retell)
    run = execution_reader.run(connection, job.id)
    assert run.breaches == 0
    assert run.peak_mb < 256


@ON_SQLITE
def test_the_api_is_asked_as_often_as_it_allows(
    connection: Redis, database: Engine, retell: StandIn, environ: dict[str, str], start_worker: StartWorker
) -> None:
    """Who is told to wait comes back then, no sooner, and no call is given up for that."""
    retell.service.set_faults(Faults(rate_limit=15))
    asked = listen(retell)
    seed_campaign(database, count=50, seed=3)
    job = enqueue(1, connection, HastyCampaignJob)
    log = start_worker("campaigns", "--burst", **environ).finish()
    assert job.get_status() == JobStatus.FINISHED, log
    assert_called_exactly_once(database, retell)
    waits = []
    for customer in {each.customer for each in asked}:
        for first, next_one in pairwise(each for each in asked if each.customer == customer):
            assert first.answer.status == 429, "asked again without need"
            waits.append((next_one.at - first.at, float(first.answer.headers["Retry-After"])))
    assert len(waits) == retell.service.record()["rate_limited"] >= 3
    assert all(waited >= told > 0 for waited, told in waits)


@ON_SQLITE
def test_an_api_in_trouble_is_asked_again_with_growing_pauses_and_then_later(
    connection: Redis, database: Engine, retell: StandIn, environ: dict[str, str], start_worker: StartWorker
) -> None:
    retell.service.set_faults(Faults(error_every=1))
    asked = listen(retell)
    seed_campaign(database, count=1, seed=3)
    job = enqueue(1, connection, BrieflyPatientJob)
    log = start_worker("campaigns", "--burst", **environ).finish()
    assert "RetellUnavailable: Retell answers 500" in log
    first, second = (later.at - sooner.at for sooner, later in pairwise(asked))
    assert len(asked) == 3
    assert first >= 0.3 and second >= 0.6  # half a second and one, each less a quarter at most: the SDK draws lots
    assert job.get_status() == JobStatus.SCHEDULED
    assert Job.fetch(job.id, connection=connection).retries_left == 4
    assert statuses(database) == {"calling": 1}


@ON_SQLITE
def test_a_breach_ends_what_is_in_flight(
    connection: Redis, database: Engine, retell: StandIn, environ: dict[str, str], start_worker: StartWorker
) -> None:
    """The answers would come in ten minutes; the job unwinds at once, and by itself."""
    retell.service.set_faults(TEN_MINUTES)
    seed_campaign(database, count=20, seed=5)
    job = enqueue(1, connection, GreedyCampaignJob)
    worker = start_worker("campaigns", "--memory", "256", **environ)
    wait_until(lambda: job.get_status() == JobStatus.SCHEDULED)
    [breach] = execution_reader.breaches(connection, job.id)
    assert breach.where.startswith("tests/reference_app/campaign_jobs.py"), "it unwound by itself"
    assert "killed" not in breach.next
    assert retell.service.record()["requests"] >= IN_FLIGHT - 1
    wait_until(lambda: connections_to(retell.url) == 0)
    assert worker.process.poll() is None


@ON_SQLITE
def test_a_stop_ends_what_is_in_flight(
    connection: Redis, database: Engine, retell: StandIn, environ: dict[str, str], start_worker: StartWorker
) -> None:
    """Run again it asks for the same calls, which the API answers with those it made."""
    retell.service.set_faults(TEN_MINUTES)
    seed_campaign(database, count=60, seed=5)
    job = enqueue(1, connection)
    start_worker("campaigns", **environ)
    wait_until(lambda: connections_to(retell.url) == retell.service.record()["requests"] == IN_FLIGHT)
    send_stop_job_command(connection, job.id)
    wait_until(lambda: job.get_status() == JobStatus.STOPPED)
    wait_until(lambda: connections_to(retell.url) == 0)
    assert retell.service.record()["requests"] == IN_FLIGHT
    retell.service.set_faults(Faults())
    job.requeue()
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    assert_called_exactly_once(database, retell)
    assert retell.service.record()["duplicates"] == IN_FLIGHT


@ON_SQLITE
def test_a_deploy_waits_for_what_is_in_flight_and_another_worker_goes_on(
    connection: Redis, database: Engine, retell: StandIn, environ: dict[str, str], start_worker: StartWorker
) -> None:
    """Told to end, a worker lets the chunk in hand come to its end: so no call has to be asked for twice."""
    retell.service.set_faults(Faults(latency_ms=60))
    seed_campaign(database, count=150, seed=5)
    job = enqueue(1, connection)
    worker = start_worker("campaigns", **environ)
    wait_until(lambda: retell.service.record()["calls"] >= 20)
    worker.process.terminate()
    worker.finish()
    assert 0 < statuses(database)["called"] < 140
    assert statuses(database)["calling"] == 0
    start_worker("campaigns", "--burst", **environ).finish()
    assert job.get_status() == JobStatus.FINISHED
    assert_called_exactly_once(database, retell)
    assert retell.service.record()["duplicates"] == 0


@ON_SQLITE
def test_a_killed_horse_is_replaced_and_each_customer_is_called_once(
    connection: Redis, database: Engine, retell: StandIn, environ: dict[str, str], start_worker: StartWorker
) -> None:
    """The worker lives, and goes on; the API knows the calls of the chunk in hand by their keys."""
    retell.service.set_faults(Faults(latency_ms=60))
    seed_campaign(database, count=150, seed=5)
    job = enqueue(1, connection)
    worker = start_worker("campaigns", "--name", "ada", **environ)
    wait_until(lambda: retell.service.record()["calls"] >= 20)
    [live] = history_reader.workers(connection, ["ada"])
    os.kill(live.horse_pid, signal.SIGKILL)
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    assert worker.process.poll() is None
    assert_called_exactly_once(database, retell)
    assert execution_reader.run(connection, job.id).resumes == 1
    assert retell.service.record()["duplicates"] >= 1


# The client alone


class Stopped(BaseException):
    """As a breach: raised by a signal, wherever the main thread is."""


class InFlight:
    """Five calls that are answered in ten minutes; which of them were cancelled."""

    def __init__(self, retell: StandIn) -> None:
        retell.service.set_faults(TEN_MINUTES)
        self.retell = retell
        self.cancelled: list[int] = []

    def all_there(self) -> bool:
        return self.retell.service.record()["requests"] == 5

    async def call(self, api: RetellApi, number: int) -> None:
        try:
            await api.phone_call(from_number="+14155550100", to_number=f"+1415555{number:04}")
        except (asyncio.CancelledError, Stopped):  # a signal may find one of them running, and raise in it
            self.cancelled.append(number)
            raise


@pytest.fixture
def in_flight(retell: StandIn, monkeypatch: pytest.MonkeyPatch) -> InFlight:
    monkeypatch.setenv("RETELL_API_KEY", retell.api_key)
    monkeypatch.setenv("RETELL_BASE_URL", retell.url)
    return InFlight(retell)


def test_the_first_error_cancels_the_others_before_it_is_told(in_flight: InFlight) -> None:
    async def work(number: int) -> None:
        if number < 5:
            await in_flight.call(api, number)
        while not in_flight.all_there():
            await asyncio.sleep(0.01)
        raise ZeroDivisionError

    with RetellApi() as api:
        with pytest.raises(ZeroDivisionError):
            api.each(range(6), work, in_flight=6)
        assert sorted(in_flight.cancelled) == list(range(5))


def test_what_is_raised_by_a_signal_cancels_all_when_the_context_is_left(in_flight: InFlight) -> None:
    def stop(*_: object) -> None:
        raise Stopped

    def when_all_are_there() -> None:
        wait_until(in_flight.all_there)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, stop)
    thread = threading.Thread(target=when_all_are_there)
    try:
        with pytest.raises(Stopped), RetellApi() as api:
            thread.start()
            api.each(range(5), lambda number: in_flight.call(api, number), in_flight=5)
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert sorted(in_flight.cancelled) == list(range(5))
    wait_until(lambda: connections_to(in_flight.retell.url) == 0)


def test_the_time_limit_ends_it_where_the_client_takes_any_error_for_the_networks(
    retell: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tried again, and the job went on without a limit."""
    for name, value in {"RETELL_API_KEY": retell.api_key, "RETELL_BASE_URL": retell.url}.items():
        monkeypatch.setenv(name, value)

    async def at_the_first_answer(*_: object) -> None:
        signal.raise_signal(signal.SIGALRM)

    monkeypatch.setattr("jobs.retell_api._leave_429_to_us", at_the_first_answer)

    async def call(number: int) -> None:
        await api.phone_call(from_number="+14155550100", to_number=f"+1415555{number:04}")

    with RetellApi() as api:
        for work in (lambda: api.each(range(9), call, in_flight=1), api.free_lines):
            with pytest.raises(JobTimeoutException), UnixSignalDeathPenalty(600, JobTimeoutException):
                work()
    assert retell.service.record()["requests"] == 1  # and a look at the lines, which is not counted
