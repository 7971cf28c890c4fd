"""Appointments, and what customers were sent to remind them of these."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy import ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base, utc_now

AppointmentStatus = Literal["booked", "cancelled"]
ReminderStatus = Literal["claimed", "sent", "refused", "unknown", "postponed", "skipped", "doubted"]


class Appointment(Base):
    """One appointment of one customer, who wants reminders of those types for which there is an address here.

    ``time_zone`` is where the customer is, as the tz database names it (``Europe/Berlin``).
    """

    __tablename__ = "appointments"
    __table_args__ = (
        # As reminders are looked for: booked ones, in the order in which they begin.
        Index("ix_appointments_status_starts_at", "status", "starts_at", "id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    email: Mapped[str] = mapped_column(Text, default="")
    phone: Mapped[str] = mapped_column(String(64), default="")
    push_token: Mapped[str] = mapped_column(Text, default="")
    time_zone: Mapped[str] = mapped_column(String(64))
    starts_at: Mapped[datetime]
    status: Mapped[AppointmentStatus] = mapped_column(String(16), default="booked")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Reminder(Base):
    """The reminder of one type for one appointment at that time. If the appointment is moved, another one is sent.

    ``claimed``: a run is about to send it, or was cut off while it did. ``sent``, ``refused``: the provider's answer.
    ``unknown``: it may have been sent, nobody knows; it is not sent again. ``postponed``, ``skipped``,
    ``doubted``: it surely was not sent, and is looked at again as long as the appointment is ahead; doubted, since the
    provider refused many in a row and so may refuse us, is sent after all others. ``run``: the id of the one that
    wrote this.
    """

    __tablename__ = "reminders"
    __table_args__ = (
        Index("ix_reminders_run", "run"),
        # Few at any time, among all that were ever sent.
        Index(
            "ix_reminders_claimed",
            "claimed_at",
            sqlite_where=text("status = 'claimed'"),
            postgresql_where=text("status = 'claimed'"),
        ),
    )

    appointment_id: Mapped[int] = mapped_column(ForeignKey("appointments.id", ondelete="CASCADE"), primary_key=True)
    type: Mapped[str] = mapped_column(String(32), primary_key=True)
    starts_at: Mapped[datetime] = mapped_column(primary_key=True)
    status: Mapped[ReminderStatus] = mapped_column(String(16))
    run: Mapped[str] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    claimed_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
