"""Waiting for a job's end from outside, by asking RQ again and again."""

from __future__ import annotations

import json
import time
from typing import Any

from redis.exceptions import ConnectionError, TimeoutError

from rqmem.errors import RqmemError
from rqmem.rq_names import UNSERIALIZABLE_RETURN_VALUE_PAYLOAD, InvalidJobOperation, Job, JobStatus
from rqmem.tracebacks import what_was_raised
from rqmem.values import dataclass

ENDED = (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED)
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5


@dataclass(frozen=True)
class EndedJob:
    """How the job ended: RQ's status, what it returned, and how long we waited.

    ``error``: what it raised, or why what it returned is not here, in one line.
    """

    status: str
    result: Any
    error: str
    seconds: float


def until_ended(job: Job, seconds: float) -> EndedJob:
    """Wait for the job's end, also while Redis is away. Raises `RqmemError` when it has not ended within the time."""
    start, pause, status = time.monotonic(), _SHORTEST_PAUSE, job.get_status(refresh=False)
    while True:
        waited = time.monotonic() - start
        try:
            status = job.get_status()
            if status in ENDED:
                return _end(job, status, round(waited, 3))
        except InvalidJobOperation:
            if job.result_ttl == 0:  # what finishes so is deleted with its result
                return EndedJob("finished", None, "", round(waited, 3))
            return EndedJob("gone", None, "it was deleted, or its --ttl was over", round(waited, 3))
        except (ConnectionError, TimeoutError):
            pass  # it may be back in time
        if waited >= seconds:
            raise RqmemError(f"job {job.id} is still {status.value} after {seconds:g} s: rqmem status --job {job.id}")
        time.sleep(min(pause, seconds - waited))
        pause = min(2 * pause, _LONGEST_PAUSE)


def _end(job: Job, status: JobStatus, seconds: float) -> EndedJob:
    if status != JobStatus.FINISHED:
        result = job.latest_result()
        raised = what_was_raised(result.exc_string or "") if result is not None else ""
        return EndedJob(status.value, None, raised or f"it was {status.value}", seconds)
    try:
        result = job.return_value(refresh=True)
    except Exception as error:  # noqa: BLE001  of classes that are not here
        return EndedJob(status.value, None, f"its result cannot be read here: {_of(error)}", seconds)
    if result == UNSERIALIZABLE_RETURN_VALUE_PAYLOAD:  # RQ's word for it
        wrote = getattr(job.serializer, "__name__", type(job.serializer).__name__)
        what = f"its result was not kept, since {wrote} cannot write it: return plain values, such as numbers and text"
        return EndedJob(status.value, None, what, seconds)
    return EndedJob(status.value, _printable(result), "", seconds)


def _printable(value: Any) -> Any:
    """What JSON cannot hold, such as tuples as keys, is shown as Python shows it."""
    try:
        json.dumps(value, default=shown)
    except (TypeError, ValueError, RecursionError):
        return shown(value)
    return value


def shown(value: object) -> str:
    """A value that is no JSON."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001
        return object.__repr__(value)


def _of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
