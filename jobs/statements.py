"""Statements that SQLAlchemy has no word for: ``INSERT ... ON CONFLICT`` for any database, counts by value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

from sqlalchemy import ColumnElement, Table, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session

from jobs.tables import Base
from rqmem.errors import ConfigError

V = TypeVar("V")


def insert_into(session: Session, model: type[Base]) -> sqlite.Insert | postgresql.Insert:
    """An INSERT into the model's table that has ``on_conflict_do_update`` and ``on_conflict_do_nothing``.

    Into the table and not the model: of many rows, SQLAlchemy's mapper would make a statement for each run of rows with
    the same columns set.

    Raises:
        ConfigError: the database is neither SQLite nor PostgreSQL.
    """
    table, name = cast(Table, model.__table__), session.get_bind().dialect.name
    if name == "sqlite":
        return sqlite.insert(table)
    if name == "postgresql":
        return postgresql.insert(table)
    raise ConfigError(f"DATABASE_URL names a {name} database: this job needs SQLite or PostgreSQL")


def counts(
    session: Session, column: InstrumentedAttribute[V], values: Sequence[V], *where: ColumnElement[bool]
) -> dict[V, int]:
    """How many rows have each of the values, 0 too. In one pass: to group, SQLite sorts, in 2.5 MB for a million."""
    columns: list[Any] = [func.count().filter(column == value) for value in values]
    return dict(zip(values, session.execute(select(*columns).where(*where)).one(), strict=True))
