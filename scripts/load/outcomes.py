"""Checks what became of each record, by the database, the calls that were made and the messages that were sent.

Each check says whether every record has its outcome exactly once, with the figures in a few words.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from jobs.models import load_model
from jobs.tables import (
    AgentSentiment,
    Appointment,
    AssignmentRun,
    AssignmentSkip,
    Call,
    CallSentiment,
    Campaign,
    Reminder,
    StaffAssignment,
    StagedAssignment,
    utc_now,
)
from scripts import campaign_run

_SPREAD = 32  # moments at which appointments begin, within the time for e-mail


@dataclass(frozen=True)
class Checked:
    """``right``: every record once. ``balanced_f1``: of a model."""

    right: bool
    words: str
    balanced_f1: float | None = None


@dataclass(frozen=True)
class Place:
    """Where a run finds its data and leaves its outcome.

    Attributes:
        data: the dataset's folder, which no run changes.
        engine: on the run's own copy of the database.
        model: the file of the model that is trained.
        received: messages by address.
        calls_url: of the stand-in for Retell; empty: there is none.
    """

    data: Path
    engine: Engine
    model: Path
    received: Counter[str] = field(default_factory=Counter)
    calls_url: str = ""

    def count(self, *criteria: Any, of: Any) -> int:
        with Session(self.engine) as session:
            return session.scalar(select(func.count()).select_from(of).where(*criteria)) or 0


def campaign_id(place: Place) -> int:
    with Session(place.engine) as session:
        return session.scalars(select(Campaign.id)).one()


def make_due(place: Place) -> None:
    """Move all appointments to times for which e-mail is due now: the dataset's are within two weeks."""
    with Session(place.engine) as session, session.begin():
        for part in range(_SPREAD):
            begins = utc_now() + timedelta(hours=5) + part * timedelta(hours=15) / _SPREAD
            these = update(Appointment).where(Appointment.id % _SPREAD == part)
            session.execute(these.values(starts_at=begins), execution_options={"synchronize_session": False})


def of_campaign(place: Place, records: int) -> Checked:
    calls = campaign_run.calls_received(place.calls_url)
    outcome = campaign_run.look(campaign_id(place), calls)
    words = (
        f"{outcome.called:,} called, {sum(outcome.failures.values()):,} refused, {outcome.pending:,} pending, "
        f"{outcome.called_twice:,} called twice"
    )
    if outcome.campaign != "completed":
        words += f", campaign {outcome.campaign}"
    return Checked(outcome.complete and outcome.customers == records, words)


def of_training(place: Place, records: int) -> Checked:
    if not place.model.exists():
        return Checked(False, "no model")
    about = load_model(place.model).metadata
    rows = sum(sum(about["rows"][part].values()) for part in ("training", "held_out"))
    found = float(about["figures"]["balanced_f1"])
    return Checked(rows == records, f"{rows:,} rows in the model, balanced F1 {found:.4f}", found)


def of_naive_training(place: Place, records: int) -> Checked:
    if not place.model.exists():
        return Checked(False, "no model")
    found = float(place.model.read_text())
    return Checked(True, f"balanced F1 {found:.4f}", found)


def of_reminders(place: Place, records: int) -> Checked:
    wanted = place.count(Appointment.status == "booked", Appointment.email != "", of=Appointment)
    sent = place.count(Reminder.status == "sent", of=Reminder)
    skipped = place.count(Reminder.status == "skipped", of=Reminder)
    twice = sum(count > 1 for count in place.received.values())
    right = sent + skipped == wanted and sent == len(place.received) and twice == 0
    return Checked(right, f"{sent:,} sent, {skipped:,} skipped, of {wanted:,} due; {twice:,} sent twice")


def of_sentiment(place: Place, records: int) -> Checked:
    wanted = place.count(Call.transcript.is_not(None), of=Call)
    looked_at = place.count(of=CallSentiment)
    scored = place.count(CallSentiment.outcome == "scored", of=CallSentiment)
    with Session(place.engine) as session:
        counted = session.scalar(select(func.sum(AgentSentiment.count)).where(AgentSentiment.voice == "all")) or 0
    words = f"{looked_at:,} of {wanted:,} looked at, {scored:,} scored, {counted:,} in the agents' figures"
    return Checked(looked_at == wanted == records and scored == counted, words)


def of_assignments(place: Place, records: int) -> Checked:
    with Session(place.engine) as session:
        run = session.scalars(select(AssignmentRun)).one_or_none()
    if run is None:
        return Checked(False, "nothing was begun")
    skipped = place.count(of=AssignmentSkip)
    written = place.count(of=StaffAssignment)
    settled = run.created + run.updated + run.unchanged + skipped
    left = place.count(of=StagedAssignment)
    right = run.completed_at is not None and settled == records and written == run.created and left == 0
    return Checked(right, f"{run.created:,} assigned, {skipped:,} skipped, of {records:,} lines")


def of_naive_assignments(place: Place, records: int) -> Checked:
    written = place.count(of=StaffAssignment)
    return Checked(written > 0, f"{written:,} assigned")
