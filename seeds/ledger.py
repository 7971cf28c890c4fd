"""Keeps the progress of each part of a large dataset, in the database that the dataset goes to.

The count is changed in the same transaction as the rows that it counts, and before them. So rows and count agree
however a run ends, and if two runs write the same part, one is refused. A file's count goes with its length in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Column, MetaData, String, Table, delete, insert, select, update
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import IntegrityError

from rqmem.errors import RqmemError

METADATA = MetaData()

_parts = Table(
    "seeded_parts",
    METADATA,
    Column("part", String(400), primary_key=True),
    Column("seed", BigInteger, nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("owner_id", BigInteger, nullable=False),
)


@dataclass(frozen=True)
class Entry:
    """One part.

    Attributes:
        done: rows that are there.
        size_bytes: of its file, where it has one, with those rows.
        owner_id: of the row that its rows belong to; 0: none.
    """

    part: str
    seed: int
    done: int = 0
    size_bytes: int = 0
    owner_id: int = 0


def entries(connection: Connection) -> list[Entry]:
    return [_entry(row) for row in connection.execute(select(_parts).order_by(_parts.c.part))]


def read(connection: Connection, part: str) -> Entry | None:
    """That part; None: it has not been begun."""
    row = connection.execute(select(_parts).where(_parts.c.part == part)).one_or_none()
    return None if row is None else _entry(row)


def begin(connection: Connection, entry: Entry) -> None:
    """Enter a part. Raises `RqmemError` when somebody else has."""
    try:
        connection.execute(insert(_parts).values(vars(entry)))
    except IntegrityError:
        raise taken(entry.part) from None


def advance(connection: Connection, entry: Entry, done: int, size_bytes: int = 0) -> Entry:
    """Move the count of a part on from where ``entry`` has it. Raises `RqmemError` when somebody else has moved it."""
    moved = connection.execute(
        update(_parts)
        .where(_parts.c.part == entry.part, _parts.c.done == entry.done, _parts.c.seed == entry.seed)
        .values(done=done, size_bytes=size_bytes)
    )
    if moved.rowcount != 1:
        raise taken(entry.part)
    return Entry(entry.part, entry.seed, done, size_bytes, entry.owner_id)


def forget(connection: Connection, part: str) -> None:
    """Remove the entry of a part whose rows are gone."""
    connection.execute(delete(_parts).where(_parts.c.part == part))


def _entry(row: Row[Any]) -> Entry:
    return Entry(**row._mapping)


def taken(part: str) -> RqmemError:
    """The error when another run has the part."""
    return RqmemError(f"{part}: another run of the seeder writes them at the same time; let it end, or end it")
