"""Reminders in the database: which are due, and the rows that see to it that none is sent twice.

A row is claimed by an insert that the primary key lets only one run make, and confirmed by an update; each is a
transaction of its own, one before the message is sent and one after.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from logging import Logger
from typing import Any

from sqlalchemy import ColumnElement, and_, func, literal, not_, or_, select, update
from sqlalchemy.orm import Session, aliased, sessionmaker

from jobs.reminder_sending import Answer
from jobs.reminder_types import ReminderType
from jobs.tables import Appointment, Reminder, UtcDateTime
from jobs.upserts import insert_into
from rqmem.sources import SqlRows

LOOK_BACK = timedelta(days=1)
"""Appointments that began in this time, without a reminder, are written down as skipped; older ones are let be."""

CLAIM_AGE = timedelta(minutes=10)
"""After this no message is on its way any more: each try has a timeout of some seconds, and there are few."""

OPEN = or_(Reminder.status == "postponed", Reminder.status == "skipped", Reminder.status == "doubted")
TAKEN = ("claimed", "sent", "unknown")
"""The customer was told that time, or perhaps."""

_KEY = ("appointment_id", "type", "starts_at")


def due(sessions: sessionmaker[Session], rule: ReminderType, now: datetime, *, doubted: bool = False) -> SqlRows:
    """Appointments whose reminder of this type may be due, or overdue: the soonest first.

    ``doubted``: those, and only those, that were refused in a row with others.
    """
    row = select(Reminder.appointment_id).where(
        Reminder.appointment_id == Appointment.id,
        Reminder.type == rule.name,
        Reminder.starts_at == Appointment.starts_at,
    )
    doubts = Reminder.status == "doubted"
    later = aliased(Reminder)
    told_otherwise = select(later.appointment_id).where(
        later.appointment_id == Reminder.appointment_id,
        later.type == Reminder.type,
        later.status.in_(TAKEN),
        later.claimed_at > Reminder.claimed_at,
    )
    told = and_(not_(OPEN), ~told_otherwise.exists())
    settled = row.where(or_(told, doubts, Appointment.starts_at <= now))
    wanted = row.where(doubts, Appointment.starts_at > now).exists() if doubted else ~settled.exists()
    chosen = select(Appointment).where(
        Appointment.status == "booked",
        Appointment.starts_at > now - LOOK_BACK,
        Appointment.starts_at <= now + rule.earliest,
        getattr(Appointment, rule.address) != "",
        wanted,
    )
    return SqlRows(sessions, chosen, key=("starts_at", "id"))


def claim(
    sessions: sessionmaker[Session], rule: ReminderType, appointment: Appointment, run: str, now: datetime
) -> bool:
    """Whether this run may send the reminder: nobody has, and the appointment is still as it was read.

    Or it was sent, and one for another time since: the appointment was moved, and moved back.
    """
    other = aliased(Reminder)
    told_last = select(func.max(other.claimed_at)).where(
        other.appointment_id == appointment.id, other.type == rule.name, other.status.in_(TAKEN)
    )
    still = select(
        Appointment.id, literal(rule.name), Appointment.starts_at, literal("claimed"), literal(run),
        literal(now, UtcDateTime()),
    ).where(
        Appointment.id == appointment.id,
        Appointment.status == "booked",
        *(getattr(Appointment, it) == getattr(appointment, it) for it in ("starts_at", "time_zone", rule.address)),
    )  # fmt: skip
    with sessions.begin() as session:
        new = insert_into(session, Reminder)
        claimed = new.from_select([*_KEY, "status", "run", "claimed_at"], still).on_conflict_do_update(
            index_elements=_KEY,
            set_={"status": "claimed", "run": run, "claimed_at": now, "reason": None, "ended_at": None},
            where=or_(OPEN, Reminder.claimed_at < told_last.scalar_subquery()),
        )
        return session.execute(claimed.returning(Reminder.appointment_id)).first() is not None


def confirm(
    sessions: sessionmaker[Session],
    rule: ReminderType,
    appointment: Appointment,
    run: str,
    answer: Answer,
    now: datetime,
) -> None:
    """What became of the message: also where somebody took this run for dead meanwhile."""
    with sessions.begin() as session:
        session.execute(
            update(Reminder)
            .where(_row(rule, appointment), Reminder.run == run, Reminder.status.in_(("claimed", "unknown")))
            .values(status=answer.status, reason=answer.why, ended_at=now)
        )


def write_skipped(
    sessions: sessionmaker[Session],
    rule: ReminderType,
    skipped: Sequence[tuple[Appointment, str]],
    run: str,
    now: datetime,
) -> None:
    """Why those were not sent; once, however often they are looked at."""
    rows: list[dict[str, Any]] = [
        {
            "appointment_id": each.id, "type": rule.name, "starts_at": each.starts_at, "status": "skipped",
            "run": run, "reason": why, "claimed_at": now, "ended_at": now,
        }
        for each, why in skipped
    ]  # fmt: skip
    if not rows:
        return
    with sessions.begin() as session:
        new = insert_into(session, Reminder)
        names = ("status", "run", "reason", "claimed_at", "ended_at")
        session.execute(
            new.on_conflict_do_update(
                index_elements=_KEY,
                set_={name: new.excluded[name] for name in names},
                where=and_(OPEN, Reminder.reason != new.excluded.reason),
            ),
            rows,
        )


def take_back_refusals(sessions: sessionmaker[Session], rule: ReminderType, run: str) -> None:
    """Perhaps it was not the messages that the provider refused: they are sent once more, after all others."""
    with sessions.begin() as session:
        session.execute(
            update(Reminder)
            .where(Reminder.run == run, Reminder.type == rule.name, Reminder.status == "refused")
            .values(status="doubted")
        )


def report_unconfirmed(sessions: sessionmaker[Session], run: str, now: datetime, log: Logger) -> None:
    """Claims of runs that were cut off become ``unknown``: this job's earlier executions, and those that are old."""
    with sessions.begin() as session:
        lost = session.execute(
            update(Reminder)
            .where(Reminder.status == "claimed", or_(Reminder.run == run, Reminder.claimed_at < now - CLAIM_AGE))
            .values(status="unknown", reason="the run was cut off while it was sent", ended_at=now)
            .returning(Reminder.appointment_id, Reminder.type)
        ).all()
    for appointment_id, name in lost:
        log.warning(
            "the %s reminder of appointment %d may have been sent or not: the run was cut off just then; "
            "it is not sent again",
            name,
            appointment_id,
        )


def count(sessions: sessionmaker[Session], run: str) -> dict[str, dict[str, int]]:
    """How many reminders of each type this run left in each status."""
    figures: dict[str, dict[str, int]] = {}
    with sessions() as session:
        rows = session.execute(
            select(Reminder.type, Reminder.status, func.count())
            .where(Reminder.run == run)
            .group_by(Reminder.type, Reminder.status)
            .order_by(Reminder.type, Reminder.status)
        )
        for name, status, number in rows:
            figures.setdefault(name, {})[status] = number
    return figures


def _row(rule: ReminderType, appointment: Appointment) -> ColumnElement[bool]:
    return and_(
        Reminder.appointment_id == appointment.id,
        Reminder.type == rule.name,
        Reminder.starts_at == appointment.starts_at,
    )
