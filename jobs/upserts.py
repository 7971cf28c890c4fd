"""``INSERT ... ON CONFLICT``: the same in SQLite and PostgreSQL, but under two names in SQLAlchemy."""

from __future__ import annotations

from typing import cast

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from jobs.tables import Base
from rqmem.errors import ConfigError


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
