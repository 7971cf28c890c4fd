"""The event ring: sends the horse's events to its worker through shared memory.

The horse writes lines, and the worker reads them later. Nobody waits and there are no locks. Lines of a killed horse
stay readable. A reader that comes too late loses the oldest lines, and `read` reports that.
"""

from __future__ import annotations

import ctypes

_ROOM = 65536  # a second of events, also of a job that collects garbage all the time
_LONGEST = 4096


class EventRing(ctypes.Structure):
    """One writer, one reader. ``written``: bytes written since it began; counted after they are there."""

    written: int
    _text: ctypes.Array[ctypes.c_ubyte]

    _fields_ = [("written", ctypes.c_int64), ("_text", ctypes.c_ubyte * _ROOM)]

    def write(self, line: str) -> None:
        """Add a line; one that is too long is left out."""
        data = line.encode("utf-8", "replace") + b"\n"
        if len(data) > _LONGEST:
            return
        room = memoryview(self._text).cast("B")
        at = self.written % _ROOM
        first = min(len(data), _ROOM - at)
        room[at : at + first] = data[:first]
        room[: len(data) - first] = data[first:]
        self.written += len(data)

    def read(self, since: int) -> tuple[list[str], int, bool]:
        """Lines written since position ``since``, the position after them, and whether some were lost."""
        written = self.written
        lost = written - since > _ROOM
        data = self._between(max(since, written - _ROOM), written)
        overwritten = self.written - max(since, written - _ROOM) - _ROOM  # while we read
        if overwritten > 0:
            data, lost = data[overwritten:], True
        if lost:
            data = data.partition(b"\n")[2]
        return data.decode("utf-8", "replace").splitlines(), written, lost

    def _between(self, start: int, end: int) -> bytes:
        room = memoryview(self._text).cast("B")
        first, last = start % _ROOM, end % _ROOM
        if start == end:
            return b""
        return bytes(room[first:last]) if first < last else bytes(room[first:]) + bytes(room[:last])
