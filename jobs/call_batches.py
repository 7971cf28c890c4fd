"""Batches of calls in the database, and the decision what to do about a batch that may or may not have been accepted.

A batch and its customers are written in one transaction before the request is sent. So a process that dies later leaves
a record of what it may have asked for. `judge` decides what to do next, by the calls that the API lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from sqlalchemy import case, delete, func, or_, select, update
from sqlalchemy.orm import Session, sessionmaker

from jobs.campaigns import Outcome, called, failed, in_order
from jobs.retell_api import ListedCall
from jobs.tables import BatchStatus, Campaign, CampaignBatch, Customer, utc_now

NextStep = Literal["look again", "send again", "ask a person", "close"]

UNDER_WAY = ("registered", "ongoing")
WAITING = ("batched", "unknown")
NOT_MADE = "Retell lists no call to this customer, though it accepted the batch"
CLEARLY_FREE = 0.5  # of the lines; between two calls some are for a moment, however many wait
LONGEST_PAUSE_SECONDS = 300.0


@dataclass(frozen=True)
class Patience:
    """How long to wait for what the API does not show.

    Attributes:
        settle_seconds: the API makes the calls of a batch at once, as far as it has free lines; until then it may still
            show none.
        idle_looks: looks in a row that must find the API idle. What it has not shown by then will not come.
        give_up_seconds: as long as lines are taken nobody can tell whether a batch was accepted; after this time a
            person has to. An accepted one is waited for as long as that takes.
    """

    settle_seconds: float = 600.0
    idle_looks: int = 20
    give_up_seconds: float = 6 * 3600.0


def judge(
    status: BatchStatus,
    *,
    left: int,
    listed: int,
    under_way: int,
    age_seconds: float,
    idle_looks: int,
    patience: Patience,
) -> NextStep:
    """What to do about a batch. Pure.

    Args:
        status: as in the database; ``unknown``: a person has been asked already.
        left: of its customers, whose outcome is not known.
        listed: calls of it that the API shows.
        under_way: of these, not over yet.
        age_seconds: since it was sent.
        idle_looks: looks in a row, this one included, that found the API idle: lines clearly free, no other batch of
            ours that it has calls to make of, and no news of this one.
        patience: how long to wait.
    """
    accepted = status == "sent" or listed > 0
    if accepted and left == 0:
        return "close"
    settled = age_seconds >= patience.settle_seconds and idle_looks >= patience.idle_looks and not under_way
    if accepted:
        return "close" if settled else "look again"
    if status == "unknown":
        return "ask a person"
    if settled:
        return "send again"
    return "ask a person" if age_seconds >= patience.give_up_seconds and not idle_looks else "look again"


def seconds_to_next_look(shortest: float, *, age_seconds: float, idle_looks: int) -> float:
    """The pause after a look: it grows with the age of what is waited for, but not while the API is idle. Pure."""
    return shortest if idle_looks else max(shortest, min(age_seconds / 10, LONGEST_PAUSE_SECONDS))


def new_id() -> str:
    return uuid4().hex


def name_of(campaign: Campaign, batch_id: str) -> str:
    """What the batch is called in Retell's dashboard, and in the metadata of its calls."""
    return f"{campaign.key}-batch-{batch_id}"


def outcomes_of(calls: Iterable[ListedCall]) -> list[Outcome]:
    """What became of the customers of a batch whose calls are not under way any more."""
    return [
        failed(call.metadata["customer_id"], call.reason or call.status, call.call_id)
        if call.status in ("not_connected", "error")
        else called(call.metadata["customer_id"], call.call_id)
        for call in calls
        if call.status not in UNDER_WAY
    ]


def open_batch(
    sessions: sessionmaker[Session],
    campaign_id: int,
    batch_id: str,
    customers: Sequence[Customer],
    instead_of: str | None = None,
) -> list[Customer]:
    """Write a batch of those customers who are still pending, and return them; of nobody there is no batch.

    Args:
        instead_of: a batch that was refused; its customers may be taken too.
    """
    with sessions() as session:
        session.add(CampaignBatch(id=batch_id, campaign_id=campaign_id, status="sending", sending_since=utc_now()))
        session.flush()
        refused = (Customer.status == "batched") & (Customer.batch_id == instead_of)
        free = Customer.id.in_([each.id for each in customers]), or_(Customer.status == "pending", refused)
        claim = update(Customer).where(in_order(*free), *free).values(status="batched", batch_id=batch_id)
        claimed = set(session.scalars(claim.returning(Customer.id)))
        if claimed:
            session.commit()
        return [each for each in customers if each.id in claimed]


