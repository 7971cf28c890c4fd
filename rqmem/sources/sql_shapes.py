"""What a selectable of SQLAlchemy is made of: rows that conditions can be added to, their order, and a window on them.

A *window* is a LIMIT, OFFSET or FETCH of the outermost select: it is taken off here, and fixed once by `SqlRows`. What
else makes a row's presence depend on other rows (a LIMIT in a subquery, DISTINCT ON, a window function, a random
function) is only named: run again, such a select is another set, and nobody can say which row would be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy import Column, Label, Select, inspect, select
from sqlalchemy.sql import ColumnElement, functions, operators, visitors
from sqlalchemy.sql.elements import Over, TextClause, UnaryExpression
from sqlalchemy.sql.selectable import (
    AliasedReturnsRows,
    CompoundSelect,
    Exists,
    FromClause,
    GenerativeSelect,
    Join,
    ScalarSelect,
    SelectBase,
    TableSample,
    TextualSelect,
)

from rqmem.errors import SourceError
from rqmem.sources import sql_words
from rqmem.values import dataclass

_HIDDEN = "rqmem_order_"
_LIMITS = ("_limit_clause", "_offset_clause", "_fetch_clause")


@dataclass(frozen=True)
class Ordered:
    """A column that rows are ordered by."""

    column: Any
    descending: bool


@dataclass(frozen=True)
class Shape:
    """Of a selectable.

    Attributes:
        rows: a select to which conditions on what it selects can be added.
        order: the order that was asked for, as columns of ``rows``; None: one that is no order by columns.
        clauses: the same for the database.
        limits: of the window, by attribute of the select; empty: there is none.
        depends: what in it makes a row's presence depend on other rows, in words; None: nothing does.
        computed: columns whose value does, by name.
    """

    rows: Select[Any]
    order: tuple[Ordered, ...] | None = ()
    clauses: tuple[Any, ...] = ()
    limits: tuple[tuple[str, Any], ...] = ()
    depends: str | None = None
    computed: frozenset[str] = frozenset()

    @property
    def ordered_by_text(self) -> bool:
        """Whether the order is written as text, which may name what is selected, or count it."""
        return any(
            isinstance(part, TextClause) or getattr(part, "is_literal", False)
            for clause in self.clauses
            for part in visitors.iterate(clause)
        )

    def windowed(self, query: Select[Any]) -> Select[Any]:
        """``query``, made of ``rows``, in the order and the window that were asked for."""
        query = query.order_by(*self.clauses)
        for name, value in self.limits:
            setattr(query, name, value)  # a copy of our own, made by order_by
        return query


def shape_of(selectable: Any) -> Shape:
    """Raises `SourceError` for what is nothing to select from."""
    if isinstance(selectable, Select):
        return _of_select(selectable)
    if isinstance(selectable, CompoundSelect):
        bare, limits = _bare(selectable)
        shape = Shape(select(bare.subquery()), limits=limits, depends=_depends([bare]))
        return _with_order(shape, selectable._order_by_clauses, bare)
    if isinstance(selectable, TextualSelect):
        return _of_text(selectable)
    if isinstance(selectable, SelectBase):
        return Shape(select(selectable.subquery()), depends=_depends([selectable]))
    mapped = inspect(selectable, raiseerr=False) if not isinstance(selectable, str) else None
    if isinstance(selectable, FromClause) or getattr(mapped, "mapper", None) is not None:
        rows = select(selectable)
        return Shape(rows, depends=_depends(rows.get_final_froms()))
    raise SourceError(
        f"SqlRows: a {type(selectable).__name__} is nothing to select from: give a mapped class, a table or a select; "
        "of text, text(...).columns(...), or SqlRows.dbapi"
    )


def _of_select(query: Select[Any]) -> Shape:
    bare, limits = _bare(query)
    per_row = tuple(query._distinct_on) or _distinct_on_extension(query)
    conditions = [query._where_criteria, query._having_criteria, query._prefixes, query._suffixes]
    depends = _depends([*query.get_final_froms(), *_clauses(conditions)]) or _depends_on_itself(query)
    things = {thing["name"]: thing["expr"] for thing in query.column_descriptions}
    computed = frozenset(name for name, column in things.items() if _has(column, _is_computed))
    if query._group_by_clauses:
        is_aggregate = partial(_is_function, names=sql_words.AGGREGATES)
        computed |= {name for name, column in things.items() if _has(column, is_aggregate)}
    if per_row:  # one row for each of these: which one is another question
        bare = bare.order_by(*query._order_by_clauses)
        computed |= {name for name, column in things.items() if not any(same_column(column, each) for each in per_row)}
        return Shape(select(bare.subquery()), limits=limits, depends=depends, computed=computed)
    shape = Shape(bare, limits=limits, depends=depends, computed=computed)
    over = any(_has(each, _is_over) for each in things.values())
    if not (query._group_by_clauses or query._having_criteria or query._distinct or over):
        return _with_order(shape, query._order_by_clauses, None)
    # Conditions on a select that is grouped would come before that; around it they come after.
    if not query._distinct:
        bare = _with_hidden(bare, query._order_by_clauses)
    around = bare.subquery()
    rows = select(*(column for column in around.c if not str(column.key).startswith(_HIDDEN)))
    return _with_order(replace(shape, rows=rows), query._order_by_clauses, around)


def _of_text(query: TextualSelect) -> Shape:
    text = str(getattr(query.element, "text", query.element))
    found = list(sql_words.changing(text))
    return Shape(
        select(query.subquery()),
        order=None if sql_words.ordered(text) else (),
        depends=next((each.word for each in found if not each.selected), None),
        computed=frozenset(each.alias for each in found if each.selected),
    )


def _bare(query: Any) -> tuple[Any, tuple[tuple[str, Any], ...]]:
    """The select without order and window, and the clauses of the window."""
    names = (*_LIMITS, "_fetch_clause_options")
    limits = tuple((name, value) for name in names if (value := getattr(query, name, None)) is not None)
    if not any(name in _LIMITS for name, _ in limits):
        limits = ()
    return query.order_by(None).limit(None).offset(None).fetch(None), limits


def _with_order(shape: Shape, clauses: Iterable[Any], around: Any) -> Shape:
    """``around``: the subquery in whose columns the order must be written; None: it may stay as it is."""
    order: list[Ordered] | None = []
    written = []
    for number, clause in enumerate(clauses):
        column, descending, name = _unwrapped(clause)
        if around is not None:
            column = _found_in(shape.rows, around, column, name, number)
            if column is None:
                raise SourceError(
                    f"SqlRows: what is selected has no column for ORDER BY {clause!s:.80}: select it, with a label"
                )
            clause = _in_the_same_way(clause, column)
        elif name is not None:
            column = next((thing["expr"] for thing in shape.rows.column_descriptions if thing["name"] == name), None)
            if column is not None:  # else it is no column that is selected, but one that could be
                clause = _in_the_same_way(clause, _plain(column))
        written.append(clause)
        if order is not None and isinstance(column, ColumnElement) and not isinstance(column, TextClause):
            order.append(Ordered(column, descending))
        else:
            order = None
    return replace(shape, order=None if order is None else tuple(order), clauses=tuple(written))


def _with_hidden(query: Select[Any], clauses: Iterable[Any]) -> Select[Any]:
    """What it is ordered by as columns, so that it can be ordered from outside. Columns that it has already stay."""
    columns = [(number, *_unwrapped(clause)) for number, clause in enumerate(clauses)]
    there = [thing["expr"] for thing in query.column_descriptions if isinstance(_plain(thing["expr"]), Column)]
    return query.add_columns(
        *(
            column.label(f"{_HIDDEN}{number}")
            for number, column, _, name in columns
            if name is None and isinstance(column, ColumnElement)
            if not any(same_column(column, each) for each in there)
        )
    )


def _found_in(rows: Select[Any], around: Any, column: Any, name: str | None, number: int) -> Any:
    columns = getattr(around, "c", None)
    if columns is None or isinstance(around, CompoundSelect):
        columns = rows.get_final_froms()[0].c
    if name is not None:
        return columns.get(name)
    hidden = columns.get(f"{_HIDDEN}{number}")
    if hidden is not None:
        return hidden
    found = next((each for each in columns if any(same_column(base, column) for base in _bases(each))), None)
    return found if found is not None else columns.get(getattr(column, "key", None) or "")


def _bases(column: Any) -> Iterator[Any]:
    yield column
    yield from column.base_columns
    yield from getattr(column, "_proxies", ())


def _in_the_same_way(clause: Any, column: Any) -> Any:
    """``column`` with the DESC and NULLS LAST of ``clause``."""
    modifiers = []
    while not isinstance(clause, str) and (element := getattr(clause, "element", None)) is not None:
        if isinstance(clause, UnaryExpression) and clause.modifier is not None:
            modifiers.append(clause.modifier)
        clause = element
    for modifier in reversed(modifiers):
        column = modifier(column)
    return column


def _unwrapped(clause: Any) -> tuple[Any, bool, str | None]:
    """What a clause of ORDER BY orders by, whether descending; where it is named only: the name."""
    descending = False
    while True:
        if isinstance(clause, str):
            return None, descending, clause
        if isinstance(clause, UnaryExpression) and clause.modifier is not None:
            descending |= clause.modifier is operators.desc_op
        elif not isinstance(clause, Label) and not type(clause).__name__.endswith("_label_reference"):
            return clause, descending, None
        clause = clause.element


def same_column(one: Any, other: Any) -> bool:
    """Whether both are the same column: an attribute of a mapped class and its column are."""
    one, other = _plain(one), _plain(other)
    return one is other or bool(
        isinstance(one, ColumnElement) and isinstance(other, ColumnElement) and one.compare(other)
    )


def _plain(column: Any) -> Any:
    column = column.__clause_element__() if hasattr(column, "__clause_element__") else column
    while isinstance(column, Label):
        column = column.element
    return column._deannotate() if hasattr(column, "_deannotate") else column


def _clauses(groups: Iterable[Any]) -> Iterator[Any]:
    for group in groups:
        for each in group:
            yield each[0] if isinstance(each, tuple) else each


def _depends(parts: Iterable[Any]) -> str | None:
    return next((word for part in parts for word in _words_of(part)), None)


def _words_of(part: Any) -> Iterator[str]:
    """What in it makes rows depend on others. EXISTS is passed over: how many there are is nothing to it."""
    if isinstance(part, Exists):
        return
    if isinstance(part, GenerativeSelect) and any(getattr(part, name) is not None for name in _LIMITS):
        yield "a LIMIT in a subquery"
    if isinstance(part, Select) and (part._distinct_on or _distinct_on_extension(part)):
        yield "a DISTINCT ON in a subquery"
    if _is_over(part):
        yield "a window function"
    if isinstance(part, TableSample):
        yield "TABLESAMPLE"
    if _is_function(part, sql_words.RANDOM):
        yield f"{_name_of(part)}()"
    if isinstance(part, TextClause):
        yield from (found.word for found in sql_words.changing(part.text) if not found.selected)
    if not isinstance(part, Column):
        for child in part.get_children():
            yield from _words_of(child)


def _depends_on_itself(query: Select[Any]) -> str | None:
    """A condition with an aggregate of the very table, as ``id > (SELECT max(id) - 50 ...)``: each new row moves it.

    One that is correlated is about rows that belong to this one, and another table's is as good as a value.
    """
    outer = set(_tables(query.get_final_froms()))
    for clause in _clauses([query._where_criteria, query._having_criteria]):
        for part in visitors.iterate(clause):
            inner = part.element if isinstance(part, ScalarSelect) else None
            if not isinstance(inner, Select) or inner._group_by_clauses:
                continue
            tables = set(_tables(inner.get_final_froms()))
            correlated = inner._correlate or (tables & outer and tables - outer)
            aggregates = any(
                _has(each, partial(_is_function, names=sql_words.AGGREGATES)) for each in inner.selected_columns
            )
            if aggregates and not correlated and {*map(_base, tables)} & {*map(_base, outer)}:
                return "an aggregate of what it selects from"
    return None


def _tables(froms: Iterable[Any]) -> Iterator[Any]:
    for each in froms:
        if isinstance(each, Join):
            yield from _tables((each.left, each.right))
        else:
            yield each._deannotate()


def _base(table: Any) -> Any:
    while isinstance(table, AliasedReturnsRows):
        table = table.element
    return table


def _distinct_on_extension(query: Any) -> tuple[Any, ...]:
    """The columns of SQLAlchemy 2.1's ``postgresql.distinct_on``."""
    found = (each for each in query.get_children() if type(each).__name__ == "DistinctOnClause")
    return tuple(each for clause in found for each in clause._distinct_on)


def _name_of(function: Any) -> str:
    return str(getattr(function, "name", "")).casefold()


def _has(column: Any, wanted: Callable[[Any], bool]) -> bool:
    return isinstance(column, ColumnElement) and any(map(wanted, visitors.iterate(column)))


def _is_over(part: Any) -> bool:
    return isinstance(part, Over)


def _is_computed(part: Any) -> bool:
    return _is_over(part) or _is_function(part, sql_words.RANDOM)


def _is_function(part: Any, names: Collection[str]) -> bool:
    return isinstance(part, functions.FunctionElement) and _name_of(part) in names
