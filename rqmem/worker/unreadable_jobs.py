"""Jobs whose fields in Redis cannot be read: they fail, and end no worker.

RQ's `Job.restore` raises at the first such field. That ends a worker, and a scheduler for all its queues. Here the job
is made of the other fields, and remembers which ones were left out. It fails as soon as it would run, by RQ's own
rules. Its commit removes these fields, so that it can be listed, looked at and run once more.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

from redis.client import Pipeline

from rqmem.errors import UnreadableJob
from rqmem.rq_names import Job, JobStatus, NoSuchJobError, Queue, now, str_to_date, utcformat
from rqmem.store.retrying import until_redis_answers

_ATTRIBUTE = "rqmem_unreadable"
_LISTS: dict[str, type | tuple[type, ...]] = {
    "dependency_ids": str, "retry_intervals": (int, float), "repeat_intervals": (int, float),
}  # fmt: skip
_STATUSES = {each.encode() for each in JobStatus if each is not JobStatus.CREATED}
_LONGEST_SHOWN = 60


def accept() -> None:
    """From now on, `Job.restore` in this process leaves out what it cannot read."""
    restore = Job.restore
    if hasattr(restore, "__wrapped__"):
        return

    @functools.wraps(restore)
    def restore_readable(self: Job, raw_data: Mapping[bytes, bytes]) -> Any:
        try:
            _check_lists(raw_data)
            return restore(self, raw_data)
        except NoSuchJobError:
            raise
        except Exception:
            bad = {name: value for name, value in raw_data.items() if not _is_readable(self, restore, name, value)}
            if not bad:
                raise
            setattr(self, _ATTRIBUTE, bad)
            return restore(self, {name: value for name, value in raw_data.items() if name not in bad})

    Job.restore = restore_readable  # type: ignore[method-assign]


def mend(queue: Queue, job_id: str, fields: dict[bytes, bytes]) -> bool:
    """Write what a job that was taken from this queue lacks, or has unreadable, and what is known of it anyway.

    As with RQ, a job runs without these. But the scripts that begin and end it look at them. Whether there was any.
    """
    new = {}
    if fields.get(b"status", b"created") not in _STATUSES:
        new[b"status"] = JobStatus.QUEUED.encode()
    if not _can(bytes.decode, fields.get(b"origin")):
        new[b"origin"] = queue.name.encode()
    if not _can(str_to_date, fields.get(b"created_at")):
        new[b"created_at"] = utcformat(now()).encode()
    if new:
        fields |= new
        key = queue.job_class.key_for(job_id)
        until_redis_answers(lambda: queue.connection.hset(key, mapping=new), f"mend job {job_id}")  # type: ignore[arg-type]
    return bool(new)


def mend_in_redis(queue: Queue, job_id: str) -> bool:
    """As `mend`, for a job that RQ's own methods have read."""
    names = (b"status", b"origin", b"created_at")
    values: Any = until_redis_answers(
        lambda: queue.connection.hmget(queue.job_class.key_for(job_id), names), f"read job {job_id}"
    )
    found = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    return mend(queue, job_id, found)


def _can(read: Callable[[bytes], object], value: bytes | None) -> bool:
    try:
        return bool(value) and bool(read(value or b""))
    except ValueError:
        return False


def check_readable(job: Job) -> None:
    """Raises `UnreadableJob`: fields of the job were left out. Then it is not retried either."""
    if bad := getattr(job, _ATTRIBUTE, None):
        job.retries_left = None
        fields = ", ".join(f"{_shown(name)[1:-1]} = {_shown(value)}" for name, value in sorted(bad.items()))
        raise UnreadableJob(
            f"these fields of the job in Redis cannot be read: {fields}. It has not run, and they are removed: "
            f"enqueue it anew, or 'rqmem retry {job.id}' runs it without them"
        )


def remove_unreadable(job: Job, pipeline: Pipeline) -> None:
    """A part of each commit."""
    if bad := getattr(job, _ATTRIBUTE, None):
        pipeline.hdel(job.key, *bad)


def _is_readable(job: Job, restore: Any, name: bytes, value: bytes) -> bool:
    alone = type(job)(job.id, connection=job.connection, serializer=job.serializer)
    try:
        _check_lists({name: value})
        restore(alone, {b"data": b"", name: value})
    except Exception:  # noqa: BLE001  as above
        return False
    return True


def _check_lists(fields: Mapping[bytes, bytes]) -> None:
    """RQ takes any JSON for these, and fails later."""
    for name, kind in _LISTS.items():
        value = fields.get(name.encode())
        if value:
            found = json.loads(value)
            if not isinstance(found, list) or not all(isinstance(each, kind) for each in found):
                raise ValueError(name)


def _shown(value: bytes) -> str:
    return ascii(value[:_LONGEST_SHOWN])[1:] + ("..." if len(value) > _LONGEST_SHOWN else "")
