"""Reminders in the database: which are due, and the rows that keep any from being sent twice.

A row is claimed by an insert that the primary key lets only one run make, and settled by an update. Messages are
claimed and settled `AT_ONCE` at a time, in two transactions: one before they are sent and one after. Each locks its
rows in the order of their appointments, so that on PostgreSQL two runs never wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from logging import Logger
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, func, literal, literal_column, not_, or_, select, tuple_, update
from sqlalchemy.orm import Session, aliased, sessionmaker

from jobs.reminder_sending import Answer
from jobs.reminder_types import ReminderType
from jobs.statements import insert_into
from jobs.tables import Appointment, Reminder, UtcDateTime
from rqmem.sources import SqlRows

LOOK_BACK = timedelta(days=1)
"""Appointments that began within this time without a reminder are recorded as skipped; older ones are ignored."""

AT_ONCE = 10
"""Messages claimed in one transaction, so also the most whose fate is unknown after a run was killed."""

CLAIM_AGE = timedelta(minutes=10)
"""After this no message is on its way any more: few are claimed at once, and each has few tries of some seconds."""

OPEN = or_(Reminder.status == "postponed", Reminder.status == "skipped", Reminder.status == "doubted")
TAKEN = ("claimed", "sent", "unknown")
"""The customer was reminded of that time, or may have been."""

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
    sessions: sessionmaker[Session], rule: ReminderType, appointments: Sequence[Appointment], run: str, now: datetime
) -> list[Appointment]:
    """Those of the appointments whose reminder this run may send: nobody has, and they are still as they were read.

    Or it was sent, and one for another time since: the appointment was moved, and moved back.
    """
    if not appointments:
        return []
    other = aliased(Reminder)
    # Of the row that is there already.
    this_id: ColumnElement[int] = literal_column(f"{Reminder.__tablename__}.appointment_id")
    told_last = select(func.max(other.claimed_at)).where(
        other.appointment_id == this_id, other.type == rule.name, other.status.in_(TAKEN)
    )
    names = ("id", "starts_at", "time_zone", rule.address)
    as_read = [tuple(getattr(each, name) for name in names) for each in appointments]
    still = (
        select(
            Appointment.id, literal(rule.name), Appointment.starts_at, literal("claimed"), literal(run),
            literal(now, UtcDateTime()),
        )
        .where(
            Appointment.id.in_([each.id for each in appointments]),  # by the primary key; the tuples use no index
            Appointment.status == "booked",
            tuple_(*(getattr(Appointment, name) for name in names)).in_(as_read),
        )
        .order_by(Appointment.id)
    )  # fmt: skip
    with sessions.begin() as session:
        new = insert_into(session, Reminder)
        claimed = new.from_select([*_KEY, "status", "run", "claimed_at"], still).on_conflict_do_update(
            index_elements=_KEY,
            set_={"status": "claimed", "run": run, "claimed_at": now, "reason": None, "ended_at": None},
            where=or_(OPEN, Reminder.claimed_at < told_last.scalar_subquery()),
        )
        ours = set(session.scalars(claimed.returning(Reminder.appointment_id)))
    return [each for each in appointments if each.id in ours]


def settle(
    sessions: sessionmaker[Session],
    rule: ReminderType,
    outcomes: Sequence[tuple[Appointment, Answer]],
    run: str,
    now: datetime,
) -> None:
    """Record the outcome of each message, even if another run has taken this one for dead in the meantime."""
    rows = [
        {"id": each.id, "at": each.starts_at, "now_is": answer.status, "why": answer.why}
        for each, answer in sorted(outcomes, key=lambda outcome: outcome[0].id)
    ]
    if not rows:
        return
    settled = (
        update(Reminder)
        .where(
            Reminder.appointment_id == bindparam("id"),
            Reminder.type == rule.name,
            Reminder.starts_at == bindparam("at", type_=UtcDateTime()),
            Reminder.run == run,
            or_(Reminder.status == "claimed", Reminder.status == "unknown"),
        )
        .values(status=bindparam("now_is"), reason=bindparam("why"), ended_at=now)
    )
    with sessions.begin() as session:
        session.connection().execute(settled, rows)


def write_skipped(
    sessions: sessionmaker[Session],
    rule: ReminderType,
    skipped: Sequence[tuple[Appointment, str]],
    run: str,
    now: datetime,
) -> None:
    """Record why these were not sent; once, however often they are looked at."""
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
    """The provider may have refused us and not these messages, so they are sent once more, after all others."""
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
