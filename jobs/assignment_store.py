"""Operations on assignments in the database: staged, applied, reported. Each function is one or two statements.

Keys are asked for `ASKED_AT_ONCE` at a time, so the statements for a chunk are as many as for any other, up to that
size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final, TypeVar, cast, get_args

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.orm import Session, aliased, sessionmaker

from jobs.assignment_rules import Decided, Held, Line, Skip
from jobs.statements import counts, insert_into
from jobs.tables import (
    AssignmentRun,
    AssignmentSkip,
    EventType,
    SkipReason,
    Staff,
    StaffAssignment,
    StagedAssignment,
)
from rqmem.sources import SqlRows

ASKED_AT_ONCE = 1_000
FORGOTTEN_AT_ONCE = 5_000
PAUSE_SECONDS = 0.01
"""A pause in which other writers, which ask every 0.1 s, may get SQLite's lock."""

ABANDONED = timedelta(days=100)
"""How long the staged lines of a run that never completed are kept. Longer than its job may wait for its children or in
its queue before it starts over (90 days), since else it would find nothing."""

AS_IT_IS: Final = {"synchronize_session": False}
"""No objects of these are in the session, so SQLAlchemy need not look which ones a statement changes."""

K = TypeVar("K")


def begin(sessions: sessionmaker[Session], run: str, job: str, source: str, now: datetime) -> bool:
    """Write down that a run has begun, if nobody has. False: it is completed."""
    with sessions.begin() as session:
        new = insert_into(session, AssignmentRun).values(run=run, job=job, source=source, started_at=now)
        session.execute(new.on_conflict_do_nothing())
        query = select(AssignmentRun.run).where(
            AssignmentRun.completed_at.is_(None), AssignmentRun.started_at < now - ABANDONED, AssignmentRun.run != run
        )
        abandoned = session.scalars(query).all()
        begins = session.get_one(AssignmentRun, run).completed_at is None
    for each in abandoned:
        forget_staged(sessions, each)
    return begins


def splits(sessions: sessionmaker[Session], run: str, yes: bool) -> bool:
    """Whether child jobs stage the lines: as its first execution decided, which later ones might do otherwise."""
    with sessions.begin() as session:
        session.execute(
            update(AssignmentRun).where(AssignmentRun.run == run, AssignmentRun.split.is_(None)).values(split=yes),
            execution_options=AS_IT_IS,
        )
        return session.get_one(AssignmentRun, run).split is True


# Staging


def staff_by_email(session: Session, emails: Collection[str]) -> dict[str, tuple[int, bool]]:
    """Id and activity of those who exist."""
    query = select(Staff.email, Staff.id, Staff.active)
    rows = _each_some(session, emails, lambda some: query.where(Staff.email.in_(some)))
    return {email: (staff_id, active) for email, staff_id, active in rows}


def event_types_by_slug(session: Session, slugs: Collection[str]) -> dict[str, int]:
    query = select(EventType.slug, EventType.id)
    return dict(_each_some(session, slugs, lambda some: query.where(EventType.slug.in_(some))))


def stage(session: Session, run: str, lines: Sequence[tuple[Line, int, int]]) -> None:
    """Keep valid lines, each with the ids of its staff and event type; one that is kept already stays as it is."""
    rows = [
        {"run": run, "position": line.position, "staff_id": staff, "event_type_id": event_type, "role": line.role,
         "applied": False}
        for line, staff, event_type in lines
    ]  # fmt: skip
    if rows:
        session.execute(insert_into(session, StagedAssignment).on_conflict_do_nothing(), rows)


def report(session: Session, run: str, skips: Sequence[Skip]) -> None:
    """Write down lines that are not applied, and why; once."""
    rows: list[dict[str, Any]] = [{"run": run, **each._asdict()} for each in skips]
    if rows:
        session.execute(insert_into(session, AssignmentSkip).on_conflict_do_nothing(), rows)


# Applying


def staged(sessions: sessionmaker[Session], run: str) -> SqlRows:
    """The lines of a run as `jobs.assignment_rules.StagedLine`: by staff, and then as in the input."""
    earlier = aliased(StagedAssignment)
    repeated = (
        select(earlier.position)
        .where(
            earlier.run == StagedAssignment.run,
            earlier.staff_id == StagedAssignment.staff_id,
            earlier.event_type_id == StagedAssignment.event_type_id,
            earlier.position < StagedAssignment.position,
        )
        .exists()
    )
    lines = (
        select(
            StagedAssignment.staff_id, StagedAssignment.position, StagedAssignment.event_type_id,
            StagedAssignment.role, Staff.email, EventType.slug, EventType.exclusive_group, repeated.label("repeated"),
        )
        .outerjoin(Staff, Staff.id == StagedAssignment.staff_id)
        .outerjoin(EventType, EventType.id == StagedAssignment.event_type_id)
        .where(StagedAssignment.run == run)
    )  # fmt: skip
    return SqlRows(sessions, lines, key=("staff_id", "position"))


