"""Reading from code what the commands show: workers, hosts, queues, jobs, job types, splits and alerts.

    import rqmem.api

    for worker in rqmem.api.workers():
        print(worker.name, worker.kind, worker.usage_mb, worker.ceiling_mb)
    print(rqmem.api.job("1f3a9c20").to_json()["next"])

All functions only read, and return frozen values. ``to_json()`` of a value is what the command prints for it with
``--json``; docs/reference/json.md explains the names. ``connection`` is a connection to Redis; without one, the Redis
is chosen as for ``enqueue``, and no server is started.

Raises:
    RedisUnavailable: no Redis is named, or it does not answer.
    JournalVersionError: another version of rqmem wrote the journal.
    UnknownName: there is no such job.
    ConfigError: ``since`` cannot be understood, or ``connection`` is not a connection to Redis.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from rqmem.config.load import load
from rqmem.config.parsers import moment
from rqmem.connection.connect import in_bytes
from rqmem.errors import ConfigError, RedisUnavailable
from rqmem.job.defaults import default_connection
from rqmem.observe.accounts import Tenant
from rqmem.observe.as_json import of_story
from rqmem.observe.find import find
from rqmem.observe.find import search as find_all
from rqmem.observe.job import Case
from rqmem.observe.job_lists import Filter, read_page
from rqmem.observe.job_read import read_case, read_ended_splits, read_splits
from rqmem.observe.model import (
    EndedSplitJob,
    Found,
    Host,
    JobPage,
    JobRow,
    JobType,
    KnownAlert,
    Pool,
    Queue,
    Snapshot,
    SplitJob,
    State,
    Worker,
)
from rqmem.observe.period_read import read_tenants
from rqmem.observe.snapshot import read_alerts, read_snapshot, with_job_types
from rqmem.observe.vocabulary import versioned
from rqmem.store.actions import ActionRecord
from rqmem.store.actions import read as read_actions
from rqmem.store.history.history_reader import check_version
from rqmem.store.retrying import described
from rqmem.values import dataclass

__all__ = [
    "Action", "EndedSplitJob", "Found", "Host", "Job", "JobPage", "JobRow", "JobType", "KnownAlert", "Pool", "Queue",
    "SplitJob", "Tenant", "Worker", "actions", "alerts", "ended_splits", "hosts", "job", "job_types", "jobs", "pools",
    "queues", "search", "splits", "tenants", "workers",
]  # fmt: skip


@dataclass(frozen=True)
class Job(Case):
    """All that is known of one job. Sizes are in MB, times in epoch seconds."""

    def to_json(self) -> dict[str, Any]:
        """What ``rqmem inspect --json`` prints."""
        return of_story(self)


@dataclass(frozen=True)
class Action(ActionRecord):
    """Something that a person did with a job or a queue, by the command line or the dashboard."""

    def to_json(self) -> dict[str, Any]:
        return versioned(**vars(self))


def workers(*, connection: Redis | None = None) -> list[Worker]:
    """The workers that are registered with RQ, by name."""
    return list(_snapshot(connection).workers)


def hosts(*, connection: Redis | None = None) -> list[Host]:
    """The machines that those workers run on, by name; without workers whose heartbeat is gone."""
    return _snapshot(connection).hosts


def pools(*, connection: Redis | None = None) -> list[Pool]:
    """The pools whose workers share a budget, by name, and what it is used for."""
    return list(_snapshot(connection).pools)


def queues(*, connection: Redis | None = None) -> list[Queue]:
    """The queues that RQ knows, by name."""
    return list(_snapshot(connection).queues)


def job(job_id: str, *, connection: Redis | None = None) -> Job:
    """One job, running or ended. The beginning of its id is enough if no other id begins with it."""
    with _reading(connection) as redis:
        return Job(**vars(read_case(redis, find(redis, job_id), time.time())))


def job_types(since: str | datetime = "1h", *, connection: Redis | None = None) -> list[JobType]:
    """What happened to job types since then, the busiest first.

    Args:
        since: how long ago, as in ``"90s"``, ``"24h"`` or ``"7d"``, or a time. The journal counts by the hour for two
            days and by the day for 30, so the time begins with one of those.
    """
    with _reading(connection) as redis:
        check_version(redis)
        threshold = load(os.environ).config.warning_threshold
        return list(with_job_types(redis, read_snapshot(redis, time.time()), _moment(since), threshold).job_types)


def splits(*, connection: Redis | None = None) -> list[SplitJob]:
    """Jobs that have split and whose children have not all ended, with how far those are."""
    with _reading(connection) as redis:
        return read_splits(redis, time.time())


def ended_splits(*, connection: Redis | None = None) -> list[EndedSplitJob]:
    """The last 200 jobs whose children have all ended, the latest first."""
    with _reading(connection) as redis:
        return read_ended_splits(redis)


def jobs(
    state: State = "failed",
    *,
    queue: str = "",
    job_type: str = "",
    error: str = "",
    cursor: str = "",
    limit: int = 20,
    connection: Redis | None = None,
) -> JobPage:
    """A page of the jobs that RQ has in one state: next to run, next due, or last ended first.

    Args:
        state: ``"queued"``, ``"started"``, ``"deferred"``, ``"scheduled"``, ``"failed"``, ``"finished"`` or
            ``"canceled"``.
        queue, job_type: only of this queue, of this type; empty: of any.
        error: only where the line that says what was raised has this text in it.
        cursor: of the page before; empty: from the first.
        limit: the highest number of them, up to 200.

    Raises `ConfigError` for a state, a cursor or a limit that there is not.
    """
    with _reading(connection) as redis:
        return read_page(redis, state, Filter(queue, job_type, error), cursor=cursor, limit=limit)


def search(text: str, *, limit: int = 20, connection: Redis | None = None) -> Found:
    """Ids that are or begin with this text, and job types that have it in their path."""
    with _reading(connection) as redis:
        check_version(redis)
        return find_all(redis, text, limit)


def actions(limit: int = 100, *, job_id: str = "", connection: Redis | None = None) -> list[Action]:
    """What people did with jobs and queues, newest first; 1,000 are kept. ``job_id``: only with this job."""
    with _reading(connection) as redis:
        return [Action(**vars(each)) for each in read_actions(redis, limit, job_id)]


def tenants(since: str | datetime = "24h", *, connection: Redis | None = None) -> list[Tenant]:
    """What each tenant used since then, those who used most first; 200 are kept. ``since`` as in `job_types`.

    A class says with ``tenant = "argument"`` which argument names the tenant of a job.
    """
    with _reading(connection) as redis:
        check_version(redis)
        return read_tenants(redis, _moment(since), time.time())


def alerts(since: str | datetime = "24h", *, connection: Redis | None = None) -> list[KnownAlert]:
    """Alerts since then, and older ones that are still open, oldest first. ``since`` as in `job_types`."""
    after = _moment(since)
    with _reading(connection) as redis:
        check_version(redis)
        return [each for each in read_alerts(redis) if each.at >= after or each.open]


def _snapshot(connection: Redis | None) -> Snapshot:
    with _reading(connection) as redis:
        return read_snapshot(redis, time.time())


@contextmanager
def _reading(connection: Redis | None) -> Iterator[Redis]:
    """The connection to read from; an error of redis-py becomes `RedisUnavailable`."""
    if connection is not None and not isinstance(connection, Redis):
        raise ConfigError(f"connection={connection!r} is no connection to Redis: give a redis.Redis")
    try:
        yield default_connection() if connection is None else in_bytes(connection)
    except (RedisError, OSError) as error:
        raise RedisUnavailable(f"Redis does not answer, or refuses: {described(error)}") from error


def _moment(since: str | datetime) -> float:
    if isinstance(since, datetime):
        return since.timestamp()
    if not isinstance(since, str):
        raise ConfigError(f"since={since!r}: give a text, as in '24h', or a datetime")
    return moment(since, "since", time.time())
