"""Rows come in the order that a select asks for, on each database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    desc,
    func,
    insert,
    literal_column,
    select,
    text,
)
from sqlalchemy.pool import NullPool

from rqmem.sources import SqlRows

TABLE = Table(
    "calls",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("score", Integer, nullable=False),
    Column("done", Integer, nullable=False),
    Column("customer", String(20), nullable=False),
)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    with ExitStack() as stack:
        url = f"sqlite:///{tmp_path / 'rows.db'}"
        if request.param == "postgresql":
            url = stack.enter_context(request.getfixturevalue("postgres").database())
        engine = create_engine(url, poolclass=NullPool)
        TABLE.create(engine)
        rows = [{"id": n, "score": n * 7 % 31, "done": n % 2, "customer": f"customer {n % 5}"} for n in range(1, 31)]
        with engine.begin() as connection:
            connection.execute(insert(TABLE), rows)
        yield engine


negative = (TABLE.c.score * -1).label("score")
ORDERED_BY_TEXT = {
    "a position": select(TABLE.c.score, TABLE.c.id).order_by(text("1 DESC"), text("2")),
    "a position as a column": select(TABLE.c.score, TABLE.c.id).order_by(literal_column("1").desc(), "id"),
    "a name in text": select(negative, TABLE.c.id).order_by(text("score, id")),
    "a name": select(negative, TABLE.c.id).order_by("score", "id"),
    "a name, descending": select(TABLE.c.id, (TABLE.c.score + 1).label("more")).order_by(desc("more"), "id"),
    "columns that change names": select(TABLE.c.id, TABLE.c.score.label("done")).order_by(desc("done"), "id"),
}
"""ORDER BY names what is selected, or counts it. A column of the table may have the same name."""


@pytest.mark.parametrize("name", ORDERED_BY_TEXT)
def test_a_window_is_in_the_order_that_text_names(engine: Engine, name: str) -> None:
    query = ORDERED_BY_TEXT[name].limit(7)
    with engine.connect() as connection:
        expected = [each.id for each in connection.execute(query)]
    source = SqlRows(engine, query, key="id", page_size=3)
    assert [row.id for row in source] == expected
    assert [row.id for piece in source.slices(2) for row in piece] == expected


def test_what_is_grouped_comes_in_the_order_of_its_key(engine: Engine) -> None:
    grouped = select(TABLE.c.customer, func.count().label("calls")).group_by(TABLE.c.customer)
    ranked = select(TABLE.c.id, func.row_number().over(order_by=TABLE.c.score).label("rank"))
    for query, key in (
        (grouped.order_by(TABLE.c.customer), "customer"),
        (grouped.order_by(TABLE.c.customer.desc()), "customer"),
        (ranked.order_by(TABLE.c.id.desc()), "id"),
    ):
        with engine.connect() as connection:
            expected = [tuple(row) for row in connection.execute(query)]
        rows = SqlRows(engine, query, key=key, page_size=2)
        assert [tuple(row) for row in rows] == expected
