"""A job that imports SQLAlchemy when it runs, and leaves a transaction."""

from __future__ import annotations


def leave_flushed() -> None:
    from tests.integrations import sessions

    sessions.leave_flushed()
