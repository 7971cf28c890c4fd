"""What short jobs of a lease use at most. They end before the worker reads anything; the kernel keeps a mark."""

from __future__ import annotations

import contextlib
import os

from rqmem.measure import procfs
from rqmem.worker.horse.user_code import most_resident_kb

_NOISE_KB = 1024


class Peaks:
    """The kernel's mark, as the jobs of one lease raise it. It is set back then: it is none of the next job's.

    Args:
        held_bytes: what counted as used when the lease began.
        resident_kb: what was resident then.
    """

    def __init__(self, held_bytes: int, resident_kb: int) -> None:
        self._held_bytes = held_bytes
        self._resident_kb = resident_kb
        self._mark_kb = most_resident_kb()

    def bytes(self) -> int:
        """What the job that has just ended used at most, in some microseconds; 0: no more than what was there."""
        mark_kb = most_resident_kb()
        if mark_kb - self._mark_kb <= _NOISE_KB:
            return 0
        self.set_back()
        return self._held_bytes + 1024 * max(0, mark_kb - self._resident_kb)

    def set_back(self) -> None:
        """What rises from here on is the next job's."""
        with contextlib.suppress(OSError):  # where it may not be, only what rises above it shows
            procfs.set_mark_back(os.getpid())
        self._mark_kb = most_resident_kb()
