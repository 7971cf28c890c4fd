"""jobs.database on SQLite and PostgreSQL: opening, refusing, several processes, moments in time."""

from __future__ import annotations

import multiprocessing
from datetime import datetime, timedelta, timezone
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError, StatementError

from jobs.database import create_schema, database_url, open_database, session_factory
from jobs.tables import Campaign, Customer
from rqmem.errors import ConfigError
from tests.postgres import PORT, PostgresServer

PROCESSES = 6
WRITES = 30


@pytest.fixture
def url(empty_database_url: str) -> str:
    return empty_database_url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/with a space.db"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "sqlite:///rqmem-app.db"),
        ("  ", "sqlite:///rqmem-app.db"),
        ("sqlite:////srv/app.db", "sqlite:////srv/app.db"),
        ("postgres://u:p@db.example/app", "postgresql://u:p@db.example/app"),
        ("postgresql://u:p@db.example/app", "postgresql://u:p@db.example/app"),
        ("postgresql+psycopg://u@db.example/app", "postgresql+psycopg://u@db.example/app"),
        ("postgres", "postgres"),
    ],
)
def test_where_the_database_is(given: str | None, expected: str) -> None:
    assert database_url({} if given is None else {"DATABASE_URL": given}) == expected


def test_the_environment_names_the_database(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    assert open_database().url.database == open_database(url).url.database


def test_settings_for_several_processes(sqlite_url: str) -> None:
    with open_database(sqlite_url).connect() as connection:
        settings = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "busy_timeout", "synchronous", "foreign_keys")
        }
    assert settings == {"journal_mode": "wal", "busy_timeout": 30_000, "synchronous": 1, "foreign_keys": 1}


def test_a_database_that_was_deleted_and_made_anew_is_not_written_to_where_nobody_reads(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    of_a_warm_horse = open_database(url)
    create_schema(of_a_warm_horse)
    for path in tmp_path.iterdir():
        path.unlink()
    create_schema(open_database(url))
    with session_factory(of_a_warm_horse).begin() as session:
        session.add(Campaign(name="x", from_number="+1"))
    with open_database(url).connect() as connection:
        assert connection.execute(select(Campaign.name)).scalars().all() == ["x"]


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_is_spoken_to_through_psycopg(postgres: PostgresServer, scheme: str) -> None:
    with postgres.database() as url:
        engine = open_database(url.replace("postgresql+psycopg", scheme))
        assert (engine.dialect.name, engine.dialect.driver) == ("postgresql", "psycopg")
        engine.dispose()


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("sqlite:///{folder}/missing/app.db", "unable to open"),
        ("sqlite:///{folder}", "unable to open"),
        ("sqlite:///{folder}/letter.txt", "not a database"),
        ("dbase://user:s3cret@host/app", "'dbase'"),
        ("oracle+cx_oracle://user:s3cret@host/app", "driver is not installed"),
        ("just some text with s3cret", "DATABASE_URL"),
        ("postgresql://user:s3cret@host:port/app", "DATABASE_URL"),
        ("://s3cret@host", "DATABASE_URL"),
        ("postgres://user:s3cret@127.0.0.1:1/app?password=s3cret", "cannot be opened"),
    ],
)
def test_what_cannot_be_opened_is_one_line_without_the_password(tmp_path: Path, url: str, line: str) -> None:
    (tmp_path / "letter.txt").write_text("Dear customer,\n" * 100)
    with pytest.raises(ConfigError) as failure:
        open_database(url.format(folder=tmp_path))
    message = str(failure.value)
    assert line in message
    assert "\n" not in message and "s3cret" not in message


