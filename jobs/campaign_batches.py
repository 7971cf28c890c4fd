"""Campaigns called in batches: one request has Retell call many customers, and a follow-up job collects the outcomes.

The batch endpoint has no idempotency key: a batch that is sent twice calls twice. So a batch is written as ``sending``
with its customers before it is sent, and each of its calls carries the batch's name in its metadata. After a crash or a
lost answer the batch is not simply sent again. Its follow-up looks among the calls that the API lists. It sends the
batch again only when the API would have shown some of its calls if it had accepted it: look after look found most lines
free, and no other batch of ours waiting. If the API cannot tell, a person is asked (`scripts.settle_batch`). An
accepted batch is followed up until its calls have ended, however long they wait for free lines.

Each follow-up enqueues the next one. If this chain breaks (Redis lost its data, or a look failed for good), run the
campaign again: it also follows up batches that no job follows up.
"""

from __future__ import annotations

from rq import Retry

from jobs import call_batches
from jobs.batch_sending import BatchSender, enqueue_follow_up, follow_up_the_forgotten
from jobs.call_batches import CLEARLY_FREE, NOT_MADE, Patience, name_of
from jobs.campaigns import complete, complete_if_over, failed, find, record, start
from jobs.phone_numbers import E164
from jobs.refusals import Refusals
from jobs.retell_api import RetellApi
from jobs.sources import customers_of, shared_sessions
from jobs.tables import CampaignBatch, Customer, utc_now
from rqmem import MemoryAwareJob
from rqmem.errors import RqmemError
from rqmem.job.gather import Gathered
from rqmem.sources import Cuttable

LATER = Retry(max=5, interval=[30, 120, 600, 1800, 3600])
LOOKS_FOR_WRITTEN = 6


class BatchInDoubt(RqmemError):
    """Only a person can find out whether a batch was accepted."""


class FollowUpCallBatchJob(MemoryAwareJob):
    """Find out what became of a batch, and write it to its customers; look again until all its calls have ended.

    Attributes:
        look_again_seconds: between two looks, growing to minutes where lines are taken; needs a worker
            ``--with-scheduler``.
        patience: with what the API does not show.
    """

    memory_limit_mb = 256
    on_breach = "resume"
    queue = "campaigns"
    job_timeout = 900
    retry = LATER
    look_again_seconds = 30.0
    patience = Patience()

    def handle(self, *, campaign_id: int, batch_id: str, look: int = 0, idle_looks: int = 0) -> str:
        self.sessions = shared_sessions()
        self.campaign = find(self.sessions, campaign_id)
        batch = call_batches.read(self.sessions, batch_id)
        if batch is None:  # not written yet; or undone
            if look < LOOKS_FOR_WRITTEN:
                self.look_again(batch_id, look, self.look_again_seconds * 2**look)
            else:
                complete_if_over(self.sessions, campaign_id)
            return "nothing to do"
        if batch.status == "collected":
            return "nothing to do"
        with RetellApi() as api:
            waiting = call_batches.customers_left(self.sessions, batch_id)
            calls = api.calls("batch", [name_of(self.campaign, batch_id)])
            outcomes = call_batches.outcomes_of(calls)
            record(self.sessions, outcomes)
            self.check_memory_usage("outcomes_collected")
            if calls:
                call_batches.mark_sent(self.sessions, batch_id)
            known = {outcome["customer"] for outcome in outcomes}
            left = [customer for customer in waiting if customer.id not in known]
            under_way = len(calls) - len(outcomes)
            news = under_way > 0 or len(left) < len(waiting)
            idle_looks = idle_looks + 1 if left and not news and self.is_idle(api, batch) else 0
            age_seconds = (utc_now() - batch.sending_since).total_seconds()
            step = call_batches.judge(
                batch.status,
                left=len(left),
                listed=len(calls),
                under_way=under_way,
                age_seconds=age_seconds,
                idle_looks=idle_looks,
                patience=self.patience,
            )
            if step == "send again":
                self.send_again(api, batch, left)
        match step:
            case "look again":
                pause = call_batches.seconds_to_next_look(
                    self.look_again_seconds, age_seconds=age_seconds, idle_looks=idle_looks
                )
                self.look_again(batch_id, look, pause, idle_looks)
            case "send again":
                self.look_again(batch_id, look, self.look_again_seconds)
            case "close":
                record(self.sessions, [failed(each.id, NOT_MADE) for each in left])
                complete_if_over(self.sessions, campaign_id)  # before the mark, after which nobody looks any more
                call_batches.mark_collected(self.sessions, batch_id)
            case "ask a person":
                self.ask_a_person(batch)
        return step

    def is_idle(self, api: RetellApi, batch: CampaignBatch) -> bool:
        """Whether the API would make a call of this batch now, if there were one to make."""
        if call_batches.others_waiting(self.sessions, batch, older=batch.status == "sent"):
            return False
        return api.free_lines() >= CLEARLY_FREE

    def look_again(self, batch_id: str, look: int, seconds: float, idle_looks: int = 0) -> None:
        enqueue_follow_up(type(self), self.campaign, batch_id, look + 1, seconds, idle_looks=idle_looks)

    def send_again(self, api: RetellApi, batch: CampaignBatch, theirs: list[Customer]) -> None:
        """Send the batch again. Whatever happens, the next looks find the batch or the halves it was split into."""
        if call_batches.begin_again(self.sessions, batch):
            sender = BatchSender(
                api, self.sessions, self.campaign, type(self), gives_back=False, checkpoint=self.check_memory_usage
            )
            sender.send(batch.id, theirs)
            complete_if_over(self.sessions, self.campaign.id)

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

    def handle(self, *, campaign_id: int, items: Cuttable[Customer] | None = None) -> dict[str, int] | None:
        self.sessions = shared_sessions()
        self.campaign = start(self.sessions, campaign_id)
        everybody = customers_of(campaign_id)
        how_many = (everybody.count().items or 0) if items is None else None  # a child's campaign is large
        if items is None:
            follow_up_the_forgotten(self.follow_up, self.sessions, self.campaign)
        with RetellApi() as api:
            if how_many is not None and self.should_split_job(how_many):
                api.free_lines()  # whether the key is any good: once, and not in each child
                self.split_into_child_jobs(everybody)
                return None
            self.sender = BatchSender(
                api,
                self.sessions,
                self.campaign,
                self.follow_up,
                gives_back=True,
                checkpoint=self.check_memory_usage,
                refusals=Refusals(how_many),
            )
            self.process_in_chunks(everybody if items is None else items, self.dispatch_all, collect=False)
        return complete(self.sessions, campaign_id) if items is None else None

    def gather(self, results: Gathered) -> dict[str, int]:
        return complete(shared_sessions(), self.kwargs["campaign_id"])

    def dispatch_all(self, chunk: list[Customer]) -> None:
        self.check_memory_usage("customer_queries")
        pending = [customer for customer in chunk if customer.status == "pending"]
        wrong = {customer.id for customer in pending if not E164.fullmatch(customer.phone)}
        record(self.sessions, [failed(customer_id, "to_number must be in E.164 format") for customer_id in wrong])
        self.sender.dispatch([customer for customer in pending if customer.id not in wrong])
