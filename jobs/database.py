"""The database of the reference application: how to open it, and its schema (`jobs.tables`).

SQLite is the default (one file, several processes); ``DATABASE_URL`` names another. There are no
migrations: a database of an older schema is deleted and seeded again.

An engine belongs to one process. Make it after the fork, inside the job: a connection carried over
a fork is used by two processes at once, which breaks PostgreSQL's protocol and SQLite's locks.

On SQLite a transaction starts with its first write, not with a read, and a write waits up to 30
seconds for other writers. Read, then write; a half-read result kept open across a write can make it
fail at once ("database is locked"). On PostgreSQL it starts with the first statement, and a write waits
for those who change the same rows.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from sqlalchemy import MetaData, create_engine, event, func, inspect, select
from sqlalchemy.engine import URL, Dialect, Engine, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.schema import CreateIndex, CreateTable

from jobs.tables import Base, Campaign
from rqmem.errors import ConfigError

DEFAULT_URL = "sqlite:///rqmem-app.db"
BUSY_SECONDS = 30
CONNECT_SECONDS = 10
PREPARED = 16
"""Statements that a SQLite connection keeps prepared. Each keeps the values last bound to it, and INSERTs of another
number of rows are other statements: Python's 128 took 8 MB more after a million calls in chunks of a thousand."""
SCHEMA_LOCK = 0x72716D656D  # one number for all processes of this application


def database_url(environ: Mapping[str, str] = os.environ) -> str:
    """``DATABASE_URL``, else a SQLite file in the current directory.

    ``postgres://``, as hosting services write it, becomes the ``postgresql://`` that SQLAlchemy
    knows. Its driver is psycopg, the extra ``postgres``, unless the URL names another (``postgresql+pg8000://``).
    """
    url = environ.get("DATABASE_URL", "").strip() or DEFAULT_URL
    scheme, separator, rest = url.partition("://")
    return f"postgresql://{rest}" if separator and scheme == "postgres" else url


def open_database(url: str | None = None, *, patient: bool = False) -> Engine:
    """An engine for ``url`` (by default `database_url`) that has been connected to once.

    ``patient``: a server that cannot be reached is waited for, now and whenever the engine connects again.

    Raises `ConfigError`, in one line without the password, when it cannot be opened. The schema is
    not looked at: that is `create_schema`.
    """
    parsed = _parse(database_url({"DATABASE_URL": url}) if url else database_url())
    engine: Engine | None = None
    try:
        engine = _engine(parsed)
        if patient and parsed.get_backend_name() != "sqlite":
            event.listen(engine, "do_connect", _wait_for_server)
        engine.connect().close()
    except NoSuchModuleError as error:
        raise ConfigError(
            f"database {_shown(parsed)}: SQLAlchemy knows no database {parsed.drivername!r}; "
            "use sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
        ) from error
    except ImportError as error:
        raise ConfigError(
            f"database {_shown(parsed)}: its driver is not installed ({error}); "
            "install it with pip, for PostgreSQL by the extra: rqmem[postgres]"
        ) from error
    except (SQLAlchemyError, sqlite3.Error, OSError, TypeError, ValueError) as error:
        if engine is not None:
            engine.dispose()
        raise ConfigError(
            f"database {_shown(parsed)} cannot be opened: {_reason(error, parsed)}; check DATABASE_URL"
        ) from error
    return engine


