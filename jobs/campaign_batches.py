"""Campaigns called in batches: one request has Retell call many customers, and a follow-up job collects the outcomes.

The batch endpoint has no idempotency key: asked twice it calls twice. So a batch is written as ``sending`` with its
customers before it is sent, and each of its calls carries its name in the metadata. Whatever comes between sending and
knowing (a crash, a lost answer), nobody simply sends it again: its follow-up looks among the calls that the API lists,
and sends it again only once the API would have to show some if it had ever accepted it. Where the API cannot tell, a
person is asked (`scripts.settle_batch`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from rq import Retry, get_current_job

from jobs import call_batches
from jobs.call_batches import NOT_MADE, Patience, name_of
from jobs.campaigns import call_of, complete, complete_if_over, failed, find, record, start
from jobs.retell_api import AnswerLost, RequestRefused, RetellApi, RetellUnavailable
from jobs.sources import customers_of, shared_sessions
from jobs.tables import Campaign, CampaignBatch, Customer, utc_now
from rqmem import MemoryAwareJob, connect
from rqmem.errors import ConfigError, RqmemError
from rqmem.sources import Cuttable

E164 = re.compile(r"\+[1-9][0-9]{6,14}")
LATER = Retry(max=5, interval=[30, 120, 600, 1800, 3600])
LOST_IN_A_ROW = 3


class BatchInDoubt(RqmemError):
    """Only a person can find out whether a batch was accepted."""


class FollowUpCallBatchJob(MemoryAwareJob):
    """Find out what became of a batch, and write it to its customers; come again until all calls have ended.

    Attributes:
        look_again_seconds: between two looks; needs a worker ``--with-scheduler``.
        patience: with what the API does not show.
    """

    memory_limit_mb = 256
    on_breach = "resume"
    queue = "campaigns"
    job_timeout = 900
    retry = LATER
    look_again_seconds = 30.0
    patience = Patience()

    def handle(self, *, campaign_id: int, batch_id: str, look: int = 0) -> str:
        self.sessions = shared_sessions()
        self.campaign = find(self.sessions, campaign_id)
        batch = call_batches.read(self.sessions, batch_id)
        if batch is None or batch.status == "collected":  # not written yet; undone; or all done
            if batch is None and look == 0:
                self.look_again(batch_id, look)
            return "nothing to do"
        with RetellApi() as api:
            calls = api.calls("batch", [name_of(self.campaign, batch_id)])
            record(self.sessions, call_batches.outcomes_of(calls))
            self.check_memory_usage("outcomes_collected")
            if calls:
                call_batches.mark_sent(self.sessions, batch_id)
            left = call_batches.customers_left(self.sessions, batch_id)
            step = call_batches.judge(
                batch.status,
                left=len(left),
                listed=len(calls),
                age_seconds=(utc_now() - batch.sending_since).total_seconds(),
                lines_free=not calls and batch.status == "sending" and api.has_free_lines(),
                patience=self.patience,
            )
            if step == "send again":
                self.send_again(api, batch, left)
        match step:
            case "look again" | "send again":
                self.look_again(batch_id, look)
            case "close":
                record(self.sessions, [failed(each.id, NOT_MADE) for each in left])
                complete_if_over(self.sessions, campaign_id)  # before the mark, after which nobody looks any more
                call_batches.mark_collected(self.sessions, batch_id)
            case "ask a person":
                self.ask_a_person(batch)
        return step

    def look_again(self, batch_id: str, look: int) -> None:
        enqueue_follow_up(type(self), self.campaign, batch_id, look + 1, self.look_again_seconds)

    def send_again(self, api: RetellApi, batch: CampaignBatch, theirs: list[Customer]) -> None:
        if not call_batches.begin_again(self.sessions, batch):
            return
        try:
            with suppress(AnswerLost):
                send(api, self.campaign, batch.id, theirs)
        except RequestRefused:  # its customers are pending again, and the campaign is to be run again
            complete(self.sessions, self.campaign.id)

    def ask_a_person(self, batch: CampaignBatch) -> None:
        call_batches.mark_unknown(self.sessions, batch.id)
        complete(self.sessions, self.campaign.id)
        name = name_of(self.campaign, batch.id)
        raise BatchInDoubt(
            f"nobody knows whether Retell has accepted batch {batch.id}: look for {name} in its dashboard, then run "
            f"python -m scripts.settle_batch {batch.id} --sent (or --not-sent)"
        )


class ProcessRetellAICampaignBatchJob(MemoryAwareJob):
    """Have every pending customer of a campaign called, in batches. The last follow-up completes the campaign.

    Attributes:
        chunk_size: customers of a batch.
        follow_up: the job that follows a batch up.
    """

    memory_limit_mb = 512
    chunk_size = 100
    adaptive = False
    bytes_per_item = 2 * 1024
    on_breach = "resume"
    queue = "campaigns"
    job_timeout = 3600
    retry = LATER
    follow_up: type[FollowUpCallBatchJob] = FollowUpCallBatchJob
    lost_in_a_row = 0

    def handle(self, *, campaign_id: int, items: Cuttable[Customer] | None = None) -> dict[str, int] | None:
        self.sessions = shared_sessions()
        self.campaign = start(self.sessions, campaign_id)
        everybody = customers_of(campaign_id)
        with RetellApi() as self.api:
            if items is None and self.should_split_job(everybody.count().items or 0):
                self.api.has_free_lines()  # whether the key is any good: once, and not in each child
                self.split_into_child_jobs(everybody)
                return None
            self.process_in_chunks(everybody if items is None else items, self.dispatch_all, collect=False)
        return complete(self.sessions, campaign_id) if items is None else None

    def gather(self, results: Sequence[Any]) -> dict[str, int]:
        return complete(shared_sessions(), self.kwargs["campaign_id"])

    def dispatch_all(self, chunk: list[Customer]) -> None:
        self.check_memory_usage("customer_queries")
        pending = [customer for customer in chunk if customer.status == "pending"]
        wrong = {customer.id for customer in pending if not E164.fullmatch(customer.phone)}
        record(self.sessions, [failed(customer_id, "to_number must be in E.164 format") for customer_id in wrong])
        self.dispatch([customer for customer in pending if customer.id not in wrong])

    def dispatch(self, some: list[Customer]) -> None:
        """Send them as a batch; where the API refuses that, as two halves, until those it refuses are alone.

        The follow-up comes first: a batch without one would be forgotten. It waits for one that is not written yet.
        """
        if not some:
            return
        batch_id = call_batches.new_id()
        enqueue_follow_up(self.follow_up, self.campaign, batch_id)
        self.check_memory_usage("job_creation")
        theirs = call_batches.open_batch(self.sessions, self.campaign.id, batch_id, some)
        try:
            if theirs:
                send(self.api, self.campaign, batch_id, theirs)
            self.lost_in_a_row = 0
        except AnswerLost:
            self.lost_in_a_row += 1
            if self.lost_in_a_row >= LOST_IN_A_ROW:  # the API is in trouble: later
                raise
        except RequestRefused as refused:
            self.take_apart(theirs, str(refused))
        self.check_memory_usage("batch_dispatch")

    def take_apart(self, theirs: list[Customer], refusal: str) -> None:
        if len(theirs) == 1:
            record(self.sessions, [failed(theirs[0].id, refusal)])
            return
        middle = len(theirs) // 2
        self.dispatch(theirs[:middle])
        self.dispatch(theirs[middle:])


def send(api: RetellApi, campaign: Campaign, batch_id: str, theirs: list[Customer]) -> None:
    """Send a batch that is written as ``sending``. What certainly was not accepted is undone: pending again.

    Raises as `RetellApi.batch_call`.
    """
    name = name_of(campaign, batch_id)
    tasks = [call_of(campaign, customer, batch=name) for customer in theirs]
    try:
        batch_call_id = api.batch_call(from_number=campaign.from_number, name=name, tasks=tasks)
    except AnswerLost:
        raise  # its follow-up finds out
    except (RequestRefused, RetellUnavailable, ConfigError):
        call_batches.undo(shared_sessions(), batch_id)
        raise
    call_batches.mark_sent(shared_sessions(), batch_id, batch_call_id)


def enqueue_follow_up(
    job_class: type[FollowUpCallBatchJob], campaign: Campaign, batch_id: str, look: int = 0, seconds: float = 0.0
) -> None:
    """Enqueue the n-th look after a batch, in so many seconds, where the job is that runs now."""
    here = get_current_job()
    where = {"connection": here.connection, "serializer": here.serializer} if here else {"connection": connect()}
    options = {**where, "job_id": f"{name_of(campaign, batch_id)}-look-{look}"}
    queue = here.origin if here else None
    arguments = {"campaign_id": campaign.id, "batch_id": batch_id, "look": look}
    if seconds:
        job_class.enqueue_in(timedelta(seconds=seconds), queue, **arguments, **options)
    else:
        job_class.enqueue(queue, **arguments, **options)
