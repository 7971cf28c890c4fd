"""Outbound call campaigns through Retell AI: one call to each customer, each exactly once.

Customers are marked before they are called. Their outcomes are written as soon as their chunk ends, however it ends.
After a crash between the two, the next run asks for the same calls with the same idempotency keys, and the API answers
with the calls that it already made. The API knows a key for an hour, and for one request only. Calls that were begun
earlier, or that it now refuses, are looked up among the calls that it lists. So the job may be run again at any time,
and two runs may overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from rq import Retry
from sqlalchemy import ColumnElement, bindparam, func, literal, select, update
from sqlalchemy.orm import Session, sessionmaker

from jobs.refusals import Refusals
from jobs.retell_api import API_RETRIES, RequestRefused, RetellApi
from jobs.sources import customers_of, shared_sessions
from jobs.tables import OPEN, Campaign, Customer, UtcDateTime, utc_now
from rqmem import MemoryAwareJob
from rqmem.errors import ConfigError
from rqmem.job.gather import Gathered
from rqmem.sources import Cuttable

KEYS_LAST = timedelta(minutes=50)  # the API says an hour; less what its clock and ours may differ, and a slow request

Outcome = dict[str, Any]


class ProcessRetellAICampaignJob(MemoryAwareJob):
    """Call every customer of a campaign who has not been called, then complete the campaign with its figures.

    A large campaign is split, and completed once all its children have finished. `ChildJobsFailed` names those that
    have not, and a retry runs only them. If the API is down, the job continues later from its cursor, which needs a
    worker ``--with-scheduler``.

    Attributes:
        concurrency: calls in flight at a time.
        api_retries: how often a call is tried again at once, with back-off, before the job gives up for now.
    """

    memory_limit_mb = 512
    chunk_size = 50
    bytes_per_item = 2 * 1024
    split_above_items = 1000
    on_breach = "resume"
    on_child_failure = "fail"
    queue = "campaigns"
    job_timeout = 3600
    retry = Retry(max=5, interval=[30, 120, 600, 1800, 3600])
    concurrency = 8
    api_retries = API_RETRIES

    def handle(self, *, campaign_id: int, items: Cuttable[Customer] | None = None) -> dict[str, int] | None:
        self.sessions = shared_sessions()
        self.campaign = start(self.sessions, campaign_id)
        everybody = customers_of(campaign_id)
        how_many = (everybody.count().items or 0) if items is None else None  # a child's campaign is large
        self.refusals = Refusals(how_many)
        with RetellApi(self.api_retries) as self.api:
            if how_many is not None and self.should_split_job(how_many):
                self.api.free_lines()  # whether the key is any good: once, and not in each child
                self.split_into_child_jobs(everybody)
                return None
            self.process_in_chunks(everybody if items is None else items, self.call_all, collect=False)
        return self.close() if items is None else None

    def gather(self, results: Gathered) -> dict[str, int]:
        self.sessions = shared_sessions()
        self.campaign = start(self.sessions, self.kwargs["campaign_id"])
        return self.close()

    def close(self) -> dict[str, int]:
        figures = complete(self.sessions, self.campaign.id)
        self.check_memory_usage("campaign_completion")
        return figures

    def call_all(self, chunk: list[Customer]) -> None:
        self.now = utc_now()
        self.begun = begun = begin_calls(self.sessions, chunk)
        to_call = [customer for customer in chunk if customer.id in begun]
        forgotten = [each for each in to_call if begun[each.id] < self.now - KEYS_LAST]
        self.outcomes = self.calls_made_before(forgotten)
        known = {outcome["customer"] for outcome in self.outcomes}
        self.in_doubt: list[tuple[Customer, str]] = []
        try:
            self.api.each([each for each in to_call if each.id not in known], self.call, self.concurrency)
            self.settle_doubts()
        finally:
            if self.refusals.of_the_campaign:
                take_back(self.sessions, self.refusals.alike)
                self.outcomes = [each for each in self.outcomes if each["customer"] not in self.refusals.alike]
            record(self.sessions, self.outcomes)
        for customer in to_call:
            self.check_memory_usage(f"customer_processing_{customer.id}")

    async def call(self, customer: Customer) -> None:
        """One call; where the API refuses this customer, that is the outcome. Other errors end the job."""
        key, since = key_of(self.campaign, customer), self.begun[customer.id]
        if since < self.now - KEYS_LAST:
            since = self.now  # nobody had called by then
        try:
            call_id = await self.api.phone_call(
                within_seconds=(since + KEYS_LAST - utc_now()).total_seconds(),
                from_number=self.campaign.from_number,
                idempotency_key=key,
                **call_of(self.campaign, customer, key=key),
            )
        except RequestRefused as refused:
            if since < self.now:  # the key may be that of a call that was made, with what has been edited since
                self.in_doubt.append((customer, str(refused)))
            else:
                self.refuse(customer, str(refused))
        else:
            self.refusals.accepted()
            self.outcomes.append(called(customer.id, call_id))
        self.check_memory_usage("api_call")

    def refuse(self, customer: Customer, why: str) -> None:
        """The outcome of a customer, unless it is the campaign that the API refuses: then `ConfigError`."""
        self.outcomes.append(failed(customer.id, why))
        self.refusals.refused(customer.id, why)
        if self.refusals.of_the_campaign:
            raise self.refusals.error(self.campaign.id)

    def settle_doubts(self) -> None:
        """Calls that were refused now, but may have been made before: the API's list decides."""
        made = self.calls_made_before([customer for customer, _ in self.in_doubt])
        self.outcomes += made
        known = {outcome["customer"] for outcome in made}
        for customer, why in self.in_doubt:
            if customer.id not in known:
                self.refuse(customer, why)

    def calls_made_before(self, begun: Sequence[Customer]) -> list[Outcome]:
        """Outcomes of calls to these customers that the API lists, whether or not it still knows their keys."""
        by_key = {key_of(self.campaign, each): each.id for each in begun}
        made = {call.metadata["key"]: call.call_id for call in self.api.calls("key", by_key)}
        if made:
            self.refusals.accepted()
        return [called(by_key[key], call_id) for key, call_id in made.items()]


