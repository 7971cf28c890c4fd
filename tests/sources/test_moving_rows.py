"""Rows that change while a job reads them: it changes what it selects by, others come and go. Each row of a window is
done exactly once, over chunks, cuts and resumes, on each database and by each road to it."""

from __future__ import annotations

import functools
import itertools
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    Boolean,
    Column,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Session

from rqmem.errors import ConfigError, SourceError
from rqmem.sources import Concat, Count, Cuttable, SqlRows, as_source, describe_slice, open_slice, sql_rows

CALLS = Table(
    "calls",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("score", Integer, nullable=False),
    Column("done", Boolean, nullable=False),
    Column("customer", String(20), nullable=False),
)
TODO = CALLS.c.done.is_(False)
COUNT = 60


class Base(DeclarativeBase):
    pass


class Call(Base):
    __table__ = CALLS


def row(number: int, *, done: bool = False) -> dict[str, Any]:
    return {"id": number, "score": number * 7 % 11, "done": done, "customer": f"c{number // 10 % 5}"}


@functools.cache
def engine_of(url: str) -> Engine:
    engine = create_engine(url)
    if url.startswith("sqlite"):  # nothing here has to outlive the machine
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    return engine


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield f"sqlite:///{tmp_path}/calls.db"
        else:
            url = stack.enter_context(request.getfixturevalue("postgres").database())
            yield url
            engine_of(url).dispose()


@pytest.fixture
def engine(url: str) -> Engine:
    CALLS.metadata.create_all(engine_of(url))
    refill(engine_of(url))
    return engine_of(url)


def refill(engine: Engine) -> None:
    """Ids 10, 20, ..., none of them done."""
    with engine.begin() as connection:
        connection.execute(delete(CALLS))
        connection.execute(insert(CALLS), [row(10 * number) for number in range(1, COUNT + 1)])


def by_score(url: str, most: int) -> SqlRows:
    wanted = select(CALLS).where(TODO).order_by(CALLS.c.score.desc(), CALLS.c.id).limit(most)
    return SqlRows(engine_of(url), wanted, key="id", page_size=4)


def newest(url: str, most: int) -> SqlRows:
    wanted = select(CALLS.c.id, CALLS.c.score).where(TODO).order_by(CALLS.c.id.desc()).limit(most)
    return SqlRows(engine_of(url), wanted, page_size=4)


def a_page_of_a_list(url: str, most: int) -> SqlRows:
    wanted = select(CALLS).where(TODO).order_by(CALLS.c.id).limit(most).offset(5)
    return SqlRows(engine_of(url), wanted, page_size=3)


def at_most(url: str, most: int) -> SqlRows:
    return SqlRows(engine_of(url), select(CALLS).where(TODO), key=("score", "-id"), page_size=4, at_most=most)


def any_of_them(url: str, most: int) -> SqlRows:
    return SqlRows(engine_of(url), select(CALLS.c.id).where(TODO).limit(most), page_size=4)


def grouped(url: str, most: int) -> SqlRows:
    wanted = select(CALLS.c.id, func.count().label("times")).where(TODO).group_by(CALLS.c.id)
    return SqlRows(engine_of(url), wanted.order_by(func.count(), CALLS.c.id.desc()).limit(most), key="id", page_size=4)


def union(url: str, most: int) -> SqlRows:
    both = union_all(*(select(CALLS.c.id).where(TODO, CALLS.c.id % 20 == rest) for rest in (0, 10)))
    return SqlRows(engine_of(url), both.order_by("id").limit(most), key="id", page_size=4)


def plain(url: str, most: int) -> SqlRows:
    query, key = "SELECT id, customer FROM calls WHERE NOT done", ("-customer", "id")
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        return SqlRows.dbapi(lambda: sqlite3.connect(path), query, key=key, page_size=4, at_most=most)
    import psycopg

    address = engine_of(url).url.set(drivername="postgresql").render_as_string()
    return SqlRows.dbapi(
        lambda: psycopg.connect(address), query, key=key, paramstyle="format", page_size=4, at_most=most
    )


