"""What can be a key: values that databases compare in their own way, that Python writes in its own way, and those that
cannot be read at all. Nothing is lost in silence, and what is refused is refused before the first row."""

from __future__ import annotations

import enum
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    REAL,
    Boolean,
    Column,
    Date,
    DateTime,
    Engine,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Time,
    Uuid,
    create_engine,
    event,
    insert,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.pool import NullPool

from rqmem.errors import SourceError
from rqmem.sources import SqlRows, sql_rows
from tests.postgres import PostgresServer


class Color(enum.Enum):
    red = "r"
    green = "g"
    blue = "b"


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/keys.db")
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    yield engine
    engine.dispose()


@pytest.fixture
def postgres_engine(postgres: PostgresServer) -> Iterator[Engine]:
    with postgres.database() as url:
        engine = create_engine(url)
        yield engine
        engine.dispose()


def table_of(engine: Engine, kind: Any, values: list[Any]) -> Table:
    table = Table("t", MetaData(), Column("k", kind, nullable=False), Column("id", Integer, nullable=False))
    table.create(engine)
    with engine.begin() as connection:
        connection.execute(insert(table), [{"k": value, "id": number} for number, value in enumerate(values)])
    return table


def read(source: Any, cursor: Any = None) -> list[Any]:
    return [item.id for item, _ in source.items_after(cursor)]


def one_by_one(source: Any) -> list[Any]:
    """Each row by a run of its own, from the cursor as it comes back from Redis."""
    ids, cursor = [], source.first_cursor()
    while (found := next(source.items_after(cursor), None)) is not None:
        ids.append(found[0].id)
        cursor = json.loads(json.dumps(found[1]))
        assert len(ids) < 100
    return ids


def assert_reads(engine: Engine, table: Table, **options: Any) -> None:
    """Alone and in a composite key, up and down, page by page, one by one, in slices and in windows: the same rows."""
    for key in options.pop("keys", ["k", ("-k", "id"), ("-id", "k")]):
        with engine.connect() as connection:
            order = [
                table.c[name.strip("-")].desc() if name.startswith("-") else table.c[name]
                for name in ((key,) if isinstance(key, str) else key)
            ]
            expected = [row.id for row in connection.execute(select(table).order_by(*order))]
        for page_size in (1, 100):
            source = SqlRows(engine, table, key=key, page_size=page_size, **options)
            assert read(source) == expected, key
        assert one_by_one(source) == expected, key
        assert [each for piece in source.slices(2) for each in read(piece)] == expected, key
        for few in (1000, 0):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sql_rows, "FEW_KEYS", few)
                window = SqlRows(engine, table, key=key, page_size=2, at_most=3)
                assert one_by_one(window) == read(window) == expected[:3], (key, few)


