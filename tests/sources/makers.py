"""Sources of the tests, each with the items that it must give, drawn by hypothesis; and what workers would import."""

from __future__ import annotations

import csv
import functools
import io
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from sqlalchemy import DateTime, Engine, ForeignKey, String, Uuid, create_engine, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from sqlalchemy.pool import NullPool

from rqmem.sources import (
    Concat,
    Count,
    CsvFile,
    Cursor,
    Cuttable,
    JsonLines,
    Range,
    Sequence,
    SqlRows,
    even_bounds,
)

Made = tuple[Any, list[Any]]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
kept_values = st.recursive(
    json_values | st.binary() | st.datetimes() | st.dates() | st.times() | st.timedeltas() | st.uuids()
    | st.decimals(allow_nan=False),
    lambda inner: st.tuples(inner, inner) | st.dictionaries(st.sampled_from(["$", "v", "a"]), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def sequence(draw: Callable[..., Any], directory: Path) -> Made:
    items = draw(st.lists(kept_values, max_size=40))
    return Sequence(items), items


def numbers(draw: Callable[..., Any], directory: Path) -> Made:
    start, step = draw(st.integers(-50, 50)), draw(st.integers(-7, 7).filter(bool))
    arguments = start, start + step * draw(st.integers(0, 60)) + draw(st.integers(0, 6)), step
    return Range(*arguments), list(range(*arguments))


fields = st.text(st.sampled_from('a1,"\n\ré漢😀 ;'), max_size=8)


def csv_text(draw: Callable[..., Any], rows: list[list[str]]) -> str:
    """Rows as csv.writer writes them, with empty lines between them, and perhaps no line end at the end."""
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    end = draw(st.sampled_from(["\r\n", "\n", "\r"]))
    text = io.StringIO()
    writer = csv.writer(text, quoting=quoting, lineterminator=end)
    for row in rows:
        writer.writerow(row)
        text.write(end * draw(st.sampled_from([0, 0, 0, 1, 2])))
    whole = text.getvalue()
    return whole.removesuffix(end) if draw(st.booleans()) else whole


def as_csv_reads(path: Path, encoding: str = "utf-8-sig", **options: Any) -> list[list[str]]:
    """What the csv module makes of the whole file."""
    with path.open(newline="", encoding=encoding) as file:
        return [row for row in csv.reader(file, **options) if row]


def csv_lists(draw: Callable[..., Any], directory: Path) -> Made:
    path = directory / "rows.csv"
    width = draw(st.integers(1, 3))
    rows = draw(st.lists(st.lists(fields, min_size=width, max_size=width), max_size=25))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig"]))
    path.write_bytes(csv_text(draw, rows).encode(encoding))
    return CsvFile(path, has_header=False), as_csv_reads(path)


def csv_dicts(draw: Callable[..., Any], directory: Path) -> Made:
    path = directory / "named.csv"
    rows = draw(st.lists(st.lists(fields, min_size=2, max_size=2), max_size=25))
    path.write_bytes(csv_text(draw, [["name", "a note"], *rows]).encode())
    read = as_csv_reads(path)[1:]
    names = ("name", "a note")
    return CsvFile(path), [{n: row[i] if i < len(row) else None for i, n in enumerate(names)} for row in read]


def json_lines(draw: Callable[..., Any], directory: Path) -> Made:
    path = directory / "values.jsonl"
    items = draw(st.lists(json_values, max_size=25))
    end, mark = draw(st.sampled_from(["\n", "\r\n"])), draw(st.sampled_from(["", "\ufeff"]))
    ascii_only = draw(st.booleans())
    lines = [json.dumps(item, ensure_ascii=ascii_only) + end * draw(st.integers(1, 2)) for item in items]
    text = mark + "".join(lines)
    path.write_bytes((text.removesuffix(end) if draw(st.booleans()) else text).encode("utf-8", "replace"))
    return JsonLines(path), [json.loads(json.dumps(item).encode()) for item in items]


class Base(DeclarativeBase):
    type_annotation_map = {datetime: DateTime(), str: String(40), UUID: Uuid()}


class Shop(Base):
    __tablename__ = "shops"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    code: Mapped[str | None]


class Visit(Base):
    __tablename__ = "visits"
    customer: Mapped[UUID] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    shop_id: Mapped[int] = mapped_column(ForeignKey("shops.id"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Visit) and self.values() == other.values()

    __hash__ = None  # type: ignore[assignment]

    def values(self) -> tuple[Any, ...]:
        return self.customer, self.at, self.shop_id


@functools.cache
def engine_of(path: str) -> Engine:
    """An engine that keeps nothing open; ``path`` is a SQLite file, or a URL."""
    return create_engine(path if "://" in path else f"sqlite:///{path}", poolclass=NullPool)


def shops(path: str) -> SqlRows:
    return SqlRows(engine_of(path), Shop.__table__, page_size=4)


def visits(path: str) -> SqlRows:
    return SqlRows(sessionmaker(engine_of(path)), select(Visit).where(Visit.shop_id >= 0), page_size=3)


def plain_shops(path: str, least: int) -> SqlRows:
    query = "SELECT id, name AS title FROM shops WHERE id >= ? -- and no more;"
    return SqlRows.dbapi(lambda: sqlite3.connect(path), query, key="id", parameters=(least,), page_size=4)


def plain_visits(path: str) -> SqlRows:
    query = "SELECT shop_id, customer, at FROM visits WHERE shop_id >= :least;"
    return SqlRows.dbapi(
        lambda: sqlite3.connect(path), query, key=("customer", "at"), parameters={"least": 0}, paramstyle="named"
    )


def no_rows(path: str) -> str:
    return path


def filled(path: Path, *, shops: int = 0, visits: list[tuple[UUID, datetime]] | None = None) -> str:
    """A SQLite file with so many shops (ids 3, 6, 9...), and these visits; as it is, where there is one."""
    if path.exists():
        return str(path)
    engine = engine_of(str(path))
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA synchronous = OFF")
        Base.metadata.create_all(connection)
        if shops:
            connection.execute(insert(Shop), [{"id": 3 * n, "name": f"shop {n}"} for n in range(1, shops + 1)])
        if visits:
            rows = [{"customer": customer, "at": at, "shop_id": at.second} for customer, at in visits]
            connection.execute(insert(Visit), rows)
    return str(path)


def sql_table(draw: Callable[..., Any], directory: Path) -> Made:
    count = draw(st.integers(0, 25))
    path = filled(directory.parent / f"shops-{count}.db", shops=count)
    items = [(3 * number, f"shop {number}", None) for number in range(1, count + 1)]
    return SqlRows.from_factory(f"{__name__}:shops", path=path), items


def drawn_visits(draw: Callable[..., Any]) -> list[tuple[UUID, datetime]]:
    customers = draw(st.lists(st.uuids(), min_size=1, max_size=4))
    keys = st.tuples(st.sampled_from(customers), st.datetimes(datetime(2024, 1, 1), datetime(2024, 1, 3)))
    return sorted(draw(st.lists(keys, unique=True, max_size=20)))


def sql_composite(draw: Callable[..., Any], directory: Path) -> Made:
    keys = drawn_visits(draw)
    path = filled(directory / "b.db", visits=keys)
    items = [Visit(customer=customer, at=at, shop_id=at.second) for customer, at in keys]
    return SqlRows.from_factory(f"{__name__}:visits", path=path), items


def sql_plain(draw: Callable[..., Any], directory: Path) -> Made:
    count, least = draw(st.integers(0, 25)), draw(st.integers(0, 12))
    path = filled(directory.parent / f"shops-{count}.db", shops=count)
    items = [(3 * number, f"shop {number}") for number in range(1, count + 1) if 3 * number >= least]
    return SqlRows.from_factory(f"{__name__}:plain_shops", path=path, least=least), items


def sql_plain_composite(draw: Callable[..., Any], directory: Path) -> Made:
    path = filled(directory / "d.db", visits=drawn_visits(draw))
    with closing(sqlite3.connect(path)) as connection:
        items = connection.execute("SELECT shop_id, customer, at FROM visits ORDER BY customer, at").fetchall()
    return SqlRows.from_factory(f"{__name__}:plain_visits", path=path), items


def concat(draw: Callable[..., Any], directory: Path) -> Made:
    makers = draw(st.lists(st.sampled_from([sequence, numbers, csv_lists, json_lines, own, concat]), max_size=4))
    made = []
    for number, maker in enumerate(makers):
        inner = directory / str(number)
        inner.mkdir()
        made.append(maker(draw, inner))
    return Concat(*(source for source, _ in made)), [item for _, items in made for item in items]


class Own(Cuttable[int]):
    """The example of `rqmem.sources.contract`, written out."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def items_after(self, cursor: Cursor) -> Iterator[tuple[int, Cursor]]:
        for number in range(self.first if cursor is None else cursor + 1, self.last + 1):
            yield number, number

    def count(self) -> Count:
        return Count.exact(self.last - self.first + 1)

    def slices(self, items_per_slice: int | None = None, *, parts: int | None = None) -> Iterator[Own]:
        for begin, end in even_bounds(self.last - self.first + 1, items_per_slice, parts):
            yield Own(self.first + begin, self.first + end - 1)

    def rest(self, cursor: Cursor) -> Own:
        return Own(self.first if cursor is None else cursor + 1, self.last)

    def beyond(self, piece: Own) -> Own:
        return Own(piece.last + 1, self.last)

    def describe(self) -> dict[str, Any]:
        return {"first": self.first, "last": self.last}


class Bare:
    """No more than is required, and no base class."""

    def items_after(self, cursor: Cursor) -> Iterator[tuple[str, Cursor]]:
        return ((letter, place) for place, letter in enumerate("abc", 1) if place > (cursor or 0))


def own(draw: Callable[..., Any], directory: Path) -> Made:
    first, count = draw(st.integers(-5, 5)), draw(st.integers(0, 30))
    return Own(first, first + count - 1), list(range(first, first + count))


MAKERS = [
    sequence,
    numbers,
    csv_lists,
    csv_dicts,
    json_lines,
    sql_table,
    sql_composite,
    sql_plain,
    sql_plain_composite,
    concat,
    own,
]
