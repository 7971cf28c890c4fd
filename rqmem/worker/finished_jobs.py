"""Jobs of a lease that have ended well, on the shared page until Redis has them.

The horse commits several at once, and may be killed before it does. What stands here has happened, so the worker
commits it in the horse's place: nothing that has finished runs again. One writer, any number of readers, no locks: an
entry counts once the number of all entries says so.
"""

from __future__ import annotations

import ctypes
import struct
from typing import NamedTuple

ROOM = 64
"""How many there is room for. The horse commits them before there are more."""
LONGEST_ID_BYTES, LONGEST_RESULT_BYTES = 64, 256

_ENTRY = struct.Struct(f"qddqii{LONGEST_ID_BYTES}s32s48s{LONGEST_RESULT_BYTES}s")


class FinishedJob(NamedTuple):
    """One of them.

    Attributes:
        seq: its number on the page.
        began_at, ended_at: epoch seconds.
        result_ttl: seconds; -1: for ever.
        queue: the number of its queue in the lease's order.
        job_id, created_at: which job; as Redis has them.
        execution_id: of this run of it.
        result: serialised; None if it returned None.
    """

    seq: int
    began_at: float
    ended_at: float
    result_ttl: int
    queue: int
    job_id: bytes
    created_at: bytes
    execution_id: bytes
    result: bytes | None


class FinishedJobs(ctypes.Structure):
    """The ring. ``count``: how many have been written since it began; ``committed``: how many of them Redis has."""

    count: int
    committed: int

    _fields_ = [
        ("count", ctypes.c_int64),
        ("committed", ctypes.c_int64),
        ("_entries", ctypes.c_ubyte * (_ENTRY.size * ROOM)),
    ]

    def add(self, job: FinishedJob) -> None:
        """Its ids and its result have to fit (`fits`)."""
        seq, began_at, ended_at, result_ttl, queue, job_id, created_at, execution_id, result = job
        length = -1 if result is None else len(result)
        _ENTRY.pack_into(
            self._entries, _ENTRY.size * (self.count % ROOM),
            seq, began_at, ended_at, result_ttl, queue, length, job_id, created_at, execution_id, result or b"",
        )  # fmt: skip
        self.count += 1

    def uncommitted(self) -> list[FinishedJob]:
        """Those that Redis may not have yet, oldest first."""
        count = self.count
        return [self._entry(number) for number in range(max(self.committed, count - ROOM), count)]

    def last(self) -> FinishedJob | None:
        return self._entry(self.count - 1) if self.count else None

    def _entry(self, number: int) -> FinishedJob:
        seq, began_at, ended_at, ttl, queue, length, *texts, result = _ENTRY.unpack_from(
            self._entries, _ENTRY.size * (number % ROOM)
        )
        job_id, created_at, execution_id = (each.rstrip(b"\0") for each in texts)
        kept = None if length < 0 else result[:length]
        return FinishedJob(seq, began_at, ended_at, ttl, queue, job_id, created_at, execution_id, kept)


def fits(result: bytes | None) -> bool:
    """Whether the page has room for it. What does not fit is committed at once."""
    return result is None or len(result) <= LONGEST_RESULT_BYTES
