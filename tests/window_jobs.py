"""Jobs that mark what they have done, and select by that mark: run again, their select is another set."""

from __future__ import annotations

import functools
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Boolean, Column, Engine, Integer, MetaData, Table, create_engine, select

from rqmem import MemoryAwareJob
from rqmem.sources import SqlRows

CALLS = Table(
    "calls", MetaData(), Column("id", Integer, primary_key=True), Column("done", Boolean), Column("times", Integer)
)


@functools.cache
def engine_of(path: str) -> Engine:
    return create_engine(f"sqlite:///{path}")


def newest(path: str, most: int) -> SqlRows:
    """The newest of those that are to be done."""
    wanted = select(CALLS.c.id).where(CALLS.c.done.is_(False)).order_by(CALLS.c.id.desc()).limit(most)
    return SqlRows(engine_of(path), wanted, page_size=7)


def fill(path: str, count: int) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE calls (id INTEGER PRIMARY KEY, done BOOLEAN, times INTEGER)")
        database.executemany("INSERT INTO calls VALUES (?, 0, 0)", ((number,) for number in range(1, count + 1)))


def done(path: str) -> dict[int, int]:
    """Id -> how often it was done."""
    with sqlite3.connect(path) as database:
        return dict(database.execute("SELECT id, times FROM calls WHERE times > 0"))


class CallNewest(MemoryAwareJob):
    """Calls the newest ``most``; breaches within the first chunk of its first execution, and once later."""

    queue = "jobs"
    on_breach = "resume"
    chunk_size = 8
    adaptive = False
    items_per_child = 6
    breaches_at = (4, 20)

    def handle(self, path: str, most: int, split: bool = False, items: Any = None) -> int:
        self.path_of_data = path
        rows = SqlRows.from_factory(f"{__name__}:newest", path=path, most=most) if items is None else items
        if split and items is None:
            return self.split_into_child_jobs(rows)
        self.process_in_chunks(rows, self.call, collect=False)
        return 1

    def call(self, chunk: list[int]) -> None:
        for number in chunk:
            with sqlite3.connect(self.path_of_data, timeout=30) as database:
                database.execute("PRAGMA synchronous = OFF")
                database.execute("UPDATE calls SET done = 1, times = times + 1 WHERE id = ?", (number,))
                # Newer ones arrive meanwhile.
                database.execute("INSERT INTO calls SELECT max(id) + 1, 0, 0 FROM calls")
                [(finished,)] = database.execute("SELECT count(*) FROM calls WHERE times > 0")
            if finished in self.breaches_at:
                hog = [os.urandom(2**20) for _ in range(400)]
                raise AssertionError(f"{len(hog)} MB were not enough")


class DispatchNewest(CallNewest):
    """Dispatches its children in a loop; killed after the second, when newer ones have arrived, once."""

    def handle(self, path: str, most: int, split: bool = False, items: Any = None) -> int:
        if items is not None:
            return super().handle(path, most, items=items)
        rows = SqlRows.from_factory(f"{__name__}:newest", path=path, most=most)
        for number, child in enumerate(self.create_child_jobs(rows, CallNewest)):
            child.enqueue()
            if number == 1 and not Path(f"{path}.killed").exists():
                Path(f"{path}.killed").touch()
                with sqlite3.connect(path) as database:
                    database.execute("INSERT INTO calls SELECT id + 1000, 0, 0 FROM calls WHERE id > 190")
                os.kill(os.getpid(), signal.SIGKILL)
        return 0


class CallListed(MemoryAwareJob):
    """Makes the list of what is still to do in each execution; its horse is killed once."""

    queue = "jobs"
    on_breach = "resume"
    chunk_size = 8
    adaptive = False

    def handle(self, path: str) -> None:
        with sqlite3.connect(path) as database:
            listed = [number for (number,) in database.execute("SELECT id FROM calls WHERE NOT done ORDER BY id")]

        def call(chunk: list[int]) -> None:
            for number in chunk:
                with sqlite3.connect(path) as database:
                    database.execute("UPDATE calls SET done = 1, times = times + 1 WHERE id = ?", (number,))
            killed = Path(f"{path}.killed")
            if number >= 24 and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)

        self.process_in_chunks(listed, call, collect=False)
