"""Calls enqueued in batches, as they come: what is behind ``enqueue_many``.

A batch of 500 calls is checked, and written in one transaction (`rqmem.store.new_jobs`). So a generator of a million
calls needs the memory of 500. Whatever happens in the middle, the jobs of a batch are there with all that belongs to
them, or none of them is.

Jobs that RQ can only enqueue one by one are: those with a ``rate_limit``, and all of a queue whose class has its own
way to enqueue (that of django-rq waits for the commit of the database), or which runs its jobs at once.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

from redis.exceptions import NoPermissionError, RedisError

from rqmem.errors import ConfigError, RedisUnavailable, RqmemError
from rqmem.job.per_type import UNIQUE_ID
from rqmem.rq_names import DuplicateJobError, EnqueueData, JobStatus, Queue, now
from rqmem.store.new_jobs import BatchWriter, Maker, NewJob, new_job
from rqmem.store.permission import explained
from rqmem.store.retrying import described, note, unavailable
from rqmem.store.unique_jobs import make_way

_BATCH = 500
_BATCH_BYTES = 4_000_000
_PATIENCE_SECONDS, _PAUSE_SECONDS = 30.0, 0.2
_OF_THE_QUEUE = ("connection", "serializer", "pipeline")
_OWN_WAYS = (
    *("enqueue", "enqueue_at", "enqueue_call", "enqueue_job", "schedule_job", "create_job", "setup_dependencies"),
    *("push_job_id", "enqueue_many"),
)


class Call(NamedTuple):
    """One call, as `rq.Queue.enqueue` takes it: ``enqueue(function, **options)``."""

    function: Any
    options: dict[str, Any]


ReadCall = Callable[[Any], Call]
"""From an element of what the user gave. Raises `ConfigError`, or what RQ raises for an option it does not take."""


def arguments_of_call(given: Any, common: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(given, EnqueueData) or not isinstance(given, Mapping | tuple | list):
        raise ConfigError(
            "the arguments of a call are a mapping, as in {'month': 5}, or a tuple of positional ones, as in (5,)"
        )
    args, kwargs = ((), {**common, **given}) if isinstance(given, Mapping) else (tuple(given), dict(common))
    if named := [name for name in _OF_THE_QUEUE if name in kwargs]:
        raise ConfigError(f"{named[0]} is not an option of one call: all of them go to the same queue")
    return args, kwargs


def enqueue_calls(queue: Queue, calls: Iterable[Any], read: ReadCall, at: datetime | timedelta | None) -> int:
    """What `rqmem.enqueue_many` does, for any kind of elements."""
    if isinstance(calls, str | bytes | Mapping) or not isinstance(calls, Iterable):
        raise ConfigError(f"enqueue_many takes the calls as an iterable: {calls!r:.100} is none")
    if not (at is None or isinstance(at, datetime | timedelta)):
        raise ConfigError(f"at={at!r:.100}: give a datetime, or a timedelta from now")
    when = now() + at if isinstance(at, timedelta) else at
    many = _Many(queue, read, when)
    if isinstance(calls, Collection) and len(calls) > _BATCH:  # it can be read twice
        many.check(calls)
    return many.enqueue(calls)


class _Many:
    def __init__(self, queue: Queue, read: ReadCall, at: datetime | None) -> None:
        self._queue, self._read, self._at = queue, read, at
        self._maker = Maker(queue, JobStatus.QUEUED if at is None else JobStatus.SCHEDULED)
        self._batches = BatchWriter(queue, uuid.uuid4().hex)
        own_way = any(getattr(type(queue), name) is not getattr(Queue, name, None) for name in _OWN_WAYS)
        self._one_by_one = own_way or not queue.is_async
        self._enqueued = 0

    def check(self, calls: Iterable[Any]) -> None:
        """Raise `ConfigError` for the first that cannot be enqueued."""
        ids: set[str] = set()
        for number, element in enumerate(calls):
            self._made(number, element, ids)

    def enqueue(self, calls: Iterable[Any]) -> int:
        numbered = enumerate(calls)
        while chunk := list(islice(numbered, _BATCH)):
            ids: set[str] = set()
            made = [self._made(number, element, ids) for number, element in chunk]
            batch: list[NewJob] = []
            size = 0
            for call, job in made:
                if job is None:
                    self._write(batch)
                    batch, size = [], 0
                    self._single(call)
                    continue
                batch.append(job)
                size += len(job.fields["data"])
                if size > _BATCH_BYTES:
                    self._write(batch)
                    batch, size = [], 0
            self._write(batch)
        return self._enqueued

    def _made(self, number: int, element: Any, ids: set[str]) -> tuple[Call, NewJob | None]:
        """The call, and its job; None: it cannot be part of a batch. ``ids``: of other jobs, to add its own to."""
        try:
            call = self._read(element)
            job = self._new(call)
            if job is not None and call.options.get("job_id") is not None:
                if job.job.id in ids and not UNIQUE_ID.fullmatch(job.job.id):
                    raise ConfigError(f"another call has the job id {job.job.id!r}")
                ids.add(job.job.id)
        except Exception as error:  # of the caller's values: RQ raises some kinds, pickle many
            if isinstance(error, RedisError):
                raise
            what = str(error) if isinstance(error, RqmemError) else f"{error} ({type(error).__name__})"
            before = f"; {self._enqueued:,} jobs before it are enqueued" if self._enqueued else "; nothing is enqueued"
            raise ConfigError(f"calls[{number}], {_shown(element)}: {what}{before}") from error
        return call, job

    def _new(self, call: Call) -> NewJob | None:
        options = dict(call.options)
        at_front, unique = bool(options.pop("at_front", False)), bool(options.pop("unique", False))
        rate_limit = options.pop("rate_limit", None)
        if unique and not options.get("job_id"):
            raise ConfigError("unique=True needs a job_id")
        if unique and (rate_limit or (options.get("depends_on") and self._at is None)):
            raise ConfigError("unique=True goes neither with depends_on nor with rate_limit")
        made = new_job(self._maker.job(call.function, options), at_front, self._at, unique)
        return None if rate_limit or self._one_by_one else made

    def _single(self, call: Call) -> None:
        try:
            if self._at is None:
                self._queue.enqueue(call.function, **call.options)
            else:
                self._queue.enqueue_at(self._at, call.function, **call.options)
        except DuplicateJobError:
            return
        except RedisError as error:
            raise self._unavailable(error, 1) from error
        self._enqueued += 1

    def _write(self, batch: list[NewJob]) -> None:
        """Write a batch, also where Redis is away for a moment. Before the first batch nobody waits for it."""
        if not batch:
            return
        until = time.monotonic() + (_PATIENCE_SECONDS if self._enqueued else 0)
        last = made_way = False
        while True:
            try:
                if not made_way:
                    ids = [each.job.id for each in batch if each.unique and UNIQUE_ID.fullmatch(each.job.id)]
                    make_way(self._queue.connection, *ids)
                    made_way = True
                self._enqueued += self._batches.write(batch)
                return
            except RedisError as error:
                if unavailable(error) is None or last:
                    raise self._unavailable(error, len(batch)) from error
                note(error)
                last = time.monotonic() >= until  # one try more: the last one may have written it
            time.sleep(_PAUSE_SECONDS)

    def _unavailable(self, error: RedisError, count: int) -> Exception:
        if unavailable(error) is None:
            return error
        if isinstance(error, NoPermissionError):
            return RedisUnavailable(explained(error))
        perhaps = "" if unavailable(error) == "refuses" else f", and perhaps the {count:,} after them"
        return RedisUnavailable(f"Redis {described(error)}: {self._enqueued:,} jobs are enqueued{perhaps}")


def _shown(element: Any) -> str:
    try:
        return f"{element!r:.200}"
    except Exception:  # noqa: BLE001  the caller's
        return f"a {type(element).__name__}"
