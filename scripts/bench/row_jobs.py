"""The ways to read rows of a database that `scripts.bench.reading_rows` compares, as jobs, and the table they read."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from rqmem import MemoryAwareJob
from rqmem.sources import SqlRows
from scripts.bench.measuring import forget_peak, peak_mb, resident_mb
from scripts.bench.worker_runs import QUEUE

PAGE = 500
CEILING_MB = 256
MOST_MB = 8192
"""Ceiling of the way that needs more than one should."""


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    note: Mapped[str]
    cents: Mapped[int]


def fill(path: Path, rows: int) -> None:
    """Make a SQLite file with that many orders."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, note TEXT, cents INTEGER)")
        values = ((number, f"customer {number % 9973}", f"{number:>09} " * 8, number % 1000) for number in range(rows))
        connection.executemany("INSERT INTO orders VALUES (1 + ?, ?, ?, ?)", values)


@dataclass(frozen=True)
class Read:
    """What one reading measured. ``growth_mb``: its peak, above what the job had before. ``total``: of all cents."""

    rows: int
    total: int
    seconds: float
    growth_mb: float


class ReadOrders(MemoryAwareJob):
    """Reads the first ``rows`` orders in one of the `WAYS`."""

    queue = QUEUE
    memory_limit_mb = CEILING_MB
    job_timeout = 3600

    def handle(self, path: str, way: str, rows: int) -> Read:
        engine = create_engine(f"sqlite:///{path}")
        engine.connect().close()
        self.sessions = sessionmaker(engine, expire_on_commit=False)
        self.orders = select(Order).where(Order.id <= rows)
        self.rows = self.total = 0
        forget_peak()
        before, began = resident_mb(), time.perf_counter()
        WAYS[way](self)
        return Read(self.rows, self.total, time.perf_counter() - began, peak_mb() - before)

    def load_everything(self) -> None:
        self.set_memory_limit(MOST_MB)
        with self.sessions() as session:
            self.add_up(list(session.scalars(self.orders)))

    def page_by_offset(self) -> None:
        in_order = self.orders.order_by(Order.id).limit(PAGE)
        while True:
            with self.sessions() as session:
                page = list(session.scalars(in_order.offset(self.rows)))
            if not page:
                return
            self.add_up(page)

    def in_fixed_chunks(self) -> None:
        self.process_in_chunks(SqlRows(self.sessions, self.orders), self.add_up, PAGE, collect=False)

    def in_chunks(self) -> None:
        self.process_in_chunks(SqlRows(self.sessions, self.orders), self.add_up, collect=False)

    def add_up(self, orders: list[Order]) -> None:
        self.rows += len(orders)
        self.total += sum(order.cents for order in orders)


FIXED, ADAPTIVE = f"chunks of {PAGE}", "chunks, adaptive"
WAYS: dict[str, Callable[[ReadOrders], None]] = {
    "everything, .all()": ReadOrders.load_everything,
    f"pages of {PAGE} by OFFSET": ReadOrders.page_by_offset,
    FIXED: ReadOrders.in_fixed_chunks,
    ADAPTIVE: ReadOrders.in_chunks,
}