def test_jobs_wait_for_a_server_that_is_started_again(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket, away = postgres.directory / f".s.PGSQL.{PORT}", postgres.directory / "away"
    waited: list[float] = []

    def come_back(seconds: float) -> None:
        waited.append(seconds)
        away.rename(socket)

    with postgres.database() as url:
        engine = open_database(url, patient=True)
        engine.dispose()
        socket.rename(away)
        try:
            with pytest.raises(ConfigError, match="cannot be opened"):
                open_database(url)
            monkeypatch.setattr("jobs.database.time.sleep", come_back)
            with engine.connect() as connection:
                assert connection.execute(text("SELECT 1")).scalar() == 1
        finally:
            if away.exists():
                away.rename(socket)
        engine.dispose()
    assert waited == [0.5]


def test_a_database_of_an_older_version_is_told(url: str) -> None:
    engine = open_database(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE campaigns (id INTEGER PRIMARY KEY)"))
    with pytest.raises(ConfigError, match=r"older version's: its table campaigns has no column \w+; delete it"):
        create_schema(engine)
    engine.dispose()


def test_moments_come_back_in_utc(database: Engine) -> None:
    there = datetime(2025, 8, 6, 12, 30, tzinfo=timezone(timedelta(hours=2)))
    with session_factory(database).begin() as session:
        session.add(Campaign(name="Frühling", from_number="+14155550100", started_at=there))
    with session_factory(database)() as session:
        campaign = session.scalars(select(Campaign)).one()
    assert campaign.started_at == there
    assert campaign.started_at.utcoffset() == timedelta(0)
    assert campaign.completed_at is None
    assert campaign.created_at.tzinfo is timezone.utc
    assert campaign.status == "pending"
    assert (campaign.customers_called, campaign.customers_failed) == (0, 0)


def test_a_moment_without_a_zone_is_refused(database: Engine) -> None:
    with session_factory(database)() as session, pytest.raises(StatementError, match="no time zone"):
        session.add(Campaign(name="x", from_number="+14155550100", started_at=datetime(2025, 8, 6)))
        session.commit()


def test_a_customer_needs_a_campaign(database: Engine) -> None:
    with session_factory(database)() as session, pytest.raises(IntegrityError):
        session.add(Customer(campaign_id=99, name="x", phone="", country="DE", language="de"))
        session.commit()


def test_a_chunk_by_key_reads_only_the_index(database: Engine) -> None:
    chunk = "SELECT * FROM customers WHERE campaign_id = 1 AND id > 5 ORDER BY id LIMIT 50"
    with database.connect() as connection:
        if database.dialect.name == "postgresql":  # which reads an empty table whole, and sorts it, if let
            for way in ("seqscan", "bitmapscan"):
                connection.execute(text(f"SET enable_{way} = off"))
            plan = str(connection.execute(text(f"EXPLAIN {chunk}")).all())
        else:
            plan = str(connection.execute(text(f"EXPLAIN QUERY PLAN {chunk}")).all())
    assert "ix_customers_campaign_id" in plan
    assert "TEMP B-TREE" not in plan and "Sort" not in plan


def _open_and_count(url: str, all_at_once: Barrier) -> None:
    all_at_once.wait()
    engine = open_database(url)
    create_schema(engine)
    for _ in range(WRITES):
        with engine.begin() as connection:
            connection.execute(update(Campaign).values(customers_called=Campaign.customers_called + 1))


@pytest.mark.parametrize("campaign_first", [True, False])
def test_several_processes_open_and_write_at_once(url: str, campaign_first: bool) -> None:
    """Nobody is refused, also when the file, or the schema, is made by all of them at once."""
    if campaign_first:
        engine = open_database(url)
        create_schema(engine)
        with session_factory(engine)() as session:
            session.add(Campaign(name="x", from_number="+14155550100"))
            session.commit()
        engine.dispose()
    fork = multiprocessing.get_context("fork")  # no connection is open here
    barrier = fork.Barrier(PROCESSES)
    processes = [fork.Process(target=_open_and_count, args=(url, barrier)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    with session_factory(open_database(url))() as session:
        counts = list(session.scalars(select(Campaign.customers_called)))
    assert counts == ([PROCESSES * WRITES] if campaign_first else [])
