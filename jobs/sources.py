"""The customers of a campaign as a source: by key, a page at a time, cut into slices that child jobs open again.

All of them, also those who have been called: what a source selects must not change while it is read. The reader decides
who is still to be called.
"""

from __future__ import annotations

from functools import cache

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from jobs.database import database_url, open_sessions
from jobs.tables import Customer
from rqmem.sources import SqlRows


def customers_of(campaign_id: int) -> SqlRows:
    """The customers of a campaign, by id. Raises `ConfigError` as `shared_sessions`."""
    return SqlRows.from_factory("jobs.sources:customers_here", campaign_id=campaign_id)


def customers_here(campaign_id: int) -> SqlRows:
    """The same, as made in each process that opens a slice of them."""
    return SqlRows(shared_sessions(), select(Customer).where(Customer.campaign_id == campaign_id))


def shared_sessions() -> sessionmaker[Session]:
    """Sessions on one engine for all jobs of this process; to be called after the fork, in jobs alone.

    Raises `ConfigError` as `jobs.database.open_sessions`.
    """
    return _sessions_on(database_url())


@cache
def _sessions_on(url: str) -> sessionmaker[Session]:
    return open_sessions(url, patient=True)
