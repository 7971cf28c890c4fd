"""Sends batches, and halves of batches that the API refuses. The follow-up job of each is enqueued before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from rq import Queue, get_current_job
from sqlalchemy.orm import Session, sessionmaker

from jobs import call_batches
from jobs.call_batches import name_of
from jobs.campaigns import call_of, failed, record, take_back
from jobs.refusals import Refusals
from jobs.retell_api import AnswerLost, RequestRefused, RetellApi, RetellUnavailable
from jobs.tables import Campaign, Customer
from rqmem import MemoryAwareJob, connect
from rqmem.errors import ConfigError

LOST_IN_A_ROW = 3


@dataclass
class BatchSender:
    """Sends batches for one execution of a job.

    Attributes:
        gives_back: whether the customers of a batch that surely was not accepted are pending again, as is right for a
            job that comes again for them. Else the batch stays as it is written, and its follow-up comes again for it.
        checkpoint: called with the name of what has been done.
    """

    api: RetellApi
    sessions: sessionmaker[Session]
    campaign: Campaign
    follow_up: type[MemoryAwareJob]
    gives_back: bool
    checkpoint: Callable[[str], object]
    lost_in_a_row: int = 0
    refusals: Refusals = field(default_factory=Refusals)

    def dispatch(self, some: list[Customer], instead_of: str | None = None) -> None:
        """Send a batch to those of them who are pending, or in the batch ``instead_of``.

        The follow-up comes first: a batch without one would be forgotten. It waits for one that is not written yet.
        Raises as `send`.
        """
        if not some:
            return
        batch_id = call_batches.new_id()
        enqueue_follow_up(self.follow_up, self.campaign, batch_id)
        self.checkpoint("job_creation")
        theirs = call_batches.open_batch(self.sessions, self.campaign.id, batch_id, some, instead_of)
        if theirs:
            self.send(batch_id, theirs)
        self.checkpoint("batch_dispatch")

    def send(self, batch_id: str, theirs: list[Customer]) -> None:
        """Send a batch that is written as ``sending``; where the API refuses it, as halves (`take_apart`).

        Raises:
            AnswerLost: three answers in a row were lost. Each follow-up finds out what became of its batch.
            RetellUnavailable: the API could not be reached.
            ConfigError: it refuses the key, the account, or all that the campaign asks for.
        """
        name = name_of(self.campaign, batch_id)
        tasks = [call_of(self.campaign, customer, batch=name) for customer in theirs]
        try:
            with self._giving_back(batch_id):
                batch_call_id = self.api.batch_call(from_number=self.campaign.from_number, name=name, tasks=tasks)
        except AnswerLost:
            self.lost_in_a_row += 1
            if self.lost_in_a_row >= LOST_IN_A_ROW:  # the API is in trouble: later
                raise
        except RequestRefused as refused:
            self.lost_in_a_row = 0
            self.take_apart(batch_id, theirs, str(refused))
        else:
            self.lost_in_a_row = 0
            self.refusals.accepted()
            call_batches.mark_sent(self.sessions, batch_id, batch_call_id)

    def take_apart(self, batch_id: str, theirs: list[Customer], refusal: str) -> None:
        """Send a refused batch as two halves, and so on, until each customer that the API refuses is alone.

        The batch stays in the database until all its customers are in others. If the job dies before that, the batch's
        follow-up finds the rest.
        """
        with self._giving_back(batch_id, also_if_lost=True):
            if len(theirs) == 1:
                self._refuse(theirs[0], refusal)
            else:
                middle = len(theirs) // 2
                self.dispatch(theirs[:middle], instead_of=batch_id)
                self.dispatch(theirs[middle:], instead_of=batch_id)
        call_batches.undo(self.sessions, batch_id)

    def _refuse(self, customer: Customer, why: str) -> None:
        """The outcome of a customer, unless it is the campaign that the API refuses: then `ConfigError`."""
        self.refusals.refused(customer.id, why)
        if self.refusals.of_the_campaign:
            take_back(self.sessions, self.refusals.alike)
            raise self.refusals.error(self.campaign.id)
        record(self.sessions, [failed(customer.id, why)])

    @contextmanager
    def _giving_back(self, batch_id: str, *, also_if_lost: bool = False) -> Iterator[None]:
        """Undo a batch if the block raises an error that leaves it unsent. `AnswerLost` may mean either."""
        try:
            yield
        except (RetellUnavailable, ConfigError) as error:
            if self.gives_back and (also_if_lost or not isinstance(error, AnswerLost)):
                call_batches.undo(self.sessions, batch_id)
            raise


def enqueue_follow_up(
    job_class: type[MemoryAwareJob],
    campaign: Campaign,
    batch_id: str,
    look: int = 0,
    seconds: float = 0.0,
    **arguments: Any,
) -> None:
    """Enqueue the n-th look at a batch, in ``seconds``, on the queue of the job that runs now."""
    here = get_current_job()
    where = {"connection": here.connection, "serializer": here.serializer} if here else {"connection": connect()}
    options = {**where, "job_id": f"{name_of(campaign, batch_id)}-look-{look}"}
    queue = here.origin if here else None
    arguments = {"campaign_id": campaign.id, "batch_id": batch_id, "look": look, **arguments}
    if seconds:
        job_class.enqueue_in(timedelta(seconds=seconds), queue, **arguments, **options)
    else:
        job_class.enqueue(queue, **arguments, **options)


def follow_up_the_forgotten(
    job_class: type[MemoryAwareJob], sessions: sessionmaker[Session], campaign: Campaign
) -> None:
    """Enqueue a follow-up for each batch that has not been collected and that no job follows up any more.

    If a follow-up is just about to enqueue the next one, there will be two. That is wasteful but harmless.
    """
    open_ones = call_batches.not_collected(sessions, campaign.id)
    if not open_ones:
        return
    here = get_current_job()
    queue = Queue(here.origin, connection=here.connection) if here else Queue(job_class.queue, connection=connect())
    scheduled, queued = queue.scheduled_job_registry.get_job_ids(), queue.get_job_ids()  # in the order they go through
    started = queue.started_job_registry.get_job_ids(cleanup=False)
    alive = {job_id.rpartition("-look-")[0] for job_id in (*scheduled, *queued, *started)}
    for batch_id in open_ones:
        if name_of(campaign, batch_id) not in alive:
            enqueue_follow_up(job_class, campaign, batch_id)
