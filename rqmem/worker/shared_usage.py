"""What a job without a cgroup uses of shared memory beyond what its processes' own figures tell.

Looking takes long, so it is done only when all shared memory of the machine (``Shmem`` of ``/proc/meminfo``, 10 µs) has
changed by some MB, and for a twentieth of the time at most. Objects that were there before the job do not count here;
of what its horse held at the end of the job before, growth does.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection

from rqmem.measure import shared_objects
from rqmem.measure.kept_files import KeptFile
from rqmem.measure.shared_objects import Held, Key
from rqmem.units import MB

_clock = time.monotonic
_SHMEM = re.compile(rb"^Shmem: +(\d+) kB", re.MULTILINE)
_STEP_BYTES = 4 * MB
_AT_MOST_EVERY_SECONDS = 0.005
_PAUSE = 20  # times what a look takes
_CLOCK_SECONDS = 0.02  # by so much the kernel's stamps of files may be behind


class SharedMemory:
    """Of one job, from its beginning to `close`.

    Args:
        before: what its horse held at the end of the job before, in bytes by object; brought up to date in `close`.
    """

    def __init__(self, before: dict[Key, int]) -> None:
        self._before = before
        self.since = time.time() - _CLOCK_SECONDS
        self._ever: set[int] = set()
        self._looked_at, self._pause = _clock(), 0.0
        self._looked = False

    def changed(self, pids: Collection[int], now: float) -> bool:
        """Whether to look again: shared memory has changed since. To be asked at each reading."""
        self._ever.update(pids)
        if now < self._looked_at + max(_AT_MOST_EVERY_SECONDS, self._pause):
            return False
        self._looked_at = now
        return _machine.has_changed()

    def look(self, pids: Collection[int]) -> int:
        """Bytes of the job's objects that these processes hold; 0 as long as shared memory has not changed."""
        if not (_machine.has_changed() or self._looked):
            return 0
        began = _clock()
        self._looked = True
        _machine.remember()
        used = sum(max(0, each.size_bytes - self._before.get(key, 0)) for key, each in self.objects(pids).items())
        self._looked_at = _clock()
        self._pause = _PAUSE * (self._looked_at - began)
        return used

    def objects(self, pids: Collection[int]) -> dict[Key, Held]:
        """The job's objects that these processes hold."""
        self._ever.update(pids)
        held = shared_objects.held_by(pids, self._ever)
        own = (
            key for key, each in held.items() if key in self._before or each.born_at >= self.since - (key[0] == "sysv")
        )
        return {key: held[key] for key in own}

    def new_files(self) -> dict[Key, Held]:
        """Files in /dev/shm that are new since the job began, and that no process but its own holds: after a breach."""
        found = shared_objects.new_files(self.since, os.getuid())
        if found:
            others = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) not in self._ever]  # noqa: PTH208
            for key in shared_objects.held_by(others):
                found.pop(key, None)
        return found

    def close(self, pids: Collection[int]) -> None:
        if self._looked:
            held = shared_objects.held_by(pids, self._ever)
            self._before.clear()
            self._before.update({key: each.size_bytes for key, each in held.items()})


class _Machine:
    """How much shared memory this machine has, and had when somebody looked last, for this job or one before."""

    def __init__(self) -> None:
        self._meminfo: KeptFile | None = None
        self._known_bytes: int | None = None

    def has_changed(self) -> bool:
        if self._known_bytes is None:
            self.remember()
        return abs(self._read() - (self._known_bytes or 0)) >= _STEP_BYTES

    def remember(self) -> None:
        self._known_bytes = self._read()

    def _read(self) -> int:
        try:
            if self._meminfo is None:
                self._meminfo = KeptFile("/proc/meminfo")
            found = _SHMEM.search(self._meminfo.read(4096))
            return int(found[1]) * 1024 if found else 0
        except OSError:  # descriptors are used up: what was known goes on
            return self._known_bytes or 0


_machine = _Machine()
