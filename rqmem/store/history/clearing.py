"""Clearing the journal, or one job type of it. Running and resumable jobs need nothing of it.

Keys are found by SCAN and removed by UNLINK, some hundreds at a time, so that Redis can serve others meanwhile. Entries
that workers write at the same time may be kept or lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import cast

from redis import Redis

from rqmem.store import keys
from rqmem.store.alerts.alert_records import Alert
from rqmem.store.history import history_reader, history_writer
from rqmem.store.scripts import of_each

_AT_ONCE = 500


def clear(connection: Redis) -> int:
    """Clear a journal of any version and begin a new one. Returns the number of keys removed."""
    removed = sum(_unlink(connection, _scan(connection, pattern)) for pattern in keys.JOURNAL_PATTERNS)
    history_writer.version_is_ours(connection)  # running workers looked at the mark when they started
    return removed


def clear_type(connection: Redis, job_type: str) -> int:
    """Clear runs, figures and alerts of a job type, and stories of its jobs. Returns the number of keys removed.

    Raises:
        JournalVersionError: the journal is of another version, and can only be cleared as a whole.
    """
    history_reader.check_version(connection)
    removed = sum(_unlink(connection, _scan(connection, pattern)) for pattern in keys.of_type(job_type))
    for of_job in (each for each in keys.TABLE if "story" in each.forgotten):
        names = list(_about(connection, _scan(connection, of_job("*")), job_type))
        removed += _unlink(connection, names)
        for batch in _batches(name.removeprefix(of_job("").encode()) for name in names):
            connection.zrem(keys.STORIES, *batch)
    _forget_alerts(connection, job_type)
    connection.zrem(keys.TYPES, job_type)
    return removed


def _scan(connection: Redis, pattern: str) -> Iterator[bytes]:
    yield from cast("Iterator[bytes]", connection.scan_iter(pattern, count=_AT_ONCE))


def _unlink(connection: Redis, names: Iterable[bytes]) -> int:
    removed = 0
    for batch in _batches(names):
        removed += connection.unlink(*batch)
    return removed


def _about(connection: Redis, lists: Iterable[bytes], job_type: str) -> Iterator[bytes]:
    """The lists (stories, breaches) whose first entry is about this job type."""
    for batch in _batches(lists):
        for name, first in zip(batch, of_each(connection, Redis.lindex, batch, 0), strict=True):
            if first is not None and json.loads(first).get("job") == job_type:
                yield name


def _forget_alerts(connection: Redis, job_type: str) -> None:
    ended = [each.field for each in history_reader.open_alerts(connection) if each.job == job_type]
    if ended:
        connection.hdel(keys.OPEN_ALERTS, *ended)
    after = "-"
    while True:
        found = connection.xrange(keys.ALERTS, after, "+", _AT_ONCE)
        entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", found)
        ours = [entry_id for entry_id, entry in entries if Alert.from_entry(entry_id, entry).job == job_type]
        if ours:
            connection.xdel(keys.ALERTS, *ours)
        if len(entries) < _AT_ONCE:
            return
        after = f"({entries[-1][0].decode()}"


def _batches(names: Iterable[bytes]) -> Iterator[list[bytes]]:
    rest = iter(names)
    while batch := list(islice(rest, _AT_ONCE)):
        yield batch