def take(session: Session, run: str, positions: Collection[int]) -> set[int]:
    """Reserve those lines that nobody has applied, for this transaction.

    It is the transaction's first write, so on SQLite nobody else writes until the transaction ends.
    """
    taken = (
        update(StagedAssignment)
        .where(StagedAssignment.run == run, StagedAssignment.applied.is_(False))
        .values(applied=True)
        .returning(StagedAssignment.position)
        .execution_options(**AS_IT_IS)
    )
    rows = _each_some(session, positions, lambda some: taken.where(StagedAssignment.position.in_(some)))
    return {position for (position,) in rows}


def lock_staff(session: Session, staff_ids: Collection[int]) -> dict[int, bool]:
    """Lock these members of staff until the transaction ends. Returns whether each is active.

    They are locked in one order, so that on PostgreSQL two runs never wait for each other in a circle. SQLite needs no
    such lock (`take`), and SQLAlchemy leaves it out there.
    """
    query = select(Staff.id, Staff.active).order_by(Staff.id).with_for_update()
    return dict(_each_some(session, sorted(staff_ids), lambda some: query.where(Staff.id.in_(some))))


def held_by(session: Session, staff_ids: Collection[int]) -> dict[int, dict[int, Held]]:
    """What these have, by member of staff and event type."""
    query = select(
        StaffAssignment.staff_id, StaffAssignment.event_type_id, EventType.slug, StaffAssignment.exclusive_group,
        StaffAssignment.role,
    ).join(EventType, EventType.id == StaffAssignment.event_type_id)  # fmt: skip
    rows = _each_some(session, staff_ids, lambda some: query.where(StaffAssignment.staff_id.in_(some)))
    held: dict[int, dict[int, Held]] = {}
    for staff_id, event_type_id, slug, group, role in rows:
        held.setdefault(staff_id, {})[event_type_id] = Held(slug, group, role)
    return held


def write(session: Session, run: str, decided: Decided, now: datetime) -> None:
    """Assignments, skips and figures of some lines."""
    rows = [
        {"staff_id": each.staff_id, "event_type_id": each.event_type_id, "exclusive_group": each.exclusive_group,
         "role": each.role, "created_at": now, "updated_at": now}
        for each in decided.written
    ]  # fmt: skip
    if rows:
        new = insert_into(session, StaffAssignment)
        changed = {"role": new.excluded.role, "updated_at": new.excluded.updated_at}
        session.execute(new.on_conflict_do_update(index_elements=["staff_id", "event_type_id"], set_=changed), rows)
    report(session, run, decided.skips)
    session.execute(
        update(AssignmentRun)
        .where(AssignmentRun.run == run)
        .values(
            created=AssignmentRun.created + decided.created,
            updated=AssignmentRun.updated + decided.updated,
            unchanged=AssignmentRun.unchanged + decided.unchanged,
        ),
        execution_options=AS_IT_IS,
    )


def complete(sessions: sessionmaker[Session], run: str, now: datetime) -> None:
    """Mark the run as completed. Its staged lines are deleted."""
    forget_staged(sessions, run)
    with sessions.begin() as session:
        session.execute(
            update(AssignmentRun)
            .where(AssignmentRun.run == run, AssignmentRun.completed_at.is_(None))
            .values(completed_at=now),
            execution_options=AS_IT_IS,
        )


def forget_staged(sessions: sessionmaker[Session], run: str) -> None:
    """Delete what a run has staged, some lines at a time: for a million at once SQLite kept others out for 20 s."""
    lines = select(StagedAssignment.position).where(StagedAssignment.run == run)
    some = lines.order_by(StagedAssignment.position).limit(FORGOTTEN_AT_ONCE)
    first = delete(StagedAssignment).where(StagedAssignment.run == run, StagedAssignment.position.in_(some))
    while True:
        with sessions.begin() as session:
            deleted = session.execute(first, execution_options=AS_IT_IS)
        if cast("CursorResult[Any]", deleted).rowcount < FORGOTTEN_AT_ONCE:
            return
        time.sleep(PAUSE_SECONDS)


def figures(sessions: sessionmaker[Session], run: str) -> dict[str, Any]:
    """What a run has done, and how many lines it skipped for which reason."""
    with sessions() as session:
        reasons = counts(session, AssignmentSkip.reason, sorted(get_args(SkipReason)), AssignmentSkip.run == run)
        skipped = {reason: count for reason, count in reasons.items() if count}
        done = session.get_one(AssignmentRun, run)
    return {"created": done.created, "updated": done.updated, "unchanged": done.unchanged, "skipped": skipped}


def _each_some(session: Session, keys: Iterable[K], statement: Callable[[list[K]], Any]) -> Iterable[Any]:
    """The rows of a statement, run for some of the keys at a time: the parameters of one statement are limited."""
    left = iter(keys)
    while some := list(islice(left, ASKED_AT_ONCE)):
        yield from session.execute(statement(some)).all()
