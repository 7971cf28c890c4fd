"""Words for events, and the two formats a log line can have. All log output of rqmem is worded here.

Lines go to the loggers below ``rqmem``. As a library rqmem configures nothing: the host application's
`logging` decides. The command line calls `configure`. With the JSON format each line is one object;
a checkpoint's has the stable keys of the original: ``job, operation, current_memory_mb,
peak_memory_mb, memory_limit_mb, usage_percentage, timestamp``, then ``job_id, queue, worker``.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import time
from datetime import datetime, timezone
from typing import Any, Literal

from rqmem import events
from rqmem.policy.thinning import LastLine, worth_a_line
from rqmem.units import show_mb

LogFormat = Literal["text", "json"]

_log = logging.getLogger("rqmem.jobs")
_last_lines: dict[str, LastLine] = {}


def write_event(event: events.Event) -> None:
    """The log as a subscriber of events."""
    if isinstance(event, events.Checkpoint):
        _write(_checkpoint_level(event), _checkpoint_text(event), _checkpoint_fields(event))
        return
    if isinstance(event, events.RunEnded):
        _last_lines.pop(event.job_id, None)
    level, text = _WORDS[type(event)](event)
    _write(level, text, _fields(event))


def configure(level: str, log_format: LogFormat) -> None:
    """For commands: rqmem's and RQ's lines to stderr, in one format. ``level`` is a name of `logging`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    for name in ("rqmem", "rq"):
        logging.getLogger(name).setLevel(level.upper())
    for name in ("rq.worker", "rq.job"):  # these have a level of their own from RQ's import
        logging.getLogger(name).setLevel(level.upper())


class TextFormatter(logging.Formatter):
    """``12:30:05 text``, warnings and errors marked as such."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        mark = f"{record.levelname} " if record.levelno >= logging.WARNING else ""
        return f"{clock} {mark}{_with_traceback(self, record)}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: an event's fields, or the message of any other line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "rqmem", None)
        if fields is None:
            fields = {
                "level": record.levelname,
                "logger": record.name,
                "message": _with_traceback(self, record),
                "timestamp": _timestamp(record.created),
            }
        return json.dumps(fields, ensure_ascii=False, default=str)


def _with_traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info:
        text += "\n" + formatter.formatException(record.exc_info)
    return text


def _write(level: int, text: str, fields: dict[str, Any]) -> None:
    if _log.isEnabledFor(level):
        _log.log(level, "%s", text, extra={"rqmem": fields})


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _fields(event: events.Event) -> dict[str, Any]:
    fields = dataclasses.asdict(event)
    return {
        "job": fields.pop("job"),
        "event": type(event).__name__,
        "timestamp": _timestamp(time.time()),
        **fields,
    }


def _checkpoint_level(event: events.Checkpoint) -> int:
    """Thousands of checkpoints are thinned: the rest is there at DEBUG."""
    fraction = event.current_memory_mb / event.memory_limit_mb
    told, _last_lines[event.job_id] = worth_a_line(_last_lines.get(event.job_id), fraction, time.monotonic())
    return logging.INFO if told else logging.DEBUG


def _checkpoint_fields(event: events.Checkpoint) -> dict[str, Any]:
    return {
        "job": event.job,
        "operation": event.operation,
        "current_memory_mb": event.current_memory_mb,
        "peak_memory_mb": event.peak_memory_mb,
        "memory_limit_mb": event.memory_limit_mb,
        "usage_percentage": round(100 * event.current_memory_mb / event.memory_limit_mb, 1),
        "timestamp": _timestamp(time.time()),
        "job_id": event.job_id,
        "queue": event.queue,
        "worker": event.worker,
    }


def _checkpoint_text(event: events.Checkpoint) -> str:
    share = 100 * event.current_memory_mb / event.memory_limit_mb
    return (
        f"{_name(event)} memory {event.current_memory_mb:.1f} MB of {show_mb(event.memory_limit_mb)} "
        f"({share:.0f} %, peak {event.peak_memory_mb:.1f}) at {event.operation}"
    )


def _run_ended(event: events.RunEnded) -> tuple[int, str]:
    text = (
        f"{_name(event)} ended {event.outcome} in {event.duration_seconds:.1f} s: memory "
        f"{event.initial_memory_mb:.1f} MB at the start, {event.peak_memory_mb:.1f} peak, "
        f"{event.final_memory_mb:.1f} at the end, of {show_mb(event.memory_limit_mb)}; "
        f"{event.freed_mb:.1f} MB freed in {event.collections} collections, {event.chunks} chunks"
    )
    return logging.INFO, text


def _ceiling_cut(event: events.CeilingCut) -> tuple[int, str]:
    text = (
        f"{event.job} declares {show_mb(event.declared_mb)} MB of memory; this worker allows "
        f"{show_mb(event.allowed_mb)} MB, so that is its ceiling here"
    )
    return logging.WARNING, text


def _breach(event: events.Breach) -> tuple[int, str]:
    lines = [f"MemoryLimitExceeded: {event.summary()} [job {event.job_id}]"]
    lines += [f"  {line}" for line in event.explanation()]
    return logging.ERROR, "\n".join(lines)


def _resumed(event: events.Resumed) -> tuple[int, str]:
    level = logging.DEBUG if event.cause == "breach" else logging.WARNING  # the breach told it already
    return level, f"{_name(event)} {event.summary()} after {event.cause}"


def _horse_recycled(event: events.HorseRecycled) -> tuple[int, str]:
    return logging.INFO, f"worker {event.worker}: new horse after {_name(event)}: {event.reason}"


def _worker_lost(event: events.WorkerLost) -> tuple[int, str]:
    return logging.WARNING, f"worker {event.lost_worker} is lost; it was running {_name(event)}"


def _name(event: events.Event) -> str:
    return f"{event.job} ({event.job_id[:8]})"


_WORDS: dict[type[events.Event], Any] = {
    events.RunEnded: _run_ended,
    events.CeilingCut: _ceiling_cut,
    events.Breach: _breach,
    events.Resumed: _resumed,
    events.HorseRecycled: _horse_recycled,
    events.WorkerLost: _worker_lost,
}
