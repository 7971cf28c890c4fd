"""The six jobs as one would first write them: all records in a list, one after the other, one commit at the end.

Plain functions for a stock ``rq worker``, with the same libraries, tables and outcomes as the jobs in `jobs`, on a good
day: nobody is killed, no answer is lost, nobody runs them twice. They are what memory is compared with, and nothing
else: each of them makes calls or sends messages a second time when it is run again after a crash.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from jobs.aggregates import Moments, all_merged
from jobs.database import open_sessions
from jobs.phone_numbers import E164
from jobs.reminder_types import EMAIL, zone_called
from jobs.tables import (
    AgentSentiment,
    Appointment,
    Call,
    CallSentiment,
    Campaign,
    Customer,
    EventType,
    Reminder,
    Staff,
    StaffAssignment,
    utc_now,
)

_BATCH = 100
_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")


def campaign(campaign_id: int) -> int:
    from retell import BadRequestError, Retell

    client = Retell()
    with open_sessions().begin() as session:
        its = session.get_one(Campaign, campaign_id)
        customers = session.scalars(select(Customer).where(Customer.campaign_id == campaign_id)).all()
        for customer in customers:
            try:
                made = client.call.create_phone_call(
                    from_number=its.from_number, to_number=customer.phone, metadata=_metadata(customer)
                )
                customer.status, customer.call_id = "called", made.call_id
            except BadRequestError as error:
                customer.status, customer.failure = "failed", str(error)[:200]
            customer.called_at = utc_now()
        its.status, its.completed_at = "completed", utc_now()
    return len(customers)


def batches(campaign_id: int) -> int:
    """The same by the hundred; the outcomes are looked up in the end."""
    from retell import Retell

    client = Retell()
    with open_sessions().begin() as session:
        its = session.get_one(Campaign, campaign_id)
        customers = session.scalars(select(Customer).where(Customer.campaign_id == campaign_id)).all()
        good = [each for each in customers if E164.fullmatch(each.phone)]
        for begin in range(0, len(good), _BATCH):
            tasks: Any = [
                {"to_number": each.phone, "metadata": _metadata(each)} for each in good[begin : begin + _BATCH]
            ]
            client.batch_call.create_batch_call(from_number=its.from_number, tasks=tasks)
        calls = _all_calls(client)
        call_ids = {call.metadata["customer_id"]: call.call_id for call in calls}
        for customer in customers:
            customer.call_id = call_ids.get(customer.id)
            customer.status = "called" if customer.call_id else "failed"
            customer.failure = None if customer.call_id else "to_number must be in E.164 format"
        its.status, its.completed_at = "completed", utc_now()
    return len(customers)


def training(rows: str, model: str) -> float:
    """All rows and their features in memory; the balanced F1."""
    from jobs.training_order import Order
    from scripts.load.in_memory import trained_in_memory

    balanced_f1 = trained_in_memory(Order.of(rows, model))
    Path(model).write_text(str(balanced_f1))
    return balanced_f1


def reminders(types: list[str]) -> int:
    """E-mail, the only one of the ``types``, to all whose appointment is within a day."""
    import apprise

    url = os.environ["REMINDER_EMAIL_URL"]
    with open_sessions().begin() as session:
        appointments = session.scalars(
            select(Appointment).where(Appointment.status == "booked", Appointment.email != "")
        ).all()
        found = []
        for each in appointments:
            reminder = Reminder(
                appointment_id=each.id, type="email", starts_at=each.starts_at, run="naive", claimed_at=utc_now()
            )
            zone = zone_called(each.time_zone)
            if zone is None or "@" not in each.email:
                reminder.status, reminder.reason = "skipped", "its time zone or its address cannot be used"
            else:
                title, body = EMAIL.message(each.name, each.title, each.starts_at, zone)
                service = apprise.Apprise()
                service.add(url.format(to=each.email))
                reminder.status = "sent" if service.notify(body=body, title=title) else "refused"
            found.append(reminder)
        session.add_all(found)
    return len(found)


def sentiment() -> int:
    """Score all transcripts, then write scores and the agents' figures."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer  # type: ignore[import-untyped]

    analyzer = SentimentIntensityAnalyzer()
    moments: dict[int, list[Moments]] = defaultdict(list)
    with open_sessions().begin() as session:
        calls = session.scalars(select(Call).where(Call.transcript.is_not(None))).all()
        found = []
        for call in calls:
            text = call.transcript or ""
            if call.transcript_format == "json":
                text = "\n".join(turn["content"] for turn in json.loads(text)) if text.strip() else ""
            scores = [analyzer.polarity_scores(each)["compound"] for each in _SENTENCES.split(text) if each.strip()]
            mean = sum(scores) / len(scores) if scores else None
            outcome: Any = "scored" if scores else "empty"
            found.append(CallSentiment(call_id=call.id, outcome=outcome, score=mean, sentences=len(scores)))
            if mean is not None:
                moments[call.agent_id].append(Moments.of(mean, call.started_at.timestamp() / 86400))
        session.add_all(found)
        for agent_id, theirs in moments.items():
            total = all_merged(theirs)
            assert total is not None
            session.add(AgentSentiment(agent_id=agent_id, voice="all", **vars(total)))
    return len(found)


def assignments(path: str) -> dict[str, int]:
    """Read the file, look everybody up, write what is valid."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    figures = {"created": 0, "skipped": 0}
    taken: set[tuple[int, int]] = set()
    groups: set[tuple[int, str]] = set()
    with open_sessions().begin() as session:
        staff = {each.email: each for each in session.scalars(select(Staff))}
        event_types = {each.slug: each for each in session.scalars(select(EventType))}
        found = []
        for line in lines:
            who, what = staff.get(line["staff"].strip().lower()), event_types.get(line["event_type"].strip())
            role: Any = line["role"] or "host"
            group = what.exclusive_group if what else None
            if (
                who is None or what is None or not who.active or role not in ("host", "assistant", "backup")
                or (who.id, what.id) in taken or (group is not None and (who.id, group) in groups)
            ):  # fmt: skip
                figures["skipped"] += 1
                continue
            taken.add((who.id, what.id))
            if group is not None:
                groups.add((who.id, group))
            found.append(StaffAssignment(staff_id=who.id, event_type_id=what.id, exclusive_group=group, role=role))
        session.add_all(found)
        figures["created"] = len(found)
        session.flush()
        assert session.scalar(select(func.count()).select_from(StaffAssignment)) == len(found)
    return figures


def _metadata(customer: Customer) -> dict[str, Any]:
    return {"campaign_id": customer.campaign_id, "customer_id": customer.id}


def _all_calls(client: Any) -> list[Any]:
    found: list[Any] = []
    more: dict[str, Any] = {}
    while True:
        page = client.call.list(limit=1000, sort_order="ascending", **more)
        found += page.items
        if not page.has_more:
            return found
        more = {"pagination_key": page.pagination_key}
