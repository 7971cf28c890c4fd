"""SqlRows: which selects, keys and queries; on SQLite and PostgreSQL."""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, column, create_engine, event, func, insert, select, table, text, union_all
from sqlalchemy.orm import aliased, sessionmaker

from rqmem.errors import ConfigError, SourceError
from rqmem.sources import Count, Cuttable, SqlRows, open_slice
from tests.postgres import PostgresServer
from tests.sources.makers import Base, Shop, Visit, engine_of, filled, plain_shops, shops

HERE = "tests.sources.makers"


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Ten shops, ids 3 to 30; three visits."""
    visits = [
        (UUID(int=1), datetime(2024, 1, 1)),
        (UUID(int=1), datetime(2024, 1, 2)),
        (UUID(int=2), datetime(2024, 1, 1)),
    ]
    return filled(tmp_path / "shops.db", shops=10, visits=visits)


@pytest.fixture
def engine(path: str) -> Engine:
    return engine_of(path)


@pytest.fixture
def asked(engine: Engine) -> list[str]:
    """The statements that run on the engine, with their parameters in them."""
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *others: Any) -> None:
        statements.append(statement.replace("?", "{!r}").format(*parameters))

    event.listen(engine, "before_cursor_execute", note)
    return statements


def items_of(source: Cuttable[Any]) -> list[Any]:
    return [item for item, _ in source.items_after(None)]


def pieces_of(source: Cuttable[Any], size: int) -> list[list[Any]]:
    return [items_of(piece) for piece in source.slices(size)]


IDS = list(range(3, 31, 3))


def test_a_page_is_a_short_query_and_never_an_offset(engine: Engine, asked: list[str]) -> None:
    source = SqlRows(engine, select(Shop.id), page_size=4)
    open_now: list[Any] = []
    event.listen(engine, "checkout", lambda *given: open_now.append(given[0]))
    event.listen(engine, "checkin", lambda *given: open_now.pop())
    for item in source.items_after(None):
        assert item[0] in IDS and not open_now
    assert len(asked) == 3
    assert [len(each) for each in pieces_of(source, 4)] == [4, 4, 2]
    assert items_of(source.rest([15])) == [18, 21, 24, 27, 30]
    # SQLAlchemy writes an offset of 0 for SQLite.
    assert not any(re.search("OFFSET (?!0)", statement) for statement in asked)


def test_what_a_select_gives(engine: Engine) -> None:
    [first, *_] = items_of(SqlRows(engine, Shop))
    assert isinstance(first, Shop) and first.name == "shop 1"
    [row, *_] = items_of(SqlRows(engine, select(Shop.id, Shop.name)))
    assert (row.id, row.name) == tuple(row) == (3, "shop 1")
    assert items_of(SqlRows(engine, select(Shop.id))) == IDS
    both = select(Visit, Shop.name).join_from(Visit, Shop, Shop.id == 3)
    [(visit, name), *_] = items_of(SqlRows(sessionmaker(engine), both, key=("customer", "at")))
    assert (visit.at, name) == (datetime(2024, 1, 1), "shop 1")


def test_selects_of_all_kinds(engine: Engine) -> None:
    joined = select(Visit.at, Shop.id.label("shop"), Visit.customer).join_from(Visit, Shop, Shop.id == 3)
    assert [row.shop for row in items_of(SqlRows(engine, joined, key=("customer", "at"), page_size=1))] == [3, 3, 3]
    grouped = select(Visit.customer, func.count().label("visits")).group_by(Visit.customer).having(func.count() > 1)
    assert [row.visits for row in items_of(SqlRows(engine, grouped, key="customer", page_size=1))] == [2]
    limited = select(Shop.id, Shop.name).order_by(Shop.id.desc()).limit(3)
    assert [row.id for row in items_of(SqlRows(engine, limited, key="id", page_size=2))] == [30, 27, 24]
    both = union_all(select(Shop.id), select(Shop.id + 1))
    assert items_of(SqlRows(engine, both, key="id", page_size=7)) == sorted([*IDS, *(n + 1 for n in IDS)])
    other = aliased(Shop)
    assert [shop.id for shop in items_of(SqlRows(engine, select(other).where(other.id > 20), page_size=2))] == [
        21,
        24,
        27,
        30,
    ]
    plain = text("SELECT id AS number FROM shops").columns(column("number"))
    assert items_of(SqlRows(engine, plain, key="number", page_size=3)) == IDS
    bare = table("shops", column("id"), column("name"))
    assert len(items_of(SqlRows(engine, bare, key="id"))) == 10
    backwards = select(Shop.id).order_by(Shop.id.desc())
    assert items_of(SqlRows(engine, backwards, page_size=2)) == IDS[::-1]
    for source in (SqlRows(engine, joined, key=("customer", "at")), SqlRows(engine, limited, key="id")):
        assert source.count() == Count.exact(3)
        assert [len(each) for each in pieces_of(source, 2)] == [2, 1]


def test_a_key_that_is_not_there_is_refused_before_anything_is_run(engine: Engine, asked: list[str]) -> None:
    for selectable, key, message in (
        (Shop, "nmae", "no 'nmae', so it cannot be its key: select it; did you mean name?"),
        (select(Shop.name), None, "no 'id', so it cannot be its key"),
        (select(Shop.id, Visit.at), None, "has no primary key: name columns that are unique"),
        (table("shops", column("id")), None, "shops has no primary key"),
        ("SELECT 1", "id", "a str is nothing to select from"),
        (text("SELECT 1"), "id", "a TextClause is nothing to select from"),
    ):
        with pytest.raises(SourceError, match=message):
            SqlRows(engine, selectable, key=key)
    for options, message in (
        ({"key": ()}, "key is"), ({"key": (Shop.id,)}, "key is"), ({"page_size": 0}, "page_size is 0"),
        ({"count": "about"}, "count is 'about'"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            SqlRows(engine, Shop, **options)
    with pytest.raises(ConfigError, match="str is no database"):
        SqlRows("sqlite://", Shop)  # type: ignore[arg-type]
    assert asked == []


def test_keys_that_are_null_or_not_unique(engine: Engine, path: str) -> None:
    with pytest.raises(SourceError, match="key column 'code' is NULL in some rows"):
        items_of(SqlRows(engine, Shop, key="code"))
    with pytest.raises(SourceError, match="key column 'code' is NULL in some rows"):
        list(SqlRows(engine, Shop, key=("id", "code")).slices(3))
    plain = SqlRows.dbapi(lambda: sqlite3.connect(path), "SELECT * FROM shops", key=("id", "code"))
    with pytest.raises(SourceError, match="key column 'code' is NULL in some rows"):
        items_of(plain)
    for page_size in (1, 2, 50):
        with pytest.raises(SourceError, match=r"key \(customer\) is not unique: .* comes twice"):
            items_of(SqlRows(engine, Visit, key="customer", page_size=page_size))


def test_rows_that_come_and_go_meanwhile(engine: Engine) -> None:
    source = SqlRows(engine, select(Shop.id), page_size=3)
    pieces = list(source.slices(5))
    items = source.items_after(None)
    begun = [next(items)[0] for _ in range(3)]
    with engine.begin() as connection:
        connection.execute(insert(Shop), [{"id": 7, "name": "new"}, {"id": 99, "name": "last"}])
    assert begun + [item for item, _ in items] == [*IDS, 99]
    assert [items_of(piece) for piece in pieces] == [[3, 6, 7, 9, 12, 15], [18, 21, 24, 27, 30]]


def test_a_slice_is_described_by_the_function_that_makes_it(path: str) -> None:
    source = SqlRows.from_factory(f"{HERE}:plain_shops", path=path, least=6)
    [_, piece, *_] = source.slices(4)
    described = piece.describe()
    assert described == {
        "kind": "sql",
        "factory": f"{HERE}:plain_shops",
        "kwargs": {"path": path, "least": 6},
        "after": [15],
        "upto": [27],
    }
    opened = open_slice(json.loads(json.dumps(described)))
    assert [row[0] for row in items_of(opened)] == [18, 21, 24, 27]
    assert (opened.begins_at(), opened.rest([27]).begins_at()) == ("id 18", "")


def test_what_cannot_be_sent_to_a_child(path: str) -> None:
    with pytest.raises(SourceError, match=r"a query is code, .* SqlRows\.from_factory\('your\.module:function'"):
        shops(path).describe()
    for factory, kwargs, message in (
        (f"{HERE}:gone", {}, "gone cannot be imported"),
        (f"{HERE}:no_rows", {"path": path}, "returned a str: have it return an SqlRows"),
        (f"{HERE}:plain_shops", {"path": Path(path), "least": 1}, "cannot be written as JSON"),
    ):
        with pytest.raises(SourceError, match=message):
            SqlRows.from_factory(factory, **kwargs)
    with pytest.raises(SourceError, match="has no end, so it is no slice"):
        shops(path).beyond(shops(path))


def test_a_plain_query_is_checked_before_it_is_read(path: str) -> None:
    connect = lambda: sqlite3.connect(path)  # noqa: E731
    for query, key, message in (
        ("SELECT name FROM shops", "id", "no single column 'id', so it cannot be its key; it has name"),
        ("SELECT id AS idx FROM shops", "id", "did you mean idx?"),
    ):
        source = SqlRows.dbapi(connect, query, key=key)
        for use in (items_of, lambda source: list(source.slices(2))):
            with pytest.raises(SourceError, match=message):
                use(source)
    for options, message in (
        ({"key": "id; DROP TABLE shops"}, "is no plain name"),
        ({"key": ()}, "key is"),
        ({"paramstyle": "percent"}, "paramstyle is 'percent': give one of qmark"),
        ({"parameters": {"a": 1}}, "with paramstyle 'qmark' the parameters are a tuple"),
        ({"parameters": (1,), "paramstyle": "named"}, "the parameters are a dict"),
    ):
        with pytest.raises(ConfigError, match=message):
            SqlRows.dbapi(connect, "SELECT 1", **{"key": "id", **options})


class Recorded:
    """A driver of another parameter style, on SQLite: what it is asked, translated."""

    def __init__(self, path: str, style: str, rows_as_dicts: bool) -> None:
        self._connection = sqlite3.connect(path)
        self._style, self._dicts = style, rows_as_dicts

    def cursor(self) -> Recorded:
        self._cursor = self._connection.cursor()
        return self

    def execute(self, query: str, values: Any) -> None:
        if self._style == "format":
            query = query.replace("%s", "?")
        elif self._style == "numeric":
            query = query.replace(":", "?")
        elif self._style == "pyformat":
            for name in values:
                query = query.replace(f"%({name})s", f":{name}")
        self._cursor.execute(query, values)
        self.description = self._cursor.description

    def fetchall(self) -> list[Any]:
        names = [each[0] for each in self.description]
        return [dict(zip(names, row, strict=True)) if self._dicts else row for row in self._cursor.fetchall()]

    def close(self) -> None: ...


@pytest.mark.parametrize("rows_as_dicts", [False, True])
@pytest.mark.parametrize(
    ("style", "mark", "parameters"),
    [("format", "%s", [6]), ("numeric", ":1", [6]), ("pyformat", "%(least)s", {"least": 6})],
)
def test_parameter_styles(path: str, style: Any, mark: str, parameters: Any, rows_as_dicts: bool) -> None:
    source = SqlRows.dbapi(
        lambda: Recorded(path, style, rows_as_dicts),
        f"SELECT name, id FROM shops WHERE id >= {mark}",
        key=("name", "id"),
        parameters=parameters,
        paramstyle=style,
        page_size=2,
    )
    ids = [row["id"] if rows_as_dicts else row[1] for row in items_of(source)]
    assert ids == [30, *IDS[1:-1]]  # by name: "shop 10" comes first
    assert source.count() == Count.exact(9)
    found = [[row["id"] if rows_as_dicts else row[1] for row in each] for each in pieces_of(source, 4)]
    assert found == [ids[:4], ids[4:8], ids[8:]]


def test_the_key_is_searched_by_its_index(path: str) -> None:
    source = SqlRows.dbapi(lambda: sqlite3.connect(path), "SELECT * FROM visits", key=("customer", "at"))
    seen: list[str] = []

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path)
        connection.set_trace_callback(seen.append)
        return connection

    source._queries._connect = connect  # type: ignore[attr-defined]
    assert items_of(source.rest(["0" * 32, "2024"]))
    [query] = [each for each in seen if "ORDER BY" in each]
    with closing(sqlite3.connect(path)) as connection:
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}"))
    assert "SEARCH visits USING INDEX" in plan and "TEMP B-TREE" not in plan


@pytest.fixture
def filled_postgres(postgres: PostgresServer) -> Iterator[Engine]:
    with postgres.database() as url:
        engine = create_engine(url)
        Base.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(insert(Shop), [{"id": 3 * n, "name": f"shop {n}"} for n in range(1, 2001)])
            seconds = [(n, datetime(2024, 1, 1, n // 60, n % 60)) for n in range(500)]
            connection.execute(
                insert(Visit), [{"customer": UUID(int=n % 7), "at": at, "shop_id": 3} for n, at in seconds]
            )
            connection.execute(text("ANALYZE"))
        yield engine
        engine.dispose()


def test_postgresql(filled_postgres: Engine) -> None:
    source = SqlRows(filled_postgres, select(Shop.id), page_size=300)
    assert items_of(source) == [3 * n for n in range(1, 2001)]
    assert [len(each) for each in pieces_of(source, 600)] == [600, 600, 600, 200]
    visits = SqlRows(filled_postgres, Visit, page_size=7)
    keys = [(visit.customer, visit.at) for visit in items_of(visits)]
    assert keys == sorted(keys) and len(keys) == 500
    assert [len(each) for each in pieces_of(visits, 100)] == [100] * 5
    begun = list(itertools.islice(visits.items_after(None), 123))
    cursor = json.loads(json.dumps(begun[-1][1]))
    assert [(visit.customer, visit.at) for visit, _ in visits.items_after(cursor)] == keys[123:]
    with pytest.raises(SourceError, match="key column 'code' is NULL"):
        items_of(SqlRows(filled_postgres, Shop, key="code"))


def test_postgresql_estimates(filled_postgres: Engine) -> None:
    source = SqlRows(filled_postgres, select(Shop).where(Shop.id > 3000), count="estimate")
    count = source.count()
    assert count.how == "estimated" and 900 < (count.items or 0) < 1100
    assert [len(items_of(piece)) for piece in source.slices(parts=4)] == [250] * 4


def test_postgresql_through_its_driver(filled_postgres: Engine) -> None:
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    url = filled_postgres.url.set(drivername="postgresql").render_as_string(hide_password=False)
    source = SqlRows.dbapi(
        lambda: psycopg.connect(url),
        "SELECT customer, at FROM visits WHERE shop_id = %s AND customer::text LIKE '%%-%%'",
        key=("customer", "at"),
        parameters=(3,),
        paramstyle="format",
        page_size=30,
    )
    rows = items_of(source)
    assert rows == sorted(rows) and len(rows) == 500
    assert [len(each) for each in pieces_of(source, 200)] == [200, 200, 100]


def test_plain_shops_are_the_shops(path: str) -> None:
    assert [row[0] for row in items_of(plain_shops(path, 0))] == [row[0] for row in items_of(shops(path))] == IDS
