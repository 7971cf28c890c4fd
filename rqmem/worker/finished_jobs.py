"""Jobs of a lease that have ended well, on the shared page until Redis has them.

The horse commits several at once, and may be killed before it does. What stands here has happened, so the worker
commits it in the horse's place: nothing that has finished runs again. One writer, any number of readers, no locks: an
entry counts once the number of all entries says so.
"""

from __future__ import annotations

import ctypes
import struct
from typing import NamedTuple

ROOM = 128
"""How many there is room for. The horse commits them before there are more."""
LONGEST_ID_BYTES = 64
RESULT_BYTES = 64 * 1024
"""Room for the results and records of all of them."""

_ENTRY = struct.Struct(f"qddqiiii{LONGEST_ID_BYTES}s32s48s")


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
        run: the record of its run (`rqmem.store.held_run`); empty: it has none.
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
    run: bytes = b""


class FinishedJobs(ctypes.Structure):
    """The ring. ``count``: how many have been written since it began; ``committed``: how many of them Redis has."""

    count: int
    committed: int
    _end: int  # of the results that may still be needed; they begin anew when Redis has all of them

    _fields_ = [
        ("count", ctypes.c_int64),
        ("committed", ctypes.c_int64),
        ("_end", ctypes.c_int64),
        ("_entries", ctypes.c_ubyte * (_ENTRY.size * ROOM)),
        ("_results", ctypes.c_char * RESULT_BYTES),
    ]

    def add(self, job: FinishedJob) -> bool:
        """Whether there was room for its result and its record. Its ids have to fit."""
        seq, began_at, ended_at, result_ttl, queue, job_id, created_at, execution_id, result, run = job
        count = self.count
        if count == self.committed:
            self._end = 0
        start, length = self._end, -1 if result is None else len(result)
        data = (result or b"") + run
        if data:
            end = start + len(data)
            if end > RESULT_BYTES:
                return False
            self._end = end
            ctypes.memmove(ctypes.addressof(self) + _RESULTS + start, data, len(data))
        _ENTRY.pack_into(
            self, _ENTRIES + _ENTRY.size * (count % ROOM),
            seq, began_at, ended_at, result_ttl, queue, start, length, len(run), job_id, created_at, execution_id,
        )  # fmt: skip
        self.count = count + 1
        return True

    def uncommitted(self) -> list[FinishedJob]:
        """Those that Redis may not have yet, oldest first."""
        count = self.count
        return [self._entry(number) for number in range(max(self.committed, count - ROOM), count)]

    def last(self) -> FinishedJob | None:
        return self._entry(self.count - 1) if self.count else None

    def _entry(self, number: int) -> FinishedJob:
        seq, began_at, ended_at, ttl, queue, start, length, run_length, *texts = _ENTRY.unpack_from(
            self, _ENTRIES + _ENTRY.size * (number % ROOM)
        )
        job_id, created_at, execution_id = (each.rstrip(b"\0") for each in texts)
        data = ctypes.string_at(ctypes.addressof(self) + _RESULTS + start, max(0, length) + run_length)
        result, run = None if length < 0 else data[:length], data[max(0, length) :]
        return FinishedJob(seq, began_at, ended_at, ttl, queue, job_id, created_at, execution_id, result, run)


_ENTRIES, _RESULTS = FinishedJobs._entries.offset, FinishedJobs._results.offset
