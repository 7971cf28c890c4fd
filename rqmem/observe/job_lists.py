"""Jobs of one state, page by page: RQ's queues and registries by id. Changes nothing, and deserialises nothing.

The cost does not depend on how many jobs there are, nor on how far a page is from the first. A page takes one command
for each queue, and some more.

A cursor names the last job that was shown of each queue. Jobs that come or go meanwhile neither repeat others nor hide
them. Where the named job itself has gone, the page begins where it was.
"""

from __future__ import annotations

import heapq
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from math import isnan
from typing import Any, NamedTuple, cast

from redis import Redis

from rqmem.errors import ConfigError
from rqmem.observe.model import STATES, JobPage, JobRow, State
from rqmem.observe.rq_jobs import ENDED_BADLY, read_jobs
from rqmem.rq_names import Queue, parse_composite_key
from rqmem.store.queue_waits import queues_of
from rqmem.values import dataclass

MOST_ROWS = 200
LOOKED_AT = 1000
"""How many jobs one page with a filter compares with it."""

_AT_ONCE = 200
_ROW_BYTES = 2000  # of each text in a list


class _Place(NamedTuple):
    """The last job of a queue that was shown: its position, its member in the registry, and its score there."""

    position: int
    member: str
    score: float


@dataclass(frozen=True)
class _Entry:
    """A job in the list of a queue. ``order``: lists of several queues are merged by it."""

    order: tuple[float, float]
    queue: str
    job_id: str
    place: _Place


@dataclass(frozen=True)
class Filter:
    """Which jobs of a state are meant. Empty: any.

    Attributes:
        job_type: the whole dotted path.
        error: is in the line that says what was raised, in any case of letters.
    """

    queue: str = ""
    job_type: str = ""
    error: str = ""

    @property
    def compares(self) -> bool:
        """Whether jobs must be read to know."""
        return bool(self.job_type or self.error)

    def takes(self, row: JobRow) -> bool:
        return (not self.job_type or row.job_type == self.job_type) and self.error.lower() in row.error.lower()


ANY = Filter()


def read_page(connection: Redis, state: State, wanted: Filter = ANY, *, cursor: str = "", limit: int = 20) -> JobPage:
    """Up to ``limit`` jobs of this state after the cursor.

    Raises:
        ConfigError: there is no such state, the limit is not from 1 to 200, or the cursor is none of ours.
    """
    lists = _Lists(connection, state, wanted.queue)
    if not 1 <= limit <= MOST_ROWS:
        raise ConfigError(f"limit is {limit}: give a number from 1 to {MOST_ROWS}")
    places = _decoded(cursor)
    rows: list[JobRow] = []
    compared, more = 0, True
    while more and len(rows) < limit and compared < LOOKED_AT:
        entries = lists.after(places, _AT_ONCE if wanted.compares else limit)
        more = bool(entries)
        for entry, row in zip(entries, lists.rows(entries), strict=True):
            compared += 1
            places[entry.queue] = entry.place
            if row is not None and wanted.takes(row):
                rows.append(row)
                if len(rows) == limit:
                    break
    more = more and bool(lists.after(places, 1))
    total = None if wanted.compares else lists.total
    return JobPage(state, tuple(rows), total, _encoded(places) if more else "", compared if wanted.compares else 0)


def each_id(connection: Redis, state: State, wanted: Filter) -> Iterator[str]:
    """The ids of all jobs of this state that the filter takes, read as they are asked for. Raises `ConfigError`."""
    lists, places = _Lists(connection, state, wanted.queue), cast("dict[str, _Place]", {})
    while entries := lists.after(places, _AT_ONCE):
        for entry, row in zip(entries, lists.rows(entries) if wanted.compares else entries, strict=True):
            places[entry.queue] = entry.place
            if row is not None and (not isinstance(row, JobRow) or wanted.takes(row)):
                yield entry.job_id


def count_matching(connection: Redis, state: State, wanted: Filter) -> int:
    """How many jobs of this state the filter takes; with a type or an error all jobs are read. Raises `ConfigError`."""
    if wanted.compares:
        return sum(1 for _ in each_id(connection, state, wanted))
    lists = _Lists(connection, state, wanted.queue)
    lists.after({}, 1)
    return lists.total


