"""SQLAlchemy on real databases: no session and no transaction of a job reaches the next one in a warm horse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from sqlalchemy import create_engine, text

from rqmem.testing import wait_until
from tests import postgres
from tests.conftest import StartWorker
from tests.integrations.conftest import outcome

TABLE = "CREATE TABLE users (id INTEGER PRIMARY KEY, name VARCHAR(50) UNIQUE)"


@dataclass(frozen=True)
class Database:
    url: str
    connection: Redis
    start_worker: StartWorker

    def enqueue(self, name: str, *args: str) -> Job:
        path = name if "." in name else f"sessions.{name}"
        return Queue(connection=self.connection).enqueue(f"tests.integrations.{path}", *args)

    def results(self, *jobs: str, options: tuple[str, ...] = (), **environ: str) -> list[object]:
        queued = [self.enqueue(*name.split()) for name in jobs]
        worker = self.start_worker("--burst", *options, TEST_DATABASE=self.url, **environ)
        output = worker.finish()
        assert worker.process.returncode == 0, output
        return [outcome(job) for job in queued]

    @property
    def names(self) -> list[str]:
        engine = create_engine(self.url)
        with engine.connect() as connection:
            found = [row[0] for row in connection.execute(text("SELECT name FROM users ORDER BY name"))]
        engine.dispose()
        return found


@pytest.fixture(params=["postgresql", "sqlite"])
def database(
    request: pytest.FixtureRequest, connection: Redis, start_worker: StartWorker, tmp_path: Path
) -> Iterator[Database]:
    if request.param == "sqlite":
        url, table = f"sqlite:///{tmp_path / 'users.db'}", TABLE
        _execute(url, table)
        yield Database(url, connection, start_worker)
        return
    server: postgres.PostgresServer = request.getfixturevalue("postgres")
    with server.database() as url:
        _execute(url, TABLE.replace("INTEGER", "SERIAL"))
        yield Database(url, connection, start_worker)


def _execute(url: str, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_what_a_job_leaves_in_a_session_reaches_no_other_job(database: Database) -> None:
    results = database.results(
        *("horse", "add a", "add a", "add b"),  # the second fails, and says so
        *("leave_flushed", "add c", "leave_pending", "add d", "add_plain e"),
        *("leave_failed a", "add f", "add_plain g"),
        *("leave_core", "add h", "leave_in_other_thread", "add i"),
        *("leave_settings", "settings", "horse"),
        options=("--memory", "4096"),  # else the next type gets a horse without what these have imported
    )
    assert (
        "UNIQUE" in str(results[2]).upper() or "IntegrityError" in str(results[2]) or "sqlalche.me" in str(results[2])
    )
    assert [each for each in results if isinstance(each, str) and len(each) == 1] == list("abcdefghi")
    assert database.names == list("abcdefghi")
    assert results[-2] == [True, {}]
    assert results[0] == results[-1], "the horse was replaced, so this shows nothing"


def test_a_job_that_imports_sqlalchemy_itself_leaves_nothing_either(database: Database) -> None:
    _, added = database.results("late_sessions.leave_flushed", "add a")
    assert added == "a"
    assert database.names == ["a"]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_no_job_fails_after_the_server_ended_the_session(
    database: Database, end_backends: Callable[[str], int]
) -> None:
    worker = database.start_worker("default", TEST_DATABASE=database.url)
    for name in ("add a", "leave_flushed", "add b", "leave_core", "add c"):
        job = database.enqueue(*name.split())
        wait_until(lambda job=job: job.is_finished or job.is_failed)  # type: ignore[misc]
        assert outcome(job) in (None, "a", "b", "c")
        assert end_backends(database.url.rpartition("/")[2].partition("?")[0]) > 0
    worker.stop()
    assert database.names == ["a", "b", "c"]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_horse_does_not_use_the_workers_connections(database: Database, end_backends: Callable[[str], int]) -> None:
    worker = database.start_worker(
        "--preload", "tests.integrations.sessions", TEST_DATABASE=database.url, TEST_QUERY_AT_PRELOAD="1"
    )
    jobs = [database.enqueue("backend") for _ in range(2)]
    wait_until(lambda: jobs[1].is_finished or jobs[1].is_failed)
    assert outcome(jobs[0]) == outcome(jobs[1])  # it keeps its own
    assert end_backends(database.url.rpartition("/")[2].partition("?")[0]) == 2  # and the worker's still lives
    worker.stop()
