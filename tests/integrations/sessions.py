"""Jobs with SQLAlchemy: module-wide sessions and engines, as Flask's tutorial and many projects have them."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any

from sqlalchemy import String, create_engine, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

engine = create_engine(os.environ["TEST_DATABASE"])
db = scoped_session(sessionmaker(engine))
plain = Session(engine)
kept: list[Any] = []
seen: list[int] = []


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)


if os.environ.get("TEST_QUERY_AT_PRELOAD"):
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))


def add(name: str) -> str:
    db.add(User(name=name))
    db.commit()
    return name


def add_plain(name: str) -> str:
    plain.add(User(name=name))
    plain.commit()
    return name


def count() -> int:
    with Session(engine) as session:
        return session.scalar(select(func.count()).select_from(User)) or 0


def backend() -> int:
    with engine.connect() as connection:
        return connection.execute(text("SELECT pg_backend_pid()")).scalar_one()


def leave_flushed() -> None:
    db.add(User(name="lost"))
    db.flush()


def leave_pending() -> None:
    """In no transaction of the database yet: the next commit would write it."""
    db.add(User(name="lost"))
    plain.add(User(name="lost too"))


def leave_failed(name: str) -> None:
    db.add(User(name=name))
    plain.add(User(name=name))
    with contextlib.suppress(IntegrityError):
        plain.flush()
    db.flush()


def leave_settings() -> None:
    db.execute(text("SELECT 1"))
    db().autoflush = False
    db().info["tenant"] = 7


def settings() -> list[Any]:
    return [db().autoflush, dict(db().info)]


def leave_core() -> None:
    connection = engine.connect()
    kept.append(connection)
    connection.execute(User.__table__.insert().values(name="lost"))


def leave_in_other_thread() -> None:
    """A thread that has ended leaves a session; one that goes on keeps its own."""

    def begin() -> None:
        session = Session(engine)
        kept.append(session)
        session.add(User(name="lost"))
        session.flush()

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()


def horse() -> int:
    return os.getpid()
