"""Jobs as RQ has them, many in one round trip. Changes nothing, and deserialises nothing: no argument, result or meta.

A pickle can run anything when it is loaded, and what shows jobs to people must not. The type of a job is the first text
in its data (`rqmem.type_of_job`), which is read as bytes.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Sequence

from redis import Redis

from rqmem.observe.model import JobRow
from rqmem.rq_names import Job, Result, utcparse
from rqmem.store.scripts import script
from rqmem.text import shortened
from rqmem.tracebacks import what_was_raised
from rqmem.type_of_job import FIRST_BYTES, UNKNOWN, path_in, type_of_path

ENDED_BADLY = ("failed", "stopped", "canceled")

_FIELDS = (
    *("status", "origin", "description", "enqueued_at", "started_at", "ended_at", "worker_name"),
    *("dependency_ids", "data"),
)
_MOST_BYTES = 40_000  # of a field
_LONGEST_TRACEBACK = 1_000_000  # as RQ packs it
_TOO_LONG = "an error whose text is too long to be shown here"


def read_jobs(
    connection: Redis, job_ids: Sequence[str], *, errors: bool = True, most_bytes: int = _MOST_BYTES
) -> list[JobRow | None]:
    """The jobs with these ids, in this order; None: RQ has none of that id.

    ``errors``: read what was raised too. ``most_bytes``: of each text; what is longer is cut.
    """
    names = [name for job_id in job_ids for name in (Job.key_for(job_id), Result.get_key(job_id))]
    values = [most_bytes, _LONGEST_TRACEBACK if errors else 0, *_FIELDS]
    raw = script(connection, "read_jobs")(keys=names, args=values) if names else []
    return [_row(job_id, fields) for job_id, fields in zip(job_ids, raw, strict=True)]


def _row(job_id: str, raw: Sequence[bytes | None]) -> JobRow | None:
    *texts, packed, _, raised = raw
    status, origin, call, enqueued_at, started_at, ended_at, worker, waits_for = map(_text, texts)
    if packed is None:
        return None
    ended_badly = status in ENDED_BADLY
    return JobRow(
        job_id=job_id,
        status=status,
        job_type=_type(packed),
        call=shortened(call),
        queue=origin,
        worker=worker,
        enqueued_at=_seconds(enqueued_at),
        started_at=_seconds(started_at),
        ended_at=_seconds(ended_at),
        error=_error(raised) if ended_badly and raised is not None else "",
        waits_for=_ids(waits_for) if status == "deferred" else (),
    )


def _text(raw: bytes | None) -> str:
    return raw.decode(errors="replace") if raw is not None else ""


def _type(packed: bytes) -> str:
    """Empty where the data do not tell it."""
    try:
        data = zlib.decompressobj().decompress(packed, FIRST_BYTES)
    except zlib.error:  # RQ takes data that are not packed too
        data = packed[:FIRST_BYTES]
    found = type_of_path(path_in(data))
    return "" if found == UNKNOWN else found


def _error(raised: bytes) -> str:
    """What was raised, in one line, of RQ's packed traceback."""
    if not raised:
        return _TOO_LONG
    try:
        return what_was_raised(zlib.decompress(b64decode(raised)).decode(errors="replace"))
    except (NotBase64, zlib.error):
        return ""


def _ids(text: str) -> tuple[str, ...]:
    try:
        return tuple(sorted(map(str, json.loads(text)))) if text else ()
    except ValueError:  # it was cut
        return ()


def _seconds(text: str) -> float | None:
    """None also where the text is no time of RQ's."""
    try:
        return utcparse(text).timestamp() if text else None
    except ValueError:
        return None
