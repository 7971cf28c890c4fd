"""The place on the shared page for the record of a run that Redis does not have yet (`rqmem.store.held_run`).

One writer, which may be killed at any moment, and readers in another process: no locks. A reader that comes in between
reads again; if the writer died there, what stood before is lost, and the reader finds nothing.
"""

from __future__ import annotations

import ctypes
import time

ROOM_BYTES = 4096
_BETWEEN_SECONDS = 0.2  # a living writer takes some microseconds


class HeldOnPage(ctypes.Structure):
    """``number``: odd while the data change. ``length``: 0: there are none."""

    number: int
    length: int

    _fields_ = [("number", ctypes.c_int64), ("length", ctypes.c_int64), ("data", ctypes.c_char * ROOM_BYTES)]

    def write(self, data: bytes) -> bool:
        """Replace what is there. False: there is no room for so much, and what was there stays."""
        if len(data) > ROOM_BYTES:
            return False
        number = self.number | 1  # it is odd where a signal has cut the last write short
        self.number = number
        ctypes.memmove(ctypes.addressof(self) + HeldOnPage.data.offset, data, len(data))
        self.length = len(data)
        self.number = number + 1
        return True

    def clear(self) -> None:
        self.length = 0

    def read(self) -> bytes:
        """In another process. Empty: there is nothing, or its writer has died while it wrote."""
        deadline = time.monotonic() + _BETWEEN_SECONDS
        while time.monotonic() < deadline:
            before, length = self.number, self.length
            data = ctypes.string_at(ctypes.addressof(self) + HeldOnPage.data.offset, length)
            if before == self.number and not before & 1:
                return data
            time.sleep(0)
        return b""
