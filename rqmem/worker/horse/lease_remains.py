"""What each job of a lease has used at most, and whether it has left the horse as it was. Some microseconds a job.

Short jobs end before the worker reads anything. The kernel keeps a mark of the most that was resident, which is set
back when it has risen. It also tells that nothing has been left: no more can be resident than the mark says.
"""

from __future__ import annotations

import _thread
import contextlib
import os

from rqmem.measure import procfs
from rqmem.measure.trim import trim
from rqmem.worker.horse.leak_probe import WORTH_TIDYING_BYTES
from rqmem.worker.horse.process_state import Glance
from rqmem.worker.horse.user_code import most_resident_kb

_NOISE_KB = 1024
_WORTH_KB = WORTH_TIDYING_BYTES // 1024


class Remains:
    """Of the jobs of one lease, from now on.

    Args:
        held_bytes: what counts as used by now.
    """

    def __init__(self, held_bytes: int) -> None:
        self._held_bytes = held_bytes
        self._statm = os.open("/proc/self/statm", os.O_RDONLY)
        self._resident_kb = self._resident()
        self._mark_kb = most_resident_kb()
        self._threads = _thread._count()
        self._glance = Glance()

    def peak_bytes(self) -> int:
        """What the job that has just ended used at most; 0: no more than what was there. For `left` it comes first."""
        mark_kb = most_resident_kb()
        if mark_kb - self._mark_kb <= _NOISE_KB:
            return 0
        self._set_mark_back()
        return self._held_bytes + 1024 * max(0, mark_kb - self._resident_kb)

    def left(self) -> str:
        """What the job has left or changed; "": nothing, as far as such a look tells."""
        if self._mark_kb + _NOISE_KB - self._resident_kb >= _WORTH_KB:
            try:
                if self._grown() and not self._shrinks():
                    return "left memory"
            except OSError:
                return "closed files of its process"
        if _thread._count() != self._threads:
            return "left threads"
        if self._glance.differs():
            return "changed its process"
        return ""

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a job may have closed it
            os.close(self._statm)

    def _grown(self) -> bool:
        return self._resident() - self._resident_kb >= _WORTH_KB

    def _shrinks(self) -> bool:
        """Whether what the horse has grown by is only what the allocator keeps for later, which goes back."""
        trim()
        self._set_mark_back()
        return not self._grown()

    def _resident(self) -> int:
        return procfs.parse_resident_pages(os.pread(self._statm, 128, 0)) * procfs.PAGE_BYTES // 1024

    def _set_mark_back(self) -> None:
        """What rises from here on is the next job's."""
        with contextlib.suppress(OSError):  # where it may not be, only what rises above it shows
            procfs.set_mark_back(os.getpid())
        self._mark_kb = most_resident_kb()