WINDOWS: list[Callable[[str, int], SqlRows]] = [
    by_score, newest, a_page_of_a_list, at_most, any_of_them, grouped, union, plain
]  # fmt: skip
IN_KEY_ORDER = [newest, a_page_of_a_list, at_most, any_of_them, union, plain]


def id_of(item: Any) -> int:
    return item if isinstance(item, int) else int(item[0])


def ids(source: Cuttable[Any]) -> list[int]:
    return [id_of(item) for item, _ in source.items_after(None)]


def elsewhere(source: Any) -> Cuttable[Any]:
    return open_slice(json.loads(json.dumps(describe_slice(source))))


def saved(cursor: Any) -> Any:
    return json.loads(json.dumps(cursor))


class Life:
    """What a job and others do to the table meanwhile."""

    def __init__(self, engine: Engine, data: st.DataObject) -> None:
        self.engine, self.data = engine, data
        self.done: list[int] = []
        self.gone: set[int] = set()
        self.arrived: set[int] = set()

    def work(self, chunk: list[int]) -> None:
        self.done += chunk
        with self.engine.begin() as connection:
            connection.execute(update(CALLS).where(CALLS.c.id.in_(chunk)).values(done=True))

    def others(self, *, between: bool) -> None:
        """Rows arrive (after all others and, if they may, ``between`` them), become wanted again, and vanish."""
        with self.engine.begin() as connection:
            number = len(self.arrived)
            places = {10_000 + number, *([10 * number + 1] if between else [])}
            self.arrived |= places
            connection.execute(insert(CALLS), [row(place) for place in places])
            victim = self.data.draw(st.integers(1, COUNT)) * 10
            if victim not in self.done:
                connection.execute(delete(CALLS).where(CALLS.c.id == victim))
                self.gone.add(victim)


drawn = settings(
    max_examples=5,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("few", [sql_rows.FEW_KEYS, 0], ids=["keys", "ends"])
@pytest.mark.parametrize("window", WINDOWS, ids=lambda each: each.__name__)
@given(data=st.data())
@drawn
def test_each_row_of_a_window_is_done_once(
    window: Callable[[str, int], SqlRows], few: int, url: str, engine: Engine, data: st.DataObject
) -> None:
    if few == 0 and window not in IN_KEY_ORDER:
        return
    refill(engine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sql_rows, "FEW_KEYS", few)
        most = data.draw(st.integers(1, 40))

        def begun() -> SqlRows:
            return SqlRows.from_factory(f"{__name__}:{window.__name__}", url=url, most=most)

        wanted = ids(begun())
        assert begun().count() == Count.exact(len(wanted))
        life = Life(engine, data)

        def job(opened: Callable[[], Cuttable[Any]], depth: int) -> None:
            piece = opened()
            cursor = saved(piece.first_cursor())  # what a run saves before its first chunk
            while True:
                if data.draw(st.booleans()):
                    life.others(between=few > 0)
                if depth and data.draw(st.integers(0, 3)) == 0:  # what is left is split among children
                    how = data.draw(st.sampled_from([{"parts": 2}, {"items_per_slice": 3}]))
                    for child in [saved(describe_slice(each)) for each in piece.rest(cursor).slices(**how)]:
                        job(functools.partial(open_slice, child), depth - 1)
                    return
                size = data.draw(st.integers(1, 9))
                chunk = list(itertools.islice(piece.items_after(cursor), size))
                life.work([id_of(item) for item, _ in chunk])
                if len(chunk) < size:
                    return
                cursor = saved(chunk[-1][1])
                if data.draw(st.booleans()):  # it goes on in another process
                    piece = opened()

        job(begun, 2)
    assert len(life.done) == len(set(life.done))
    assert set(wanted) - life.gone <= set(life.done)
    new = set(life.done) - set(wanted)
    assert new <= (life.arrived if few == 0 else set())  # between two ends others may come


def test_a_window_is_fixed_before_its_first_row(url: str, engine: Engine) -> None:
    source = newest(url, 50)
    seen, new = [], itertools.count(1001)
    for item, _ in source.items_after(None):
        seen.append(id_of(item))
        with engine.begin() as connection:
            connection.execute(insert(CALLS), [row(next(new)), row(next(new))])
    assert seen == [10 * number for number in range(COUNT, COUNT - 50, -1)]


def test_cutting_that_was_cut_off_goes_on_with_the_window_it_began_with(url: str, engine: Engine) -> None:
    for few in (sql_rows.FEW_KEYS, 0):
        refill(engine)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sql_rows, "FEW_KEYS", few)
            source = SqlRows.from_factory(f"{__name__}:newest", url=url, most=20)
            begins = saved(source.first_cursor())
            wanted = ids(source)
            made = list(itertools.islice(source.rest(begins).slices(4), 2))
            done = [each for piece in made for each in ids(piece)]
            with engine.begin() as connection:
                connection.execute(update(CALLS).where(CALLS.c.id.in_(done)).values(done=True))
            further = source.rest(begins).beyond(elsewhere(made[-1]))
            assert done + [each for piece in further.slices(4) for each in ids(piece)] == wanted


