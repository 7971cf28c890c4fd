"""The log as a subscriber of events: each becomes one record of the logger ``rqmem.jobs``.

The record carries the event's fields as its attribute ``rqmem``, for `JsonFormatter` and for a host application's own.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

from rqmem import events, words
from rqmem.text import timestamp

_log = logging.getLogger("rqmem.jobs")
_every_checkpoint = False


def write_event(event: events.Event) -> None:
    """Log one event. One that nobody wants to see costs a comparison."""
    level = words.level(event)
    if _every_checkpoint and isinstance(event, events.Checkpoint):
        level = logging.INFO
    if isinstance(event, events.Checkpoint) and event.again and (_every_checkpoint or _log.isEnabledFor(logging.DEBUG)):
        return  # its line is there
    if _log.isEnabledFor(level):
        _log.log(level, "%s", words.text(event), extra={"rqmem": fields(event, time.time())})


def tell_every_checkpoint(every: bool) -> None:
    """Log checkpoints that are not notable at INFO instead of DEBUG, or no longer."""
    global _every_checkpoint
    _every_checkpoint = every


def tells_routine() -> bool:
    """Whether the log has what each run of a job tells, also of those that end well at once."""
    return _every_checkpoint or _log.isEnabledFor(logging.DEBUG)


def fields(event: events.Event, at: float) -> dict[str, Any]:
    """An event as JSON takes it; ``at``: epoch seconds. A checkpoint's keys and their order are a promise."""
    if isinstance(event, events.Checkpoint):
        return _checkpoint_fields(event, at)
    values = dataclasses.asdict(event)
    return {"job": values.pop("job"), "event": type(event).__name__, "timestamp": timestamp(at), **values}


def _checkpoint_fields(event: events.Checkpoint, at: float) -> dict[str, Any]:
    return {
        "job": event.job,
        "operation": event.operation,
        "current_memory_mb": round(event.current_memory_mb, 1),
        "peak_memory_mb": round(event.peak_memory_mb, 1),
        "memory_limit_mb": round(event.memory_limit_mb, 1),
        "usage_percentage": round(100 * event.current_memory_mb / event.memory_limit_mb, 1),
        "timestamp": timestamp(at),
        "job_id": event.job_id,
        "queue": event.queue,
        "worker": event.worker,
    }
