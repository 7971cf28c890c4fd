"""The campaign jobs with less patience, for tests that would have to wait too long, and what both tests ask of them."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis import Redis
from rq import Retry
from rq.job import Job
from sqlalchemy import event, select
from sqlalchemy.engine import Engine

from jobs.call_batches import Patience
from jobs.campaign_batches import FollowUpCallBatchJob, ProcessRetellAICampaignBatchJob
from jobs.campaigns import ProcessRetellAICampaignJob
from jobs.database import session_factory
from jobs.tables import Campaign, CampaignBatch, Customer
from seeds.phone_numbers import is_e164
from seeds.retell_stand_in import StandIn
from seeds.retell_stand_in.answers import Answer, error_answer
from seeds.retell_stand_in.service import PHONE_CALL

SOON = Retry(max=5, interval=1)
ON_SQLITE = pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)
MB = 2**20


class HastyCampaignJob(ProcessRetellAICampaignJob):
    """Gives up soon for now, and comes again soon."""

    retry = SOON
    api_retries = 0


class SoonSplitJob(ProcessRetellAICampaignJob):
    """Splits where others would not yet."""

    split_above_items = 100
    items_per_child = 60


class SmallChunksJob(ProcessRetellAICampaignJob):
    """Chunks of ten customers, always."""

    chunk_size = 10
    adaptive = False


class WideCampaignJob(ProcessRetellAICampaignJob):
    """Many calls in flight."""

    chunk_size = 400
    adaptive = False
    concurrency = 200


class BrieflyPatientJob(ProcessRetellAICampaignJob):
    """Tries again at once, twice, and later as others do."""

    api_retries = 2


class GreedyCampaignJob(ProcessRetellAICampaignJob):
    """Grows without end while seven other calls are in flight."""

    on_breach = "fail"
    retry = SOON

    async def call(self, customer: Customer) -> None:
        if customer.id == 5:
            while requests_so_far() < self.concurrency - 1:
                await asyncio.sleep(0.05)
            held = []
            while True:
                held.append(bytearray(MB))
        await super().call(customer)


def requests_so_far() -> int:
    """What the stand-in says, asked from a job."""
    key = os.environ["RETELL_API_KEY"]
    request = urllib.request.Request(
        f"{os.environ['RETELL_BASE_URL']}/_record", headers={"Authorization": f"Bearer {key}"}
    )
    with urllib.request.urlopen(request) as answer:
        return int(json.load(answer)["requests"])


class HastyFollowUpJob(FollowUpCallBatchJob):
    """Looks again soon, and soon makes up its mind."""

    retry = SOON
    look_again_seconds = 0.2
    patience = Patience(settle_seconds=1, idle_looks=3, give_up_seconds=60)


class HastyBatchJob(ProcessRetellAICampaignBatchJob):
    """Small batches."""

    chunk_size = 20
    retry = SOON
    follow_up = HastyFollowUpJob


class SoonAskingFollowUpJob(HastyFollowUpJob):
    """Soon asks a person."""

    patience = Patience(settle_seconds=1, idle_looks=2, give_up_seconds=3)


class SoonAskingBatchJob(HastyBatchJob):
    """Soon asks a person."""

    follow_up = SoonAskingFollowUpJob


def enqueue(
    campaign_id: int,
    connection: Redis,
    job_class: type[ProcessRetellAICampaignJob | ProcessRetellAICampaignBatchJob] = ProcessRetellAICampaignJob,
) -> Job:
    return job_class.enqueue(campaign_id=campaign_id, connection=connection)


def customers(database: Engine) -> list[Customer]:
    with session_factory(database)() as session:
        return list(session.scalars(select(Customer).order_by(Customer.id)))


def batches(database: Engine) -> list[CampaignBatch]:
    with session_factory(database)() as session:
        return list(session.scalars(select(CampaignBatch)))


def campaign(database: Engine) -> Campaign:
    with session_factory(database)() as session:
        return session.get_one(Campaign, 1)


def statuses(database: Engine) -> Counter[str]:
    return Counter(customer.status for customer in customers(database))


def assert_called_exactly_once(database: Engine, retell: StandIn) -> None:
    """Every customer with a number has one call, the one the API made; every other one a reason."""
    calls = [(json.loads(call.metadata)["customer_id"], call.call_id) for call in retell.service.calls()]
    made = dict(calls)
    assert len(made) == len(calls)
    everybody = customers(database)
    for customer in everybody:
        if is_e164(customer.phone):
            assert (customer.status, customer.call_id) == ("called", made[customer.id])
        else:
            assert customer.status == "failed"
            assert customer.failure
            assert customer.id not in made
    ended = campaign(database)
    assert ended.status == "completed"
    assert ended.customers_called == len(calls)
    assert ended.customers_called + ended.customers_failed == len(everybody)


class Asked(NamedTuple):
    """A request to make a call, and what was answered. ``at``: in seconds, by a clock that only goes on."""

    at: float
    customer: int
    answer: Answer


def listen(retell: StandIn) -> list[Asked]:
    """All requests to make a call from here on, in the order in which they came."""
    asked: list[Asked] = []
    post, lock = retell.service.post, threading.Lock()

    def heard(path: str, authorization: str, body: bytes, now: float) -> Answer:
        with lock:
            at, answer = time.monotonic(), post(path, authorization, body, now)
            if path == PHONE_CALL:
                asked.append(Asked(at, json.loads(body)["metadata"]["customer_id"], answer))
            return answer

    retell.service.post = heard  # type: ignore[method-assign]
    return asked


def asked_too_often(retell: StandIn, every: int) -> list[Answer]:
    """Each so many requests are answered as if they were too many, whatever the clock says; those answers."""
    limited: list[Answer] = []
    post, lock, numbers = retell.service.post, threading.Lock(), count(1)

    def limit(*request: Any) -> Answer:
        with lock:
            if next(numbers) % every:
                return post(*request)
            limited.append(
                error_answer(429, "Account rate limited, please throttle your requests.", {"Retry-After": "1"})
            )
            return limited[-1]

    retell.service.post = limit  # type: ignore[method-assign, assignment]
    return limited


def connections_to(url: str) -> int:
    """How many there are that nobody has closed, by proc_pid_net(5)."""
    port = int(url.rpartition(":")[2])
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


@contextmanager
def counted(engine: Engine) -> Iterator[list[str]]:
    """The statements that the engine executes meanwhile."""
    seen: list[str] = []

    def note(*execution: object) -> None:
        seen.append(str(execution[2]))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)
