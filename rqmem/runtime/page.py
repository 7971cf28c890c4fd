"""The shared page: memory that worker and horse both see, made before the fork, one per horse.

The horse writes where it is; the worker writes what it measured. No locks: each field has one writer,
and the worker trusts texts only while the tree is stopped or dead.
"""

from __future__ import annotations

import ctypes
import mmap

_OPERATION_BYTES = 256
_JOB_BYTES = 256
_BREACH_BYTES = 8192
_LINE_BYTES = 512


class _Layout(ctypes.Structure):
    _fields_ = [
        ("ceiling_bytes", ctypes.c_int64),  # horse: the job's effective ceiling
        ("declared_bytes", ctypes.c_int64),  # horse: what the job declared; 0 where it declared none
        ("samples", ctypes.c_int64),  # horse: how many samples of its stack it has taken
        ("peak_bytes", ctypes.c_int64),  # worker: the highest usage seen
        ("taken", ctypes.c_int8),  # horse: it has read the order for this job
        ("in_user_code", ctypes.c_int8),  # horse: an exception may be raised now
        ("has_run", ctypes.c_int8),  # horse: the job is memory-aware, a run is kept for it
        ("told", ctypes.c_int8),  # whoever settles: the breach stands in the journal, as in ``breach``
        ("job", ctypes.c_char * _JOB_BYTES),  # horse: job type, a dotted path
        ("operation", ctypes.c_char * _OPERATION_BYTES),  # horse: last named place
        ("line", ctypes.c_char * _LINE_BYTES),  # horse: where the last sample found it
        ("breach", ctypes.c_char * _BREACH_BYTES),  # worker, then horse (adds its line): JSON
    ]


class SharedPage:
    """The page as attributes; texts are cut to their room, a torn one is read with replacement characters."""

    def __init__(self, ceiling_bytes: int) -> None:
        self._memory = mmap.mmap(-1, ctypes.sizeof(_Layout))
        self._layout = _Layout.from_buffer(self._memory)
        self.ceiling_bytes = ceiling_bytes

    def reset(self, ceiling_bytes: int) -> None:
        """Ready for another job."""
        ctypes.memset(ctypes.addressof(self._layout), 0, ctypes.sizeof(_Layout))
        self.ceiling_bytes = ceiling_bytes

    @property
    def ceiling_bytes(self) -> int:
        return self._layout.ceiling_bytes

    @ceiling_bytes.setter
    def ceiling_bytes(self, value: int) -> None:
        self._layout.ceiling_bytes = value

    @property
    def declared_bytes(self) -> int:
        return self._layout.declared_bytes

    @declared_bytes.setter
    def declared_bytes(self, value: int) -> None:
        self._layout.declared_bytes = value

    @property
    def peak_bytes(self) -> int:
        return self._layout.peak_bytes

    @peak_bytes.setter
    def peak_bytes(self, value: int) -> None:
        self._layout.peak_bytes = value

    @property
    def in_user_code(self) -> bool:
        return bool(self._layout.in_user_code)

    @in_user_code.setter
    def in_user_code(self, value: bool) -> None:
        self._layout.in_user_code = value

    @property
    def taken(self) -> bool:
        return bool(self._layout.taken)

    @taken.setter
    def taken(self, value: bool) -> None:
        self._layout.taken = value

    @property
    def has_run(self) -> bool:
        return bool(self._layout.has_run)

    @has_run.setter
    def has_run(self, value: bool) -> None:
        self._layout.has_run = value

    @property
    def told(self) -> bool:
        return bool(self._layout.told)

    @told.setter
    def told(self, value: bool) -> None:
        self._layout.told = value

    @property
    def job(self) -> str:
        return _text(self._layout.job)

    @job.setter
    def job(self, value: str) -> None:
        self._layout.job = _bytes(value, _JOB_BYTES)

    @property
    def operation(self) -> str:
        return _text(self._layout.operation)

    @operation.setter
    def operation(self, value: str) -> None:
        self._layout.operation = _bytes(value, _OPERATION_BYTES)

    @property
    def samples(self) -> int:
        return self._layout.samples

    @property
    def line(self) -> str:
        return _text(self._layout.line)

    def add_sample(self, line: str) -> None:
        """The horse's line of code at a sample; counted after it is written."""
        self._layout.line = _bytes(line, _LINE_BYTES)
        self._layout.samples += 1

    @property
    def breach_json(self) -> str:
        return _text(self._layout.breach)

    @breach_json.setter
    def breach_json(self, value: str) -> None:
        if len(value.encode()) < _BREACH_BYTES:  # half a JSON text is worth nothing
            self._layout.breach = value.encode()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _bytes(text: str, room: int) -> bytes:
    return text.encode("utf-8", "replace")[: room - 1]
