"""The table of a pool's budget: memory that the parent and all its workers see, made before the first fork.

Nothing is locked, so any process may be killed at any moment. Each field has one writer: the parent decides, and a
worker asks and says what it uses. A request and its answer have numbers. What must be read together stands in the
header, whose number is odd while that changes. Only the parent frees a row, when the kernel reports that the row's
worker has ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import select
import time
from collections.abc import Iterator

_TEXT_BYTES = 256
PASSED_BYTES = 500 * 64
TOLD_BYTES = 16 * 1024
_TRIES = 50


class Row(ctypes.Structure):
    """One worker's.

    Attributes:
        answered: parent: number of the last request that it has answered. ``answer``: the value of an
            `rqmem.policy.admission.Answer`.
        reserved_bytes: parent: what the job that runs may use; 0: none runs.
        evict: parent: number of the request whose job is to go. ``evict_how``: the value of a
            `rqmem.policy.pressure.How`; ``reason`` says why.
        news: parent: number of the last news (`Header.news`) that this worker is to tell.
        pid, start_time: worker: whose row it is; 0: nobody's yet.
        asked: worker: number of its last request. ``released``: of the last one that is over.
        need_bytes, ceiling_bytes: worker: of the job that it asks for. ``is_known``: the need is not just the ceiling.
        used_bytes: worker: what its horse and all that it started use.
        resumable, has_retry: worker: the job can continue later; RQ runs it again if it fails.
        since: worker: when it asked, epoch seconds.
        tenant: worker: for whom its job works; empty: that was not said.
        told: worker: number of the last news that it has told.
    """

    answered: int
    answer: int
    reserved_bytes: int
    evict: int
    evict_how: int
    news: int
    pid: int
    start_time: int
    asked: int
    released: int
    need_bytes: int
    ceiling_bytes: int
    is_known: int
    used_bytes: int
    resumable: int
    has_retry: int
    told: int
    since: float
    job_id: bytes
    job_type: bytes
    queue: bytes
    tenant: bytes
    reason: bytes

    _fields_ = [
        *((name, ctypes.c_int64) for name, kind in __annotations__.items() if kind == "int"),
        ("since", ctypes.c_double),
        *((name, ctypes.c_char * _TEXT_BYTES) for name, kind in __annotations__.items() if kind == "bytes"),
    ]

    def set_text(self, field: str, text: str) -> None:
        """Cut to its room."""
        setattr(self, field, text.encode("utf-8", "replace")[: _TEXT_BYTES - 1])

    def text(self, field: str) -> str:
        raw: bytes = getattr(self, field)
        return raw.decode("utf-8", "replace")

    @property
    def runs(self) -> bool:
        """Whether a job of this worker has a part of the budget."""
        return self.reserved_bytes > 0


class Header(ctypes.Structure):
    """What the parent says to all. Sizes in bytes, times in epoch seconds.

    Attributes:
        number: odd while what follows changes.
        waiting: how many jobs wait because they do not fit; ``waiting_since``: since when the first one does, 0: none.
        give_way: idle workers are to end their horses, for what those hold keeps a job from its start.
        closed: no job is to be taken: ``reason`` says why, and ``closed_since`` since when.
        was_closed_seconds: how long the last time was.
        news: number of the last change of ``closed``.
        evictions: how many jobs were told to go; ``pauses``: how often no job was to be taken.
        workers, least_workers, most_workers: how many there are to be now, and between which numbers that is chosen.
        name: of the pool.
        tenant_bytes: what the jobs of one tenant may use together; 0: as all.
        passed: ids of jobs that are not to be taken, a line each.
        told: for displays, as JSON (`rqmem.worker.pool.telling`).
    """

    number: int
    budget_bytes: int
    waiting: int
    give_way: int
    closed: int
    news: int
    evictions: int
    pauses: int
    workers: int
    least_workers: int
    most_workers: int
    tenant_bytes: int
    waiting_since: float
    closed_since: float
    was_closed_seconds: float
    name: bytes
    reason: bytes
    passed: bytes
    told: bytes

    _fields_ = [
        *((name, ctypes.c_int64) for name, kind in __annotations__.items() if kind == "int"),
        *((name, ctypes.c_double) for name, kind in __annotations__.items() if kind == "float"),
        ("name", ctypes.c_char * _TEXT_BYTES),
        ("reason", ctypes.c_char * _TEXT_BYTES),
        ("passed", ctypes.c_char * PASSED_BYTES),
        ("told", ctypes.c_char * TOLD_BYTES),
    ]


class BudgetTable:
    """The header, a row for each worker, and what wakes them.

    Args:
        budget_bytes: what their jobs may use together; ``tenant_bytes``: those of one tenant; 0: as all.

    Attributes:
        asked_fd: readable for the parent when a worker has asked, or has ended a job.
    """

    def __init__(self, name: str, rows: int, budget_bytes: int, tenant_bytes: int = 0) -> None:
        shape = type("Table", (ctypes.Structure,), {"_fields_": [("header", Header), ("rows", Row * rows)]})
        self._memory = shape.from_buffer(mmap.mmap(-1, ctypes.sizeof(shape)))  # type: ignore[attr-defined]
        self.header: Header = self._memory.header
        self.rows: list[Row] = [self._memory.rows[number] for number in range(rows)]
        self.header.budget_bytes, self.header.tenant_bytes = budget_bytes, tenant_bytes
        self.header.name = name.encode("utf-8", "replace")[: _TEXT_BYTES - 1]
        self.asked_fd = _new_alarm()
        self._woken = [_new_alarm() for _ in range(rows)]

    def close(self) -> None:
        for fd in (self.asked_fd, *self._woken):
            os.close(fd)

    # The parent

    def heard(self) -> None:
        """Before it looks at the rows: what is asked from here on wakes it again."""
        _drain(self.asked_fd)

    def free(self, number: int) -> None:
        """The worker of this row has ended, or a new one is about to begin."""
        ctypes.memset(ctypes.addressof(self.rows[number]), 0, ctypes.sizeof(Row))
        _drain(self._woken[number])

    def wake(self, number: int) -> None:
        _ring(self._woken[number])

    @contextlib.contextmanager
    def changing(self) -> Iterator[Header]:
        """The header, to be changed as a whole."""
        header = self.header
        header.number |= 1
        yield header
        header.number += 1

    # Workers

    def ring(self) -> None:
        _ring(self.asked_fd)

    def wait(self, number: int, seconds: float) -> None:
        """Until the parent wakes the worker of this row, or this time is over."""
        if select.select([self._woken[number]], [], [], seconds)[0]:
            _drain(self._woken[number])

    def passed_over(self) -> list[bytes]:
        """Ids of jobs that are to stay in their queues."""
        passed = self._whole("passed")  # empty also where it is torn: what does not fit is refused anyway
        return passed.split(b"\n") if passed else []

    def told(self) -> bytes:
        """What the parent has for displays; empty: nothing, or it was stopped or killed while it wrote."""
        return self._whole("told")

    def _whole(self, field: str) -> bytes:
        header = self.header
        for _ in range(_TRIES):
            number = header.number
            value: bytes = getattr(header, field)
            if number == header.number and not number & 1:
                return value
            time.sleep(0.001)
        return b""


def _new_alarm() -> int:
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def _ring(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.eventfd_write(fd, 1)


def _drain(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(fd)
