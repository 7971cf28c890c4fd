"""The type of a job: the dotted path of the code that it runs, and nothing of its arguments.

Everything that names a job type (events, alerts, journal, log, metrics, reports) takes it from here. It is never taken
from the job's description, which holds arguments, or whatever its author wrote. Nothing is deserialised here, since
that runs user code: the path is the first text in the job's data.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from rqmem.signatures import unsigned

if TYPE_CHECKING:
    from rqmem.rq_names import Job

UNKNOWN = "(unknown)"
"""The type of a job whose data only its own serializer can read, or whose path is none (it may be an argument)."""

_LONGEST = 255
_PATH = re.compile(r"[\w<>-]+(?:\.[\w<>-]+)*")  # <lambda>, <locals>; a module's file may have a hyphen
_PICKLED = re.compile(rb"(?:\x80.)?(?:\x95.{8})?\((?:\x8c(.)|X(.{4})|\x8d(.{8}))", re.DOTALL)  # protocols 1 to 5
_JSON = re.compile(rb'\s*\[\s*("[^"\\]*(?:\\.[^"\\]*)*")', re.DOTALL)
FIRST_BYTES = 4096
"""How much of a job's data is needed to find its type."""


def job_type(job: Job) -> str:
    """The type of a job, from its data; `UNKNOWN` where they do not tell."""
    return type_of_path(path_of(job))


def type_of_path(path: str | None) -> str:
    """The type of jobs that run what is at this path; `UNKNOWN` for what is no path."""
    if not path or len(path) > _LONGEST or not _PATH.fullmatch(path):
        return UNKNOWN
    return path.removesuffix(".run")


def path_of(job: Job) -> str | None:
    """RQ's ``func_name``, as the pickle and JSON serializers write it, also signed; None: neither wrote these data."""
    return path_in(job.data[:FIRST_BYTES])


def path_in(data: bytes) -> str | None:
    """The same of the first `FIRST_BYTES` of a job's data."""
    pickled = _PICKLED.match(data)
    if pickled is not None:
        length, start = int.from_bytes(pickled[pickled.lastindex or 0], "little"), pickled.end()
        return data[start : start + length].decode(errors="replace") if length <= _LONGEST else None
    payload = unsigned(data)
    if payload is not None:
        return path_in(payload)
    written = _JSON.match(data)
    if written is None:
        return None
    try:
        return str(json.loads(written[1]))
    except ValueError:
        return None
