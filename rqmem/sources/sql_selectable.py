"""The queries of `SqlRows` on SQLAlchemy 2: any selectable, any of its databases."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Literal

from sqlalchemy import Engine, Select, Table, and_, false, func, inspect, or_, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.sql import ClauseElement, ColumnElement, Executable
from sqlalchemy.sql.selectable import FromClause, SelectBase

from rqmem.errors import ConfigError, SourceError
from rqmem.sources.contract import Count
from rqmem.sources.sql_queries import Key, KeyRange


class SelectableQueries:
    """See `rqmem.sources.sql_queries.Queries`."""

    def __init__(self, database: Engine | sessionmaker[Session], selectable: Any, key: tuple[str, ...] | None) -> None:
        if isinstance(database, Engine):
            self._sessions = sessionmaker(database, expire_on_commit=False)
        elif isinstance(database, sessionmaker):
            self._sessions = database
        else:
            raise ConfigError(f"SqlRows: {type(database).__name__} is no database: give an engine or a sessionmaker")
        self._rows = _as_select(selectable).order_by(None)
        things = self._rows.column_descriptions
        self._single = len(things) == 1
        self.key = _primary_key(self._rows) if key is None else key
        found = [_find(things, name) for name in self.key]
        self._columns = [column for column, _ in found]
        self._readers = [reader for _, reader in found]

    def page(self, keys: KeyRange, limit: int) -> list[tuple[Any, Key]]:
        query = self._within(self._rows, keys).order_by(*self._columns).limit(limit)
        with self._sessions() as session:
            rows = session.execute(query).all()
        return [(row[0] if self._single else row, tuple(reader(row) for reader in self._readers)) for row in rows]

    def count(self, keys: KeyRange, how: Literal["exact", "estimate"]) -> Count:
        wanted = self._within(self._keys_only(), keys)
        with self._sessions() as session:
            if how == "estimate" and session.get_bind().dialect.name == "postgresql":
                [plan] = session.execute(_Explain(wanted)).scalars()
                parsed = json.loads(plan) if isinstance(plan, str) else plan
                return Count.estimated(int(parsed[0]["Plan"]["Plan Rows"]))
            return Count.exact(session.scalar(select(func.count()).select_from(wanted.subquery())) or 0)

    def nth_key(self, keys: KeyRange, number: int) -> Key | None:
        first = self._within(self._keys_only(), keys).order_by(*self._columns).limit(number).subquery()
        return self._one(select(first).order_by(*(column.desc() for column in first.c)).limit(1))

    def last_key(self, keys: KeyRange) -> Key | None:
        backwards = [column.desc() for column in self._columns]
        return self._one(self._within(self._keys_only(), keys).order_by(*backwards).limit(1))

    def null_in_key(self) -> str | None:
        nullable = [column for column in self._columns if getattr(column, "nullable", True)]
        if not nullable:
            return None
        key = self._one(self._keys_only().where(or_(false(), *(column.is_(None) for column in nullable))).limit(1))
        return None if key is None else self.key[key.index(None)]

    def _one(self, query: Select[Any]) -> Key | None:
        with self._sessions() as session:
            row = session.execute(query).first()
        return None if row is None else tuple(row)

    def _keys_only(self) -> Select[Any]:
        labelled = (column.label(f"rqmem_key_{number}") for number, column in enumerate(self._columns))
        return self._rows.with_only_columns(*labelled, maintain_column_froms=True)

    def _within(self, query: Select[Any], keys: KeyRange) -> Select[Any]:
        if keys.after is not None:
            query = query.where(_beyond(self._columns, keys.after, below=False))
        if keys.upto is not None:
            query = query.where(_beyond(self._columns, keys.upto, below=True))
        return query


def _beyond(columns: Sequence[Any], key: Key, *, below: bool) -> ColumnElement[bool]:
    """``columns > key``, or ``columns <= key``, written out: not all databases compare rows, or use an index for it.

    Of two columns: ``a >= x AND (a > x OR (a = x AND b > y))``; the first half is what the index is searched by.
    """
    column, value = columns[0], key[0]
    if len(columns) == 1:
        last: ColumnElement[bool] = column <= value if below else column > value
        return last
    strictly, loosely = (column < value, column <= value) if below else (column > value, column >= value)
    return and_(loosely, or_(strictly, and_(column == value, _beyond(columns[1:], key[1:], below=below))))


def _as_select(selectable: Any) -> Select[Any]:
    if isinstance(selectable, Select):
        # Conditions on a select that is limited or grouped would come before that; around it they come after.
        return select(selectable.subquery()) if _is_closed(selectable) else selectable
    if isinstance(selectable, SelectBase):
        return select(selectable.subquery())
    mapped = inspect(selectable, raiseerr=False) if not isinstance(selectable, str) else None
    if isinstance(selectable, FromClause) or getattr(mapped, "mapper", None) is not None:
        return select(selectable)
    raise SourceError(
        f"SqlRows: a {type(selectable).__name__} is nothing to select from: give a mapped class, a table or a select; "
        "of text, text(...).columns(...), or SqlRows.dbapi"
    )


def _is_closed(query: Select[Any]) -> bool:
    limits = (query._limit_clause, query._offset_clause, query._fetch_clause)
    grouped = query._group_by_clauses or query._having_criteria or query._distinct
    return any(each is not None for each in limits) or bool(grouped)


def _primary_key(query: Select[Any]) -> tuple[str, ...]:
    """The names of the primary key, where the select is of one mapped class or one table."""
    things = query.column_descriptions
    if len(things) == 1 and (mapper := _mapper(things[0])) is not None:
        return tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)
    froms = query.get_final_froms()
    if len(froms) == 1 and isinstance(froms[0], Table) and froms[0].primary_key.columns:
        return tuple(column.key for column in froms[0].primary_key.columns)
    where = ", ".join(str(getattr(each, "name", "a select")) for each in froms)
    raise SourceError(f"SqlRows: {where} has no primary key: name columns that are unique and never NULL, key=(...)")


def _find(things: Sequence[Any], name: str) -> tuple[Any, Callable[[Any], Any]]:
    """The key's column of that name, and what reads it from a row."""
    known: list[str] = []
    for number, thing in enumerate(things):
        mapper = _mapper(thing)
        if mapper is None:
            known.append(thing["name"])
            if thing["name"] == name:
                return thing["expr"], itemgetter(number)
        else:
            known.extend(mapper.column_attrs.keys())
            if name in mapper.column_attrs:
                return getattr(thing["entity"], name), partial(_attribute, number, name)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
    raise SourceError(f"SqlRows: what is selected has no {name!r}, so it cannot be its key: select it; {hint}")


def _attribute(number: int, name: str, row: Any) -> Any:
    return getattr(row[number], name)


def _mapper(thing: Any) -> Any:
    """Of a mapped class or an alias of one among what is selected; None for a column."""
    entity = thing.get("entity")
    return inspect(entity).mapper if entity is not None and thing["expr"] is entity else None


class _Explain(Executable, ClauseElement):
    """EXPLAIN of a select, as PostgreSQL has it."""

    inherit_cache = False

    def __init__(self, query: Select[Any]) -> None:
        self.query = query


@compiles(_Explain, "postgresql")
def _explain(element: _Explain, compiler: Any, **options: Any) -> str:
    text: str = "EXPLAIN (FORMAT JSON) " + compiler.process(element.query, **options)
    return text
