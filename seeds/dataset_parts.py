"""The parts of the large dataset: which rows go where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path
from typing import cast

from sqlalchemy import Table, insert, select, update
from sqlalchemy.engine import Connection

from jobs.tables import Base, Campaign, Customer
from jobs.tables.appointments import Appointment
from jobs.tables.calls import Agent, Call
from jobs.tables.staff import EventType, Staff
from rqmem.errors import RqmemError
from seeds.appointments import FIRST_DAY, appointments, from_day
from seeds.assignments import EVENT_TYPES, STAFF, assignments, event_types, staff
from seeds.customers import customers
from seeds.filling import FilePart, Row, TablePart
from seeds.ledger import Entry
from seeds.phone_numbers import FROM_NUMBER
from seeds.training_rows import COLUMNS, training_rows
from seeds.transcripts import AGENTS, agents, transcripts

ASSIGNMENT_COLUMNS = ("staff", "event_type", "role")


@dataclass(frozen=True)
class CampaignPart(TablePart):
    """Customers, all of one campaign, which is ``seeding`` until all are there."""

    def begin(self, connection: Connection, seed: int, count: int) -> int:
        name = f"Large dataset, seed {seed}"
        campaign = insert(Campaign).values(name=name, from_number=FROM_NUMBER, status="seeding")
        return connection.execute(campaign.returning(Campaign.id)).scalar_one()

    def is_there(self, connection: Connection, entry: Entry) -> bool:
        return _status(connection, entry.owner_id) is not None

    def reopen(self, connection: Connection, owner_id: int) -> None:
        status = _status(connection, owner_id)
        if status not in ("seeding", "pending"):
            raise RqmemError(f"campaign {owner_id} is {status}: it gets no more customers; ask for as many as it has")
        connection.execute(update(Campaign).where(Campaign.id == owner_id).values(status="seeding"))

    def finish(self, connection: Connection, owner_id: int) -> None:
        whole = update(Campaign).where(Campaign.id == owner_id, Campaign.status == "seeding")
        connection.execute(whole.values(status="pending"))

    def values(self, row: Row, owner_id: int) -> Row:
        return {"campaign_id": owner_id, **row}


@dataclass(frozen=True)
class AppointmentsPart(TablePart):
    """Appointments from a day on, which is kept as their owner's id: more of them go to the same weeks."""

    first_day: date = FIRST_DAY

    def begin(self, connection: Connection, seed: int, count: int) -> int:
        return self.first_day.toordinal()

    def values(self, row: Row, owner_id: int) -> Row:
        return from_day(dict(row), date.fromordinal(owner_id) if owner_id else FIRST_DAY)


def _status(connection: Connection, campaign_id: int) -> str | None:
    return connection.execute(select(Campaign.status).where(Campaign.id == campaign_id)).scalar_one_or_none()


def _table(mapped: type[Base]) -> Table:
    return cast("Table", mapped.__table__)


def _agents(seed: int, count: int, start: int) -> Iterator[Row]:
    return islice(agents(), start, start + count)


_CUSTOMERS = CampaignPart("customers", _table(Customer), customers)
_AGENTS = TablePart("agents", _table(Agent), _agents)
_TRANSCRIPTS = TablePart("transcripts", _table(Call), transcripts)
_STAFF = TablePart("staff", _table(Staff), staff)
_EVENT_TYPES = TablePart("event types", _table(EventType), event_types)


@dataclass(frozen=True)
class Wanted:
    """How many rows of what; 0: none. ``appointments_from``: the day of the first ones."""

    customers: int = 0
    transcripts: int = 0
    appointments: int = 0
    appointments_from: date = FIRST_DAY
    assignments: int = 0
    training_rows: int = 0


def parts(wanted: Wanted, folder: Path) -> list[tuple[TablePart | FilePart, int]]:
    """What to write, in this order, and how many rows of each; with what these refer to. Files go to ``folder``."""
    found: list[tuple[TablePart | FilePart, int]] = [(_CUSTOMERS, wanted.customers)]
    if wanted.transcripts:
        found += [(_AGENTS, AGENTS), (_TRANSCRIPTS, wanted.transcripts)]
    found += [
        (
            AppointmentsPart("appointments", _table(Appointment), appointments, wanted.appointments_from),
            wanted.appointments,
        )
    ]
    if wanted.assignments:
        file = FilePart("assignments", folder / "assignments.csv", ASSIGNMENT_COLUMNS, assignments)
        found += [(_STAFF, STAFF), (_EVENT_TYPES, EVENT_TYPES), (file, wanted.assignments)]
    rows = FilePart("training rows", folder / "training-rows.csv", COLUMNS, training_rows)
    found += [(rows, wanted.training_rows)]
    return [(part, count) for part, count in found if count]
