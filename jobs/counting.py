"""Counts rows by the value in one of their columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

V = TypeVar("V")


def counts(
    session: Session, column: InstrumentedAttribute[V], values: Sequence[V], *where: ColumnElement[bool]
) -> dict[V, int]:
    """How many rows have each of the values, 0 too. In one pass: to group, SQLite sorts, in 2.5 MB for a million."""
    columns: list[Any] = [func.count().filter(column == value) for value in values]
    return dict(zip(values, session.execute(select(*columns).where(*where)).one(), strict=True))
