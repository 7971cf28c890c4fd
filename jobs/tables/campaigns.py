"""Outbound call campaigns, the people they call, and the batches in which these are called."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base, utc_now

CampaignStatus = Literal["seeding", "pending", "running", "completed"]
CustomerStatus = Literal["pending", "calling", "batched", "called", "failed", "unknown"]
OPEN: tuple[CustomerStatus, ...] = ("pending", "calling", "batched")
"""Still to be called, or called without a known outcome. Not ``unknown``: that waits for a person."""

BatchStatus = Literal["sending", "sent", "collected", "unknown"]


class Campaign(Base):
    """One outbound call campaign.

    ``seeding`` means that its customers are still being written, or that writing them was cut off:
    such a campaign must not be run. ``completed``: no customer is left to call. Only its customers
    say how far it is.
    """

    __tablename__ = "campaigns"
    # AUTOINCREMENT: an id is never used again after a delete, so neither is what derives from it.
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    from_number: Mapped[str] = mapped_column(String(16))
    agent_id: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[CampaignStatus] = mapped_column(String(16), default="pending")
    customers_called: Mapped[int] = mapped_column(default=0)
    customers_failed: Mapped[int] = mapped_column(default=0)
    customers_unknown: Mapped[int] = mapped_column(default=0)
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    @property
    def key(self) -> str:
        """Its name towards the API: ids come again in a new database, together with the moment they do not."""
        return f"campaign-{self.id}-{self.created_at:%Y%m%d%H%M%S%f}"


class Customer(Base):
    """One person to be called in one campaign.

    ``calling``: a call may have been made since ``calling_since``, and its outcome is not known yet.
    ``batched``: so for the batch ``batch_id``. ``unknown``: nobody knows whether that batch was accepted.
    ``failure`` is a short reason when the status is failed.
    """

    __tablename__ = "customers"
    __table_args__ = (
        Index("ix_customers_campaign_id", "campaign_id", "id"),
        Index("ix_customers_campaign_status", "campaign_id", "status"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(Text)
    phone: Mapped[str] = mapped_column(String(64))
    country: Mapped[str] = mapped_column(String(2))
    language: Mapped[str] = mapped_column(String(8))
    notes: Mapped[str] = mapped_column(Text, default="")
    status: Mapped[CustomerStatus] = mapped_column(String(16), default="pending")
    calling_since: Mapped[datetime | None]
    batch_id: Mapped[str | None] = mapped_column(ForeignKey("campaign_batches.id", ondelete="SET NULL"), index=True)
    call_id: Mapped[str | None] = mapped_column(String(64))
    failure: Mapped[str | None] = mapped_column(String(200))
    called_at: Mapped[datetime | None]


class CampaignBatch(Base):
    """Customers of a campaign who are called with one request. It is written before that is sent.

    ``sending``: the request may have been accepted, nobody knows yet. ``sent``: it was. ``collected``: the outcome of
    each of its calls is in its customer's row. ``unknown``: the API cannot tell, and a person has to look.
    ``id`` is our own; ``batch_call_id`` is the API's, if it is known.
    """

    __tablename__ = "campaign_batches"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id", ondelete="CASCADE"), index=True)
    status: Mapped[BatchStatus] = mapped_column(String(16), default="sending")
    batch_call_id: Mapped[str | None] = mapped_column(String(64))
    sending_since: Mapped[datetime] = mapped_column(default=utc_now)
