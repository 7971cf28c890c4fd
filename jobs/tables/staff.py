"""Staff, the event types they are assigned to, and what an operation on many assignments leaves behind."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base, utc_now

AssignmentRole = Literal["host", "assistant", "backup"]
SkipReason = Literal["malformed", "unknown staff", "inactive staff", "unknown event type", "duplicate", "conflict"]


class Staff(Base):
    """One member of staff, known by an email address in small letters. Who has left is not ``active``."""

    __tablename__ = "staff"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(200), unique=True)
    name: Mapped[str] = mapped_column(Text)
    active: Mapped[bool] = mapped_column(default=True)


class EventType(Base):
    """One kind of event that can be booked. Nobody can have two of the same ``exclusive_group``: they overlap."""

    __tablename__ = "event_types"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(String(200), unique=True)
    name: Mapped[str] = mapped_column(Text)
    exclusive_group: Mapped[str | None] = mapped_column(String(200))


class StaffAssignment(Base):
    """A member of staff takes events of a type. ``exclusive_group`` is the event type's when it was assigned."""

    __tablename__ = "staff_assignments"
    __table_args__ = (
        # The database enforces the rule. For it, all NULLs are different.
        UniqueConstraint("staff_id", "exclusive_group"),
    )

    staff_id: Mapped[int] = mapped_column(ForeignKey("staff.id", ondelete="CASCADE"), primary_key=True)
    event_type_id: Mapped[int] = mapped_column(
        ForeignKey("event_types.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    exclusive_group: Mapped[str | None] = mapped_column(String(200))
    role: Mapped[AssignmentRole] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)


class AssignmentRequest(Base):
    """A line of a batch of assignments that was entered and not uploaded, as it was entered."""

    __tablename__ = "assignment_requests"
    __table_args__ = (Index("ix_assignment_requests_batch", "batch", "id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    batch: Mapped[str] = mapped_column(String(200))
    staff: Mapped[str] = mapped_column(Text)
    event_type: Mapped[str] = mapped_column(Text)
    role: Mapped[str | None] = mapped_column(Text)


class AssignmentRun(Base):
    """One operation on many assignments, and what it has done so far.

    ``run``: of the job with the id ``job``, which may have several: one that repeats, or is enqueued under the same id
    each night. ``split``: whether child jobs stage it; the first execution decides that for all.
    """

    __tablename__ = "assignment_runs"

    run: Mapped[str] = mapped_column(Text, primary_key=True)
    job: Mapped[str] = mapped_column(Text, index=True, default="")
    source: Mapped[str] = mapped_column(Text)
    split: Mapped[bool | None]
    created: Mapped[int] = mapped_column(default=0)
    updated: Mapped[int] = mapped_column(default=0)
    unchanged: Mapped[int] = mapped_column(default=0)
    started_at: Mapped[datetime] = mapped_column(default=utc_now)
    completed_at: Mapped[datetime | None]


class StagedAssignment(Base):
    """A valid line of a run that is not completed; ``position`` orders the lines of its input.

    No foreign keys: if somebody is deleted in the meantime, that is noticed when the line is applied.
    """

    __tablename__ = "staged_assignments"
    __table_args__ = (
        # In the order in which they are applied; also finds an earlier line of the input for the same two.
        Index("ix_staged_assignments_staff", "run", "staff_id", "position"),
        Index("ix_staged_assignments_pair", "run", "staff_id", "event_type_id", "position"),
    )

    run: Mapped[str] = mapped_column(Text, primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    staff_id: Mapped[int]
    event_type_id: Mapped[int]
    role: Mapped[AssignmentRole] = mapped_column(String(16))
    applied: Mapped[bool] = mapped_column(default=False)


class AssignmentSkip(Base):
    """A line of a run that was not applied, as it was written, and why.

    ``position``: the byte at which the line ends in a file, or the id of an `AssignmentRequest`.
    """

    __tablename__ = "assignment_skips"

    run: Mapped[str] = mapped_column(Text, primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    staff: Mapped[str] = mapped_column(Text)
    event_type: Mapped[str] = mapped_column(Text)
    reason: Mapped[SkipReason] = mapped_column(String(32))
    detail: Mapped[str] = mapped_column(Text)