KINDS: dict[str, tuple[Any, list[Any]]] = {
    "booleans": (Boolean, [True, False]),
    "enums": (Enum(Color), [Color.red, Color.green, Color.blue]),
    "numbers": (Numeric(20, 6), [Decimal("0.1"), Decimal("-3"), Decimal("123456789.123456"), Decimal(0)]),
    "floats": (Float, [0.1, 0.2, 0.1 + 0.2, -1.5, 1e300]),
    "dates": (Date, [date(2024, 2, 29), date(1, 1, 1), date(9999, 12, 31)]),
    "times": (Time, [time(0), time(23, 59, 59, 999999), time(12)]),
    "moments": (DateTime, [datetime(2024, 1, 1, 0, 0, 0, micro) for micro in (0, 1, 999999)]),
    "intervals": (Interval, [timedelta(days=30), timedelta(0), timedelta(microseconds=1)]),
    "bytes": (LargeBinary, [b"", b"\x00", b"\xff\xfe", b"a"]),
    "uuids": (Uuid, [UUID(int=7), UUID(int=2**127), UUID(int=0)]),
    "texts": (String, ["", " ", "a", "A", "ä", "ß", "zz", "😀", "Z"]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("database", ["sqlite", "postgres_engine"])
def test_kinds_of_keys(kind: str, database: str, request: pytest.FixtureRequest) -> None:
    engine: Engine = request.getfixturevalue(database)
    column, values = KINDS[kind]
    assert_reads(engine, table_of(engine, column, values))


def test_a_boolean_that_comes_often_in_a_composite_key(sqlite: Engine, postgres_engine: Engine) -> None:
    for engine in (sqlite, postgres_engine):
        table = table_of(engine, Boolean, [number % 3 == 0 for number in range(20)])
        assert_reads(engine, table, keys=[("k", "id"), ("-k", "id"), ("k", "-id"), ("id", "k")])


def test_kinds_that_only_postgresql_has(postgres_engine: Engine) -> None:
    berlin = timezone(timedelta(hours=2))
    for kind, values in (
        (
            DateTime(timezone=True),
            [datetime(2026, 10, 25, 2, 30, tzinfo=berlin) + timedelta(hours=n) for n in range(3)],
        ),
        (REAL, [0.1, 0.7, 0.5, 1e10, 16777217.0]),
        (Numeric, [Decimal("NaN"), Decimal("1.00"), Decimal("1.5"), Decimal("-Infinity")]),
        (Float, [float("nan"), float("inf"), -1.0, 0.0]),
        (ARRAY(Integer), [[1, 2], [1], [], [2]]),
        (Enum(Color, native_enum=False), [Color.red, Color.green]),
    ):
        table = table_of(postgres_engine, kind, values)
        assert_reads(postgres_engine, table)
        table.drop(postgres_engine)
        table.metadata.drop_all(postgres_engine)


def test_a_moment_is_the_same_in_another_zone(postgres_engine: Engine) -> None:
    moments = [datetime(2026, 10, 25, hour, 30, tzinfo=timezone.utc) for hour in range(4)]  # 2:30 twice in Berlin
    table = table_of(postgres_engine, DateTime(timezone=True), moments)
    window = SqlRows(postgres_engine, table, key="-k", at_most=4)
    cursor = json.loads(json.dumps(window.first_cursor()))
    for zone in ("Europe/Berlin", "America/New_York"):
        there = create_engine(postgres_engine.url, poolclass=NullPool, connect_args={"options": f"-c timezone={zone}"})
        assert read(SqlRows(there, table, key="-k", at_most=4), cursor) == [3, 2, 1, 0]
        assert read(SqlRows(there, table, key="k", page_size=1)) == [0, 1, 2, 3]


def equal_keys(name: str) -> tuple[str, list[str], str]:
    """The column's type, its values, and what has to be run before."""
    deterministic = "CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
    return {
        "nocase": ("TEXT COLLATE NOCASE", ["Anna", "anna", "ANNA", "Bob", "bob", "Cid"], ""),
        "rtrim": ("TEXT COLLATE RTRIM", ["a", "a ", "a  ", "b"], ""),
        "citext": ("citext", ["Anna", "anna", "ANNA", "Bob", "bob", "Cid"], "CREATE EXTENSION citext"),
        "icu": ("text COLLATE any_case", ["Anna", "anna", "ANNA", "Bob", "bob", "Cid"], deterministic),
        "char": ("char(5)", ["a", "a ", "a  ", "b"], ""),
        "numeric": ("numeric", ["1.0", "1.00", "2"], ""),
        "zero": ("double precision", ["0", "-0.0", "2"], ""),
        "nan": ("double precision", ["NaN", "NaN", "2"], ""),
        "jsonb": ("jsonb", ['{"a": 1, "b": 2}', '{"b": 2, "a": 1}', "[]"], ""),
    }[name]


@pytest.mark.parametrize(
    ("database", "name"),
    [
        ("sqlite", "nocase"), ("sqlite", "rtrim"),
        *(("postgres_engine", each) for each in ("citext", "icu", "char", "numeric", "zero", "nan")),
    ],
)  # fmt: skip
def test_what_the_database_takes_for_equal_is_no_key(database: str, name: str, request: pytest.FixtureRequest) -> None:
    engine: Engine = request.getfixturevalue(database)
    column, values, before = equal_keys(name)
    with engine.begin() as connection:
        if before:
            connection.execute(text(before))
        connection.execute(text(f"CREATE TABLE t (k {column}, id integer)"))
        for number, value in enumerate(values):
            connection.execute(text(f"INSERT INTO t VALUES ('{value}', {number})"))
    table = Table("t", MetaData(), autoload_with=engine)
    for page_size in (1, 2, 3, 500):
        for source in (
            SqlRows(engine, table, key="k", page_size=page_size),
            SqlRows(engine, table, key="-k", page_size=page_size),
            plain(engine, "SELECT k, id FROM t", key="k", page_size=page_size),
        ):
            with pytest.raises(SourceError, match=r"key \(-?k\) is not unique: .* comes twice, as the database"):
                list(source.items_after(None))
        try:  # a window holds its keys, and then nothing is lost
            assert len(read(SqlRows(engine, table, key="k", page_size=page_size, at_most=2))) == 2
        except SourceError as error:
            assert "is not unique" in str(error)
    assert read(SqlRows(engine, table, key=("id", "k"), page_size=2)) == list(range(len(values)))
    assert_reads(engine, table, keys=[("k", "id"), ("-k", "id")])


def plain(engine: Engine, query: str, **options: Any) -> SqlRows:
    if engine.dialect.name == "sqlite":
        return SqlRows.dbapi(lambda: sqlite3.connect(engine.url.database or ""), query, **options)
    import psycopg

    address = engine.url.set(drivername="postgresql").render_as_string()
    return SqlRows.dbapi(lambda: psycopg.connect(address), query, paramstyle="format", **options)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("timestamp", ["2024-01-01", "infinity"], "is infinity in some rows, which no Python value is"),
        ("timestamptz", ["-infinity", "2024-01-01"], "is infinity in some rows"),
        ("date", ["2024-01-01", "infinity"], "is infinity in some rows"),
        ("json", ["{}", "[]"], "is JSON, which has no order"),
        ("jsonb", ["{}", "[]"], "is JSON, which has no order"),
    ],
)
def test_what_is_no_key_is_refused_before_the_first_row(
    postgres_engine: Engine, column: str, values: list[str], message: str
) -> None:
    with postgres_engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE t (k {column} NOT NULL, id integer)"))
        for number, value in enumerate(values):
            connection.execute(text(f"INSERT INTO t VALUES ('{value}', {number})"))
    table = Table("t", MetaData(), autoload_with=postgres_engine)
    rows = Table("t", MetaData(), Column("k", table.c.k.type), Column("id", Integer))
    for use in (lambda source: next(source.items_after(None)), lambda source: list(source.slices(1))):
        with pytest.raises(SourceError, match=message):
            use(SqlRows(postgres_engine, rows, key=("k", "id")))