def test_sources_one_after_the_other_fix_their_windows_before_the_first_row(url: str, engine: Engine) -> None:
    def both() -> Concat[Any]:
        low = SqlRows(engine, select(CALLS.c.id).where(TODO, CALLS.c.id <= 300).limit(5))
        high = SqlRows(engine, select(CALLS.c.id).where(TODO, CALLS.c.id > 100).order_by(CALLS.c.id).limit(5))
        return Concat(low, [1, 2], high)

    expected = [*(10, 20, 30, 40, 50), 1, 2, *(110, 120, 130, 140, 150)]
    cursor, seen = saved(both().first_cursor()), []
    while chunk := list(itertools.islice(both().items_after(cursor), 2)):
        seen += [id_of(item) for item, _ in chunk]
        cursor = saved(chunk[-1][1])
        with engine.begin() as connection:  # each chunk ends the next three, wherever they are
            connection.execute(insert(CALLS), [row(3000 + len(seen))])
            connection.execute(update(CALLS).where(CALLS.c.id.in_([*seen, 60, 70])).values(done=True))
    assert seen == expected


def test_a_large_window_in_another_order_is_refused(url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_rows, "FEW_KEYS", 10)
    with pytest.raises(SourceError, match=r"another order than that of their key \(id\).*at_most=N"):
        ids(by_score(url, 11))
    assert len(ids(by_score(url, 10))) == 10
    monkeypatch.setattr(sql_rows, "FEW_BYTES", 30)
    with pytest.raises(SourceError, match="at_most=N"):
        ids(by_score(url, 10))