def undo(sessions: sessionmaker[Session], batch_id: str) -> None:
    """Remove a batch that was certainly not accepted. Its customers are pending again."""
    theirs = Customer.batch_id == batch_id, Customer.status.in_(WAITING)
    with sessions.begin() as session:
        session.execute(update(Customer).where(in_order(*theirs), *theirs).values(status="pending", batch_id=None))
        session.execute(delete(CampaignBatch).where(CampaignBatch.id == batch_id))


def mark_sent(sessions: sessionmaker[Session], batch_id: str, batch_call_id: str | None = None) -> None:
    """The API has accepted a batch, under ``batch_call_id`` if known. Its follow-up may have marked it already."""
    in_doubt = CampaignBatch.status.in_(("sending", "unknown"))
    changes = {
        "status": case((in_doubt, "sent"), else_=CampaignBatch.status),
        "batch_call_id": func.coalesce(batch_call_id, CampaignBatch.batch_call_id),
    }
    with sessions.begin() as session:
        session.execute(update(CampaignBatch).where(CampaignBatch.id == batch_id).values(changes))


def mark_collected(sessions: sessionmaker[Session], batch_id: str) -> None:
    """The outcomes of all its calls are known."""
    statement = update(CampaignBatch).where(CampaignBatch.id == batch_id).values(status="collected")
    with sessions.begin() as session:
        session.execute(statement)


def mark_unknown(sessions: sessionmaker[Session], batch_id: str) -> None:
    """Nobody knows whether the API has accepted the batch, so nobody knows whether its customers were called."""
    still = CampaignBatch.id == batch_id, CampaignBatch.status == "sending"
    theirs = Customer.batch_id == batch_id, Customer.status == "batched"
    with sessions.begin() as session:
        marked = update(CampaignBatch).where(*still).values(status="unknown").returning(CampaignBatch.id)
        if session.scalar(marked) is not None:
            session.execute(update(Customer).where(in_order(*theirs), *theirs).values(status="unknown"))


def begin_again(sessions: sessionmaker[Session], batch: CampaignBatch) -> bool:
    """Reserve the right to send the batch again. False: another execution has it."""
    same = CampaignBatch.id == batch.id, CampaignBatch.sending_since == batch.sending_since
    still = *same, CampaignBatch.status == "sending"
    with sessions.begin() as session:
        statement = update(CampaignBatch).where(*still).values(sending_since=utc_now()).returning(CampaignBatch.id)
        return session.scalar(statement) is not None


def customers_left(sessions: sessionmaker[Session], batch_id: str) -> list[Customer]:
    """Those of a batch whose outcome is not known."""
    theirs = Customer.batch_id == batch_id, Customer.status.in_(WAITING)
    with sessions() as session:
        return list(session.scalars(select(Customer).where(*theirs).order_by(Customer.id)))


def others_waiting(sessions: sessionmaker[Session], batch: CampaignBatch, *, older: bool) -> bool:
    """Whether the API has accepted other batches, of any campaign, whose outcomes are not all known.

    Args:
        older: look at those before this one alone, so that two do not wait for each other.
    """
    customer = select(Customer.id).where(Customer.batch_id == CampaignBatch.id, Customer.status == "batched")
    others = CampaignBatch.status == "sent", CampaignBatch.id != batch.id, customer.exists()
    statement = select(CampaignBatch.id).where(*others).limit(1)
    if older:
        statement = statement.where(CampaignBatch.sending_since < batch.sending_since)
    with sessions() as session:
        return session.scalar(statement) is not None


def not_collected(sessions: sessionmaker[Session], campaign_id: int) -> list[str]:
    """Ids of the batches of a campaign of which not all outcomes are known."""
    theirs = CampaignBatch.campaign_id == campaign_id, CampaignBatch.status != "collected"
    with sessions() as session:
        return list(session.scalars(select(CampaignBatch.id).where(*theirs)))


def read(sessions: sessionmaker[Session], batch_id: str) -> CampaignBatch | None:
    """The batch; None if it is not written yet, or was removed."""
    with sessions() as session:
        return session.get(CampaignBatch, batch_id)