class _Lists:
    """RQ's lists of one state, of one queue or of all."""

    def __init__(self, connection: Redis, state: State, queue: str) -> None:
        if state not in STATES:
            raise ConfigError(f"state is {state!r}: give one of {', '.join(STATES)}")
        self._connection, self._state = connection, state
        queues = [Queue(queue, connection=connection)] if queue else queues_of(connection)
        named = sorted((each.name, each) for each in queues)
        self._keys: dict[str, str] = {
            name: each.key if state == "queued" else getattr(each, f"{state}_job_registry").key for name, each in named
        }
        self.total = 0

    def after(self, places: dict[str, _Place], count: int) -> list[_Entry]:
        """The next ``count`` entries of all queues together; ``total`` is set."""
        begins = self._begins(places)
        with self._connection.pipeline(transaction=False) as pipeline:
            for name, key in self._keys.items():
                begin = begins[name]
                if self._state == "queued":
                    pipeline.llen(key)
                    pipeline.lrange(key, begin, begin + count - 1)
                else:
                    pipeline.zcard(key)
                    newest_first = self._state != "scheduled"
                    pipeline.zrange(key, begin, begin + count - 1, desc=newest_first, withscores=True)
            answers = pipeline.execute()
        self.total = sum(answers[::2])
        merged = heapq.merge(
            *(self._entries(name, begins[name], found) for name, found in zip(self._keys, answers[1::2], strict=True)),
            key=lambda entry: entry.order,
        )
        return list(islice(merged, count))

    def rows(self, entries: Sequence[_Entry]) -> list[JobRow | None]:
        """As RQ has them; of one that it has forgotten, its id alone."""
        ids = [entry.job_id for entry in entries]
        known = read_jobs(self._connection, ids, errors=self._state in ENDED_BADLY, most_bytes=_ROW_BYTES)
        return [self._row(entry, row) for entry, row in zip(entries, known, strict=True)]

    def _row(self, entry: _Entry, row: JobRow | None) -> JobRow:
        if row is None:
            return JobRow(entry.job_id, "", "", "", entry.queue)
        if self._state == "queued":
            return replace(row, position=entry.place.position)
        return replace(row, due_at=entry.place.score) if self._state == "scheduled" else row

    def _begins(self, places: dict[str, _Place]) -> dict[str, int]:
        """Queue -> the index of the first entry after what was shown of it."""
        begins = dict.fromkeys(self._keys, 0)
        shown = [(name, places[name]) for name in self._keys if name in places]
        with self._connection.pipeline(transaction=False) as pipeline:
            for name, place in shown:
                self._ask_where(pipeline, self._keys[name], place)
            answers = pipeline.execute()
        if self._state == "queued":
            for (name, place), index in zip(shown, answers, strict=True):
                begins[name] = place.position if index is None else index + 1
            return begins
        for (name, place), (rank, before, with_ties) in zip(shown, zip(*[iter(answers)] * 3, strict=True), strict=True):
            begins[name] = min(max(place.position, before), with_ties) if rank is None else rank + 1
        return begins

    def _ask_where(self, pipeline: Any, key: str, place: _Place) -> None:
        if self._state == "queued":
            pipeline.lpos(key, place.member)
        elif self._state == "scheduled":
            pipeline.zrank(key, place.member)
            pipeline.zcount(key, "-inf", f"({place.score}")
            pipeline.zcount(key, "-inf", place.score)
        else:
            pipeline.zrevrank(key, place.member)
            pipeline.zcount(key, f"({place.score}", "+inf")
            pipeline.zcount(key, place.score, "+inf")

    def _entries(self, name: str, begin: int, found: Iterable[Any]) -> Iterator[_Entry]:
        for index, each in enumerate(found, start=begin):
            raw, score = (each, 0.0) if self._state == "queued" else each
            member = raw.decode(errors="replace")
            job_id = parse_composite_key(member)[0] if self._state == "started" else member
            order = {"queued": (index, 0.0), "scheduled": (score, index)}.get(self._state, (-score, index))
            yield _Entry(order, name, job_id, _Place(index, member, score))


def _encoded(places: dict[str, _Place]) -> str:
    return urlsafe_b64encode(json.dumps(places, separators=(",", ":")).encode()).decode().rstrip("=")


def _decoded(cursor: str) -> dict[str, _Place]:
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)) if cursor else b"{}"
        places = {
            str(name): _Place(int(index), str(member), float(score))
            for name, (index, member, score) in json.loads(text).items()
        }
        if any(isnan(each.score) for each in places.values()):
            raise ValueError("no score is not a number")
        return places
    except (ValueError, TypeError, AttributeError):
        raise ConfigError("that cursor is none that an answer gave: begin without one") from None
