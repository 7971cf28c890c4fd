"""Batches of calls as the database keeps them, and what is to be done about one whose fate is open.

A batch and whom it is for are written in one transaction before the request is sent, so whatever dies later leaves a
trace of what may have been asked for. `judge` decides, from what the API lists, what becomes of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.orm import Session, sessionmaker

from jobs.campaigns import Outcome, called, failed
from jobs.retell_api import ListedCall
from jobs.tables import BatchStatus, Campaign, CampaignBatch, Customer, utc_now

NextStep = Literal["look again", "send again", "ask a person", "close"]

UNDER_WAY = ("registered", "ongoing")
WAITING = ("batched", "unknown")
NOT_MADE = "Retell lists no call to this customer, though it accepted the batch"


@dataclass(frozen=True)
class Patience:
    """How long to wait for what the API does not show.

    Attributes:
        settle_seconds: the API makes the calls of a batch at once, as far as it has free lines; so a batch of which it
            has shown none for so long, with lines free, it has never accepted.
        give_up_seconds: as long as all lines are taken nobody can tell; after so long a person has to.
    """

    settle_seconds: float = 600.0
    give_up_seconds: float = 6 * 3600.0


def judge(
    status: BatchStatus, *, left: int, listed: int, age_seconds: float, lines_free: bool, patience: Patience
) -> NextStep:
    """What to do about a batch. Pure.

    Args:
        status: as it stands in the database; ``unknown``: a person has been asked already.
        left: of its customers, whose outcome is not known.
        listed: calls of it that the API shows.
        age_seconds: since it was sent.
        lines_free: whether the API could make a call now.
        patience: how long to wait.
    """
    accepted = status == "sent" or listed > 0
    if accepted and left == 0:
        return "close"
    if accepted:  # what a busy API has not called by then it will not call
        return "close" if age_seconds >= patience.give_up_seconds else "look again"
    if status == "unknown":
        return "ask a person"
    if age_seconds < patience.settle_seconds:
        return "look again"
    if lines_free:
        return "send again"
    return "ask a person" if age_seconds >= patience.give_up_seconds else "look again"


def new_id() -> str:
    """The id of a batch that is about to be made."""
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
    sessions: sessionmaker[Session], campaign_id: int, batch_id: str, customers: Sequence[Customer]
) -> list[Customer]:
    """Write a batch of those customers who are still pending, and return them; of nobody there is no batch."""
    with sessions() as session:
        session.add(CampaignBatch(id=batch_id, campaign_id=campaign_id, status="sending", sending_since=utc_now()))
        session.flush()
        pending = Customer.id.in_([each.id for each in customers]), Customer.status == "pending"
        claim = update(Customer).where(*pending).values(status="batched", batch_id=batch_id).returning(Customer.id)
        claimed = set(session.scalars(claim))
        if claimed:
            session.commit()
        return [each for each in customers if each.id in claimed]


def undo(sessions: sessionmaker[Session], batch_id: str) -> None:
    """A batch that was certainly not accepted: it never was, and its customers are pending again."""
    theirs = Customer.batch_id == batch_id, Customer.status.in_(WAITING)
    with sessions.begin() as session:
        session.execute(update(Customer).where(*theirs).values(status="pending", batch_id=None))
        session.execute(delete(CampaignBatch).where(CampaignBatch.id == batch_id))


def mark_sent(sessions: sessionmaker[Session], batch_id: str, batch_call_id: str | None = None) -> None:
    """The API has accepted a batch, under that id where it has told it. Its follow-up may have found out before."""
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
    """Nobody knows whether the API has accepted a batch, so neither whether its customers were called."""
    still = CampaignBatch.id == batch_id, CampaignBatch.status == "sending"
    theirs = Customer.batch_id == batch_id, Customer.status == "batched"
    with sessions.begin() as session:
        marked = update(CampaignBatch).where(*still).values(status="unknown").returning(CampaignBatch.id)
        if session.scalar(marked) is not None:
            session.execute(update(Customer).where(*theirs).values(status="unknown"))


def begin_again(sessions: sessionmaker[Session], batch: CampaignBatch) -> bool:
    """Take it upon oneself to send the batch again; False: somebody else has."""
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


def read(sessions: sessionmaker[Session], batch_id: str) -> CampaignBatch | None:
    """A batch as it stands; None: there is none (yet, or any more)."""
    with sessions() as session:
        return session.get(CampaignBatch, batch_id)
