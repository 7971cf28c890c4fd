"""The queries of `SqlRows` on SQLAlchemy 2: any selectable, any of its databases."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Literal

from sqlalchemy import (
    JSON,
    REAL,
    Date,
    DateTime,
    Engine,
    Float,
    Select,
    Table,
    and_,
    cast,
    false,
    func,
    inspect,
    literal,
    literal_column,
    or_,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.sql import ClauseElement, ColumnElement, Executable

from rqmem.errors import ConfigError, SourceError
from rqmem.sources import typed_json
from rqmem.sources.contract import Count
from rqmem.sources.sql_queries import Key, KeyOrder, KeyRange, refused
from rqmem.sources.sql_shapes import Ordered, Shape, same_column, shape_of
from rqmem.text import did_you_mean


class SelectableQueries:
    """See `rqmem.sources.sql_queries.Queries`."""

    def __init__(
        self,
        database: Engine | sessionmaker[Session],
        selectable: Any,
        key: KeyOrder | None,
        at_most: int | None,
        stable: bool,
    ) -> None:
        if isinstance(database, Engine):
            self._sessions = sessionmaker(database, expire_on_commit=False)
        elif isinstance(database, sessionmaker):
            self._sessions = database
        else:
            raise ConfigError(f"SqlRows: {type(database).__name__} is no database: give an engine or a sessionmaker")
        shape = shape_of(selectable)
        self._rows = shape.rows
        things = self._rows.column_descriptions
        self._single = len(things) == 1
        names = _primary_key(self._rows) if key is None else key.names
        found = [_find(things, name) for name in names]
        self._columns = [column for column, _ in found]
        self._readers = [reader for _, reader in found]
        for name, column in zip(names, self._columns, strict=True):
            if isinstance(column.type, JSON):
                raise SourceError(f"SqlRows: {name!r} is JSON, which has no order: name another key")
        if not stable:
            refused(shape.depends, shape.computed, KeyOrder(names, (False,) * len(names)))
        flags = (False,) * len(names) if key is None else key.descending
        self.key, by_key = _directions(shape, KeyOrder(names, flags), self._columns)
        if at_most is not None and shape.limits:
            raise ConfigError("SqlRows: the select has a LIMIT or OFFSET of its own: leave it out, or at_most")
        if not by_key and not shape.limits:
            raise SourceError(
                f"SqlRows: the select has an ORDER BY, but rows come in the order of their key ({self.key}): leave it "
                "out, or name a key that begins with what it orders by, as key=('-created', 'id')"
            )
        if at_most is not None:
            shape = Shape(self._rows, limits=(("_limit_clause", select(literal(1)).limit(at_most)._limit_clause),))
        self._shape, self._by_key = shape, by_key
        self.window = bool(shape.limits)

    def page(self, keys: KeyRange, limit: int) -> list[tuple[Any, Key]]:
        return self._read(self._within(self._rows, keys).order_by(*self._order()).limit(limit))

    def rows_of(self, keys: Sequence[Key]) -> list[tuple[Any, Key]]:
        return self._read(self._rows.where(self._are(keys)))

    def count(self, keys: KeyRange, how: Literal["exact", "estimate"]) -> Count:
        return self._counted(self._within(self._keys_only(), keys), how)

    def nth_key(self, keys: KeyRange, number: int) -> Key | None:
        first = self._within(self._keys_only(), keys).order_by(*self._order()).limit(number).subquery()
        return self._one(select(first).order_by(*self._order(first.c, backwards=True)).limit(1))

    def last_key(self, keys: KeyRange) -> Key | None:
        return self._one(self._within(self._keys_only(), keys).order_by(*self._order(backwards=True)).limit(1))

    def null_in_key(self) -> str | None:
        nullable = [column for column in self._columns if getattr(column, "nullable", True)]
        if not nullable:
            return None
        key = self._one(self._keys_only().where(or_(false(), *(column.is_(None) for column in nullable))).limit(1))
        return None if key is None else self.key.names[key.index(None)]

    def unreadable_key(self) -> str | None:
        moments = [each for each in self._columns if isinstance(each.type, Date | DateTime)]
        with self._sessions() as session:
            if not moments or session.get_bind().dialect.name != "postgresql":
                return None
            ends: list[ColumnElement[Any]] = [literal_column("'infinity'"), literal_column("'-infinity'")]
            found = self._rows.with_only_columns(literal(1), maintain_column_froms=True).where(
                or_(*(column == end for column in moments for end in ends))
            )
            return None if session.execute(found.limit(1)).first() is None else "infinity"

    def key_twice(self, keys: KeyRange) -> Key | None:
        grouped = self._within(self._keys_only(), keys).group_by(*self._columns).having(func.count() > 1)
        return self._one(grouped.limit(1))

    def found(self, keys: Sequence[Key]) -> int:
        return self._counted(self._keys_only().where(self._are(keys)), "exact").items or 0

    def window_keys(self, most: int) -> list[Key]:
        query = self._windowed()
        size = _number(query._limit_clause)
        if query._fetch_clause is None and (query._limit_clause is None or size is not None):
            query = query.limit(most if size is None else min(size, most))
        else:  # of a size that only the database knows
            query = select(query.subquery()).limit(most)
        with self._sessions() as session:
            return [tuple(row)[-len(self._columns) :] for row in session.execute(query)]

    def window_range(self) -> KeyRange | None:
        if not self._by_key:
            return None
        ends = self._windowed().subquery()
        columns = list(ends.c)[-len(self._columns) :]
        first = self._one(select(*columns).order_by(*self._order(columns)).limit(1))
        if self._shape.limits and not any(name in ("_limit_clause", "_fetch_clause") for name, _ in self._shape.limits):
            return KeyRange(first, None, including=True)  # an OFFSET alone has no end
        last = self._one(select(*columns).order_by(*self._order(columns, backwards=True)).limit(1))
        return KeyRange(first, last, including=True)

    def window_count(self) -> Count:
        return self._counted(self._windowed(), "exact")

    def to_json(self, key: Key) -> list[Any]:
        return [
            {"$": "enum", "v": value.name} if isinstance(value, enum.Enum) else typed_json.encode(value)
            for value in key
        ]

    def from_json(self, values: Sequence[Any]) -> Key:
        return tuple(map(self._value, self._columns, values))

    def _value(self, column: Any, value: Any) -> Any:
        if isinstance(value, dict) and value.get("$") == "enum":
            try:
                return column.type.enum_class[value["v"]]
            except (AttributeError, KeyError, TypeError):
                raise SourceError(f"{value!r:.100} is no value of the enum of {column}") from None
        return typed_json.decode(value)

    def _read(self, query: Select[Any]) -> list[tuple[Any, Key]]:
        with self._sessions() as session:
            rows = session.execute(query).all()
        return [(row[0] if self._single else row, tuple(reader(row) for reader in self._readers)) for row in rows]

    def _one(self, query: Select[Any]) -> Key | None:
        with self._sessions() as session:
            row = session.execute(query).first()
        return None if row is None else tuple(row)

    def _counted(self, wanted: Select[Any], how: Literal["exact", "estimate"]) -> Count:
        with self._sessions() as session:
            if how == "estimate" and session.get_bind().dialect.name == "postgresql":
                [plan] = session.execute(_Explain(wanted)).scalars()
                parsed = json.loads(plan) if isinstance(plan, str) else plan
                return Count.estimated(int(parsed[0]["Plan"]["Plan Rows"]))
            return Count.exact(session.scalar(select(func.count()).select_from(wanted.subquery())) or 0)

    def _keys_only(self, *before: Any) -> Select[Any]:
        labelled = (column.label(f"rqmem_key_{number}") for number, column in enumerate(self._columns))
        return self._rows.with_only_columns(*before, *labelled, maintain_column_froms=True)

    def _windowed(self) -> Select[Any]:
        """The keys of the window, in its order: where none was asked for, in that of the key.

        They come last: what is selected stays before them where the order needs it.
        """
        keys = self._keys_only(*(self._rows.selected_columns if self._shape.ordered_by_text else ()))
        return self._shape.windowed(keys if self._shape.clauses else keys.order_by(*self._order()))

    def _order(self, columns: Any = None, *, backwards: bool = False) -> list[Any]:
        return [
            column.desc() if down != backwards else column.asc()
            for column, down in zip(self._columns if columns is None else columns, self.key.descending, strict=True)
        ]

    def _are(self, keys: Sequence[Key]) -> ColumnElement[bool]:
        if len(self._columns) == 1:
            return self._columns[0].in_([_bound(self._columns[0], key[0]) for key in keys])
        pairs = (zip(self._columns, key, strict=True) for key in keys)
        return or_(*(and_(*(column == _bound(column, value) for column, value in each)) for each in pairs))

    def _within(self, query: Select[Any], keys: KeyRange) -> Select[Any]:
        if keys.after is not None:
            query = query.where(self._side(0, keys.after, beyond=True, including=keys.including))
        if keys.upto is not None:
            query = query.where(self._side(0, keys.upto, beyond=False, including=True))
        return query

    def _side(self, first: int, key: Key, *, beyond: bool, including: bool) -> ColumnElement[bool]:
        """``columns > key``, or ``columns <= key`` and so on, written out: not all databases compare rows, or use an
        index for it, and each column has its own direction.

        Of two columns: ``a >= x AND (a > x OR (a = x AND b > y))``; the first half is what the index is searched by.
        """
        column, value = self._columns[first], _bound(self._columns[first], key[first])
        greater = beyond != self.key.descending[first]
        strictly, loosely = (column > value, column >= value) if greater else (column < value, column <= value)
        if first == len(self._columns) - 1:
            last: ColumnElement[bool] = loosely if including else strictly
            return last
        further = self._side(first + 1, key, beyond=beyond, including=including)
        return and_(loosely, or_(strictly, and_(column == value, further)))


def _bound(column: Any, value: Any) -> Any:
    """A value of that column as a parameter of its type: SQLAlchemy takes True, say, for something else.

    One of single precision is rounded as the column is: as a double it would be greater or less than itself.
    """
    kind = column.type
    single = isinstance(kind, REAL) or (isinstance(kind, Float) and kind.precision is not None and kind.precision <= 24)
    return cast(literal(value, kind), kind) if single else literal(value, kind)


def _number(clause: Any) -> int | None:
    value = getattr(clause, "value", None)
    return value if isinstance(value, int) else None


def _directions(shape: Shape, key: KeyOrder, columns: Sequence[Any]) -> tuple[KeyOrder, bool]:
    """The key as the select orders by it, and whether the order that it asks for is the key's."""
    if shape.order is None:
        return key, False
    order: tuple[Ordered, ...] = shape.order[: len(columns)]
    if not all(same_column(each.column, column) for each, column in zip(order, columns, strict=False)):
        return key, False
    asked = tuple(each.descending for each in order)
    if any(key.descending):
        return key, asked == key.descending[: len(asked)]
    return KeyOrder(key.names, asked + asked[-1:] * (len(columns) - len(asked)) or key.descending), True


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
    hint = did_you_mean(name, known, f"it has {', '.join(known)}")
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