def test_an_offset_alone_has_no_end(url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SqlRows(engine, select(CALLS.c.id).order_by(CALLS.c.id).offset(55), page_size=2)
    for few in (100, 2):
        monkeypatch.setattr(sql_rows, "FEW_KEYS", few)
        assert ids(source) == [560, 570, 580, 590, 600]
        assert source.count() == Count.exact(5)


def test_an_order_is_kept_or_refused(url: str, engine: Engine) -> None:
    last_first = select(CALLS.c.id).order_by(CALLS.c.id.desc())
    assert ids(SqlRows(engine, last_first, page_size=7)) == [10 * n for n in range(COUNT, 0, -1)]
    assert [ids(each) for each in SqlRows(engine, last_first).slices(30)] == [
        [10 * n for n in range(60, 30, -1)],
        [10 * n for n in range(30, 0, -1)],
    ]
    mixed = select(CALLS.c.id, CALLS.c.score).order_by(CALLS.c.score.desc(), CALLS.c.id)
    with engine.connect() as connection:
        expected = [each.id for each in connection.execute(mixed)]
    for select_, key in ((mixed, ("score", "id")), (mixed.order_by(None), ("-score", "id"))):
        source = SqlRows(engine, select_, key=key, page_size=7)
        assert ids(source) == expected
        assert [each for piece in source.slices(13) for each in ids(piece)] == expected
    for refused, key in (
        (select(CALLS).order_by(CALLS.c.score), None),
        (select(CALLS).order_by(text("score DESC")), None),
        (select(CALLS).order_by(func.random()), "id"),
        (mixed, ("-id",)),
        (mixed, ("-score", "-id")),
    ):
        with pytest.raises(SourceError, match=r"has an ORDER BY, but rows come in the order of their key"):
            SqlRows(engine, refused, key=key)
    with pytest.raises(SourceError, match="the query has an ORDER BY"):
        SqlRows.dbapi(lambda: None, "SELECT id FROM calls ORDER BY id DESC", key="id")


inner = select(CALLS.c.id).where(TODO).order_by(CALLS.c.id).limit(10)
ranked = select(CALLS.c.id, func.row_number().over(partition_by=CALLS.c.customer, order_by=CALLS.c.id).label("n"))
highest = select(func.max(CALLS.c.id) - 50).scalar_subquery()
others = CALLS.alias()
highest_of_alias = select(func.max(others.c.id) - 50).scalar_subquery()
CHANGING = {
    "a limit in IN": lambda: select(CALLS).where(CALLS.c.id.in_(inner)),
    "a limit in FROM": lambda: select(inner.subquery()),
    "newest by the highest id": lambda: select(CALLS.c.id).where(CALLS.c.id > highest),
    "newest by the highest id of an alias": lambda: select(Call).where(Call.id > highest_of_alias),
    "a limit in a CTE": lambda: select(inner.cte()),
    "a limit in a part of a union": lambda: union_all(inner, select(CALLS.c.id)),
    "a limit in a join": lambda: select(CALLS).join(sub := inner.subquery(), sub.c.id == CALLS.c.id),
    "top of each group": lambda: select(sub := ranked.subquery()).where(sub.c.n <= 2),
    "a rank as key": lambda: ranked.with_only_columns(ranked.selected_columns.n.label("id")),
    "the largest of a group as key": lambda: select(func.max(CALLS.c.id).label("id")).group_by(CALLS.c.customer),
    "one of each group": lambda: select(CALLS.c.id).distinct(CALLS.c.customer).order_by(CALLS.c.customer),
    "random": lambda: select(CALLS.c.id).where(func.random() > 0),
    "text in WHERE": lambda: select(CALLS).where(text("id IN (SELECT id FROM calls LIMIT 5)")),
    "text": lambda: text("SELECT id FROM calls ORDER BY id LIMIT 5").columns(CALLS.c.id),
    "a sample": lambda: select(CALLS.tablesample(func.bernoulli(50)).c.id),
}


@pytest.mark.parametrize("name", CHANGING)
@pytest.mark.filterwarnings("ignore:.*DISTINCT ON")
def test_what_may_be_another_set_each_time_is_refused(name: str) -> None:
    engine = create_engine("sqlite://")
    with pytest.raises(SourceError, match=r"each time.*(at_most=N|name columns)") as told:
        SqlRows(engine, CHANGING[name](), key="id")
    assert "stable=True" in str(told.value) and "\n" not in str(told.value)


PLAIN_CHANGING = [
    "SELECT id FROM calls LIMIT 5",
    "SELECT id FROM calls OFFSET 5",
    "SELECT id FROM calls FETCH FIRST 5 ROWS ONLY",
    "SELECT TOP 5 id FROM calls",
    "SELECT id FROM (SELECT id FROM calls LIMIT 5) AS c",
    "WITH c AS (SELECT id FROM calls limit ?) SELECT id FROM c",
    "SELECT DISTINCT ON (customer) id FROM calls",
    "SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM calls) AS c WHERE n < 5",
    "SELECT rank() OVER (ORDER BY score) AS id FROM calls",
    "SELECT max(id) AS id FROM calls GROUP BY customer",
    "SELECT id FROM calls WHERE random() > 0",
    r"SELECT id FROM calls WHERE customer = 'C:\' LIMIT 5 -- '",
]


@pytest.mark.parametrize("query", PLAIN_CHANGING)
def test_a_plain_query_that_may_be_another_set_each_time_is_refused(query: str) -> None:
    with pytest.raises(SourceError, match="each time"):
        SqlRows.dbapi(lambda: None, query, key="id")


def test_what_only_looks_like_it_is_read(url: str, engine: Engine) -> None:
    latest = select(CALLS.c.score).where(CALLS.c.id < 50).order_by(CALLS.c.id.desc()).limit(1).scalar_subquery()
    other = CALLS.alias()
    there = select(other.c.id).where(other.c.id == CALLS.c.id).limit(1).exists()
    of_it = select(func.count()).where(other.c.customer == CALLS.c.customer).scalar_subquery()
    for read in (
        select(CALLS.c.id, latest.label("latest")),
        select(CALLS.c.id).where(there),
        select(CALLS.c.id).where(of_it > 1),
        select(CALLS.c.id).distinct(),
        select(CALLS.c.id, func.max(CALLS.c.score).label("most")).group_by(CALLS.c.id),
    ):
        assert len(ids(SqlRows(engine, read, key="id", page_size=7))) == COUNT
    ranks = [item.n for item, _ in SqlRows(engine, ranked, key="id", page_size=7).items_after(None)]
    assert max(ranks) == COUNT / 5  # over the whole table, not over each page
    stable = SqlRows(engine, select(inner.subquery()), key="id", page_size=3, stable=True)
    assert ids(stable) == [10 * n for n in range(1, 11)]


def test_names_and_texts_are_no_limits(tmp_path: Path) -> None:
    path = tmp_path / "odd.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute('CREATE TABLE odd (id INTEGER PRIMARY KEY, "limit" INTEGER, offset INTEGER, note TEXT)')
        database.execute("INSERT INTO odd VALUES (1, 2, 3, 'limit 5')")
    query = """SELECT id, "limit", odd.offset, offset -- limit 5
        FROM odd /* offset 3 */ WHERE note = 'limit 5' AND offset > 2"""
    assert ids(SqlRows.dbapi(lambda: sqlite3.connect(path), query, key="id")) == [1]


def test_what_no_window_is(url: str, engine: Engine) -> None:
    with pytest.raises(ConfigError, match="has a LIMIT or OFFSET of its own: leave it out, or at_most"):
        SqlRows(engine, select(CALLS).limit(5), at_most=5)
    for wrong in (0, -1, True, "5", 1.5):
        with pytest.raises(ConfigError, match="at_most is"):
            SqlRows(engine, CALLS, at_most=wrong)  # type: ignore[arg-type]
    fixed = saved(newest(url, 5).first_cursor())
    for cursor in ([10], 3, {"first": 0}, {"first": 0, "keys": [[None]]}, {"after": None}, {**fixed, "keys": 5}):
        with pytest.raises(SourceError, match="cursor"):
            list(newest(url, 5).items_after(cursor))
    empty = SqlRows(engine, select(CALLS.c.id).where(CALLS.c.id < 0).limit(5))
    assert ids(empty) == [] and list(empty.slices(3)) == [] and empty.begins_at() == ""
    assert list(empty.items_after(empty.first_cursor())) == []


def test_objects_keep_being_objects_in_a_window(url: str, engine: Engine) -> None:
    calls = [
        call for call, _ in SqlRows(engine, select(Call).order_by(CALLS.c.score, CALLS.c.id).limit(3)).items_after(None)
    ]
    assert [type(call) for call in calls] == [Call] * 3
    assert [vars(call)["score"] for call in calls] == [0, 0, 0]


def test_a_query_that_is_iterated_is_no_collection_that_a_job_could_go_on_with(engine: Engine) -> None:
    django = pytest.importorskip("django.db.models.query", reason="Django is not installed")
    with Session(engine) as session:
        for query in (session.query(Call), session.query(Call).limit(5), django.QuerySet()):
            with pytest.raises(SourceError, match=r"is run again when the job goes on.*rqmem\.sources\.SqlRows"):
                as_source(query, must_resume=True)
        assert len([item for item, _ in as_source(session.query(Call)).items_after(None)]) == COUNT
