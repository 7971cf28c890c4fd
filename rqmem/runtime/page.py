"""The shared page: memory that worker and horse both see, made before the fork, one per horse.

The horse writes where it is; the worker writes what it measured. No locks: each field has one writer at a
time, and the worker trusts texts only while the tree is stopped or dead.
"""

from __future__ import annotations

import ctypes
import mmap

_BREACH_BYTES = 8192


class SharedPage(ctypes.Structure):
    """The page as attributes. Texts are cut to their room; a torn one is read with replacement characters.

    Attributes:
        ceiling_bytes: horse: the job's effective ceiling.
        declared_bytes: horse: what the job declared; 0 where it declared none.
        samples: horse: how many samples of its stack it has taken.
        peak_bytes: worker: the highest usage seen.
        taken: horse: it has read the order for this job.
        in_user_code: horse: an exception may be raised now.
        has_run: horse: the job is memory-aware, a run is kept for it.
        told: whoever settles: the breach stands in the journal, as in ``breach_json``.
        job: horse: job type, a dotted path.
        operation: horse: last named place.
        line: horse: where the last sample found it.
        breach_json: worker, then horse (adds its line): the breach.
    """

    ceiling_bytes: int
    declared_bytes: int
    samples: int
    peak_bytes: int
    taken: bool
    in_user_code: bool
    has_run: bool
    told: bool

    _fields_ = [
        ("ceiling_bytes", ctypes.c_int64),
        ("declared_bytes", ctypes.c_int64),
        ("samples", ctypes.c_int64),
        ("peak_bytes", ctypes.c_int64),
        ("taken", ctypes.c_bool),
        ("in_user_code", ctypes.c_bool),
        ("has_run", ctypes.c_bool),
        ("told", ctypes.c_bool),
        ("_job", ctypes.c_char * 256),
        ("_operation", ctypes.c_char * 256),
        ("_line", ctypes.c_char * 512),
        ("_breach_json", ctypes.c_char * _BREACH_BYTES),
    ]

    @classmethod
    def new(cls, ceiling_bytes: int) -> SharedPage:
        """A page that children forked from now on share with this process."""
        page = cls.from_buffer(mmap.mmap(-1, ctypes.sizeof(cls)))
        page.ceiling_bytes = ceiling_bytes
        return page

    def reset(self, ceiling_bytes: int) -> None:
        """Ready for another job."""
        ctypes.memset(ctypes.addressof(self), 0, ctypes.sizeof(self))
        self.ceiling_bytes = ceiling_bytes

    @property
    def job(self) -> str:
        return self._get("_job")

    @job.setter
    def job(self, text: str) -> None:
        self._set("_job", text)

    @property
    def operation(self) -> str:
        return self._get("_operation")

    @operation.setter
    def operation(self, text: str) -> None:
        self._set("_operation", text)

    @property
    def line(self) -> str:
        return self._get("_line")

    def add_sample(self, line: str) -> None:
        """The horse's line of code at a sample; counted after it is written."""
        self._set("_line", line)
        self.samples += 1

    @property
    def breach_json(self) -> str:
        return self._get("_breach_json")

    @breach_json.setter
    def breach_json(self, text: str) -> None:
        if len(text.encode()) < _BREACH_BYTES:  # half a JSON text is worth nothing
            self._set("_breach_json", text)

    def _get(self, field: str) -> str:
        raw: bytes = getattr(self, field)
        return raw.decode("utf-8", "replace")

    def _set(self, field: str, text: str) -> None:
        room = getattr(type(self), field).size
        setattr(self, field, text.encode("utf-8", "replace")[: room - 1])