def create_schema(engine: Engine, metadata: MetaData = Base.metadata) -> None:
    """Create the tables and indexes that are missing. Safe when several processes do it at once.

    Args:
        metadata: of the tables; by default the application's.

    Raises:
        ConfigError: a table lacks a column, since it is an older version's.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            # Its IF NOT EXISTS looks first and creates then: two at once would both create.
            connection.execute(select(func.pg_advisory_xact_lock(SCHEMA_LOCK)))
        for table in metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
            there = {column["name"] for column in inspect(connection).get_columns(table.name)}
            if missing := [column.name for column in table.columns if column.name not in there]:
                raise ConfigError(
                    f"database {_shown(engine.url)} is an older version's: its table {table.name} has no column "
                    f"{missing[0]}; delete it, or name another in DATABASE_URL, and seed again"
                )
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                connection.execute(CreateIndex(index, if_not_exists=True))


def session_factory(engine: Engine) -> sessionmaker[Session]:
    """Sessions whose objects stay readable after a commit, without a query for each."""
    return sessionmaker(engine, expire_on_commit=False)


def open_sessions(url: str | None = None, *, patient: bool = False) -> sessionmaker[Session]:
    """Sessions on a database that has been seeded. Raises `ConfigError` as `open_database` does, or for no tables."""
    engine = open_database(url, patient=patient)
    if not inspect(engine).has_table(Campaign.__tablename__):
        raise ConfigError(f"database {_shown(engine.url)} has no tables yet: python -m seeds.campaign makes them")
    return session_factory(engine)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        return parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed
    except (ArgumentError, ValueError):
        # The text is not repeated and the cause is cut off: either may hold a password.
        raise ConfigError(
            "DATABASE_URL is not a database URL; use sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
        ) from None


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS, "cached_statements": PREPARED})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "checkout", _refuse_another_file)
        return engine
    # A warm horse keeps its engine for hours: a connection that the server closed is replaced.
    return create_engine(url, pool_pre_ping=True, connect_args=_connect_args(url))


def _wait_for_server(dialect: Dialect, _record: object, args: list[Any], kwargs: dict[str, Any]) -> object:
    """Connect, and try again for `BUSY_SECONDS`. Else all jobs and their retries would fail while a server restarts."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return dialect.connect(*args, **kwargs)
        except dialect.loaded_dbapi.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _connect_args(url: URL) -> dict[str, Any]:
    """A limit on waiting for a host that does not answer, for drivers that speak libpq's options."""
    libpq = url.get_backend_name() == "postgresql" and url.get_driver_name() in ("psycopg", "psycopg2")
    return {"connect_timeout": CONNECT_SECONDS} if libpq and "connect_timeout" not in url.query else {}


def _set_up_sqlite(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
    """Settings for several processes on one file. The timeout comes first: the others may wait."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    _switch_to_wal(cursor)
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    record.info["path"] = cursor.execute("PRAGMA database_list").fetchone()[2]
    cursor.close()
    record.info["file"] = _identity(record.info["path"])


def _refuse_another_file(_connection: object, record: ConnectionPoolEntry, _proxy: object) -> None:
    """A warm horse keeps its engine for hours. A database that was deleted and seeded again meanwhile is another file,
    and what is written to the old one is lost: connect again.
    """
    if _identity(record.info["path"]) != record.info["file"]:
        raise DisconnectionError(f"{record.info['path']} is another file than before")


def _identity(path: str) -> tuple[int, int] | None:
    """Of the file there; None: there is none, or the database is in memory."""
    if not path:
        return None
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _switch_to_wal(cursor: sqlite3.Cursor) -> None:
    """Readers and a writer at the same time. Kept in the file, so only the first process changes it.

    SQLite does not wait for the busy timeout when two processes make this change at once: one of
    them fails at once with "database is locked", so it tries again.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _shown(url: URL) -> str:
    """The URL for people: without the password, and without the query, which may hold one too."""
    return url.set(query={}).render_as_string(hide_password=True)


def _reason(error: BaseException, url: URL) -> str:
    """What the driver said: one line, without the password."""
    cause = getattr(error, "orig", None) or error
    reason = " ".join(str(cause).split()) or type(cause).__name__
    for secret in {url.password, url.query.get("password")} - {None, ""}:
        for text in {str(secret), quote(str(secret), safe=""), quote_plus(str(secret))}:
            reason = reason.replace(text, "***")
    return reason if len(reason) <= 300 else reason[:297] + "..."