def key_of(campaign: Campaign, customer: Customer) -> str:
    """The idempotency key of the one call to that customer."""
    return f"{campaign.key}-customer-{customer.id}"


def call_of(campaign: Campaign, customer: Customer, **metadata: Any) -> dict[str, Any]:
    agent = {"override_agent_id": campaign.agent_id} if campaign.agent_id else {}
    return {
        "to_number": customer.phone,
        "metadata": {"campaign_id": campaign.id, "customer_id": customer.id, **metadata},
        "retell_llm_dynamic_variables": {"name": customer.name, "language": customer.language},
        **agent,
    }


def called(customer_id: int, call_id: str) -> Outcome:
    return {"customer": customer_id, "status": "called", "call_id": call_id, "failure": None, "called_at": utc_now()}


def failed(customer_id: int, failure: str, call_id: str | None = None) -> Outcome:
    outcome = {"status": "failed", "call_id": call_id, "failure": failure[:200], "called_at": utc_now()}
    return {"customer": customer_id, **outcome}


def find(sessions: sessionmaker[Session], campaign_id: int) -> Campaign:
    """The campaign. Raises `ConfigError`."""
    with sessions() as session:
        campaign = session.get(Campaign, campaign_id)
    if campaign is None:
        raise ConfigError(f"campaign {campaign_id} does not exist; python -m seeds.campaign makes one")
    if campaign.status == "seeding":
        raise ConfigError(f"campaign {campaign_id} is still being seeded, or its seeding was cut off")
    return campaign


def start(sessions: sessionmaker[Session], campaign_id: int) -> Campaign:
    """The campaign, marked as running. Raises `ConfigError`."""
    find(sessions, campaign_id)
    with sessions.begin() as session:
        campaign = session.get_one(Campaign, campaign_id)
        campaign.status, campaign.started_at = "running", campaign.started_at or utc_now()
        return campaign


def begin_calls(sessions: sessionmaker[Session], chunk: Iterable[Customer]) -> dict[int, datetime]:
    """Mark those of a chunk who are still to be called; their ids, and since when each may have been called."""
    open_ones = Customer.id.in_([each.id for each in chunk]), Customer.status.in_(("pending", "calling"))
    first = func.coalesce(Customer.calling_since, literal(utc_now(), UtcDateTime()))
    marks = {"status": "calling", "calling_since": first}
    these = update(Customer).where(in_order(*open_ones), *open_ones)
    statement = these.values(marks).returning(Customer.id, Customer.calling_since)
    with sessions.begin() as session:
        rows = session.execute(statement)
        return {customer_id: since for customer_id, since in rows if since is not None}


def in_order(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """A condition that locks these customers in the order of their ids, so that two writers cannot block each other."""
    return Customer.id.in_(select(Customer.id).where(*conditions).order_by(Customer.id).with_for_update())


def record(sessions: sessionmaker[Session], outcomes: list[Outcome]) -> None:
    """Write outcomes, in one statement and `in_order`; a customer who has one keeps it."""
    if not outcomes:
        return
    settled = (Customer.status == "called") | (Customer.status == "failed")
    statement = update(Customer).where(Customer.id == bindparam("customer"), ~settled)
    with sessions.begin() as session:
        by_id = sorted(outcomes, key=lambda outcome: outcome["customer"])
        session.connection().execute(statement, by_id)  # sets the columns that the outcomes name


def take_back(sessions: sessionmaker[Session], customer_ids: Sequence[int]) -> None:
    """Make those pending again who were not called after all and have no outcome."""
    theirs = Customer.id.in_(customer_ids), Customer.call_id.is_(None)
    open_ones = *theirs, Customer.status.in_(("calling", "batched", "failed"))
    as_before = {"status": "pending", "calling_since": None, "batch_id": None, "failure": None, "called_at": None}
    with sessions.begin() as session:
        session.execute(update(Customer).where(in_order(*open_ones), *open_ones).values(as_before))


def complete(sessions: sessionmaker[Session], campaign_id: int) -> dict[str, int]:
    """Write the campaign's figures, and close it if nobody is left to call. Returns called and failed."""
    this = update(Campaign).where(Campaign.id == campaign_id)
    counts = select(Customer.status, func.count()).where(Customer.campaign_id == campaign_id).group_by(Customer.status)
    with sessions.begin() as session:
        session.execute(this.values(status=Campaign.status))  # a write comes first: who counts later writes later
        by_status = dict(session.execute(counts).all())
        figures = {"called": by_status.pop("called", 0), "failed": by_status.pop("failed", 0)}
        unknown = by_status.pop("unknown", 0)
        session.execute(this.values({f"customers_{name}": n for name, n in {**figures, "unknown": unknown}.items()}))
        if not by_status:
            now = func.coalesce(Campaign.completed_at, literal(utc_now(), UtcDateTime()))
            session.execute(this.values(status="completed", completed_at=now))
    return figures


def complete_if_over(sessions: sessionmaker[Session], campaign_id: int) -> None:
    """`complete`, if nobody is left to call. Cheaper than `complete`, which counts all customers."""
    open_one = select(Customer.id).where(Customer.campaign_id == campaign_id, Customer.status.in_(OPEN)).limit(1)
    with sessions() as session:
        over = session.scalar(open_one) is None
    if over:
        complete(sessions, campaign_id)