def test_a_driver_that_cannot_read_a_key_is_told_in_one_line(postgres_engine: Engine) -> None:
    for column, values, expected in (
        ("json", ["{}", "[]"], "could not identify an ordering operator for type json"),
        ("timestamp", ["2024-01-01", "infinity"], "timestamp too large"),
        ("xml", ["<a/>"], "could not identify"),
        ("point", ["(1,2)"], "could not identify"),
    ):
        with postgres_engine.begin() as connection:
            connection.execute(text(f"CREATE TABLE t (k {column} NOT NULL)"))
            for value in values:
                connection.execute(text(f"INSERT INTO t VALUES ('{value}')"))
        with pytest.raises(SourceError, match=rf"rows by key \(k\) cannot be read: .*{expected}") as told:
            list(plain(postgres_engine, "SELECT k FROM t", key="k").items_after(None))
        assert "\n" not in str(told.value)
        with postgres_engine.begin() as connection:
            connection.execute(text("DROP TABLE t"))


def test_a_value_that_is_rounded_on_its_way_is_told(postgres_engine: Engine) -> None:
    with postgres_engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (k real, id integer)"))
        connection.execute(text("INSERT INTO t SELECT n / 10.0, n FROM generate_series(1, 20) AS n"))
    for key in ("k", ("k", "id"), "-k"):
        with pytest.raises(SourceError, match=r"does not find .* cast it in the query"):
            list(plain(postgres_engine, "SELECT k, id FROM t", key=key, page_size=3).items_after(None))
    cast = plain(postgres_engine, "SELECT k::float8 AS k, id FROM t", key="k", page_size=3)
    assert [row[1] for row, _ in cast.items_after(None)] == list(range(1, 21))


def test_odd_columns_of_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "odd.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE mixed (k)")
        database.executemany("INSERT INTO mixed VALUES (?)", [(1,), (2,), ("3",), ("a",), (2.5,), (b"\x00",)])
    source = SqlRows.dbapi(lambda: sqlite3.connect(path), "SELECT k FROM mixed", key="k", page_size=2)
    assert [row[0] for row, _ in source.items_after(None)] == [1, 2, 2.5, "3", "a", b"\x00"]
