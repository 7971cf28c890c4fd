"""Reading what is charged to a cgroup, again and again, from files that stay open. Bytes everywhere.

v1 counts socket buffers of TCP and UDP apart from the charge, and only in a group that has a limit for them
(``memory.kmem.tcp.limit_in_bytes``, see `rqmem.measure.cgroup.Group.set_limit`): here they are part of it, as in v2.
"""

from __future__ import annotations

import os
from pathlib import Path

from rqmem.measure.cgroup_files import Version, parse_parts
from rqmem.policy.page_cache import Charge

_TOTAL = {"v1": ("memory.memsw.usage_in_bytes", "memory.usage_in_bytes"), "v2": ("memory.current",)}  # memsw: and swap
_SOCKETS = "memory.kmem.tcp.usage_in_bytes"
_KERNEL = "memory.kmem.usage_in_bytes"
_PAGES_BEHIND = 2 * 64  # a processor: charged ahead of use, and used but not counted in memory.stat yet


def slack_bytes() -> int:
    """By how much the parts of a charge may lag behind its total."""
    return _PAGES_BEHIND * os.sysconf("SC_PAGE_SIZE") * (os.cpu_count() or 1)


class ChargeReader:
    """Holds descriptors from the start to `close`. Raises OSError where the group is gone."""

    def __init__(self, version: Version, group: Path) -> None:
        self._fds: list[int] = []
        try:
            total = next((name for name in _TOTAL[version] if (group / name).exists()), _TOTAL[version][-1])
            self._total = self._open(group / total)
            self._stat = self._open(group / "memory.stat")
            self._sockets = self._open_if_there(group / _SOCKETS)
            self._kernel = self._open_if_there(group / _KERNEL)
        except OSError:
            self.close()
            raise

    def total(self) -> int:
        """All that is charged: 5 µs."""
        return _number(self._total) + _number(self._sockets)

    def read(self) -> Charge:
        """The same in its parts: 60 µs."""
        parts = parse_parts(os.pread(self._stat, 65536, 0).decode())
        return Charge(
            total_bytes=self.total(),
            file_bytes=parts.file_bytes,
            anon_bytes=parts.anon_bytes,
            shmem_bytes=parts.shmem_bytes,
            perhaps_bytes=parts.slab_bytes + _number(self._kernel),
        )

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())
        self._total = self._stat = -1
        self._sockets = self._kernel = None

    def _open(self, path: Path) -> int:
        self._fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        return self._fds[-1]

    def _open_if_there(self, path: Path) -> int | None:
        return self._open(path) if path.exists() else None


def _number(file: int | None) -> int:
    return 0 if file is None else int(os.pread(file, 32, 0))
