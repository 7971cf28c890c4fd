"""What the machine and the container have left for one who watches them: free memory, and how long processes wait.

A container is any group of ours with a limit, and its ancestors. Bytes. What cannot be read is None.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

from rqmem.measure import cgroup_files as cgroup
from rqmem.measure.machine import parse_pressure, read_meminfo, read_text
from rqmem.policy.pressure import HostReading

PRESSURE = Path("/proc/pressure/memory")
_WINDOW_SECONDS = 3.0
_FILES = {"v1": ("memory.limit_in_bytes", "memory.usage_in_bytes"), "v2": ("memory.max", "memory.current")}


def free_bytes(limit: int, used: int, stat: str) -> int:
    """What a group may still take: up to its limit, and page cache and slab that the kernel drops for it."""
    parts = cgroup.parse_parts(stat)
    return limit - used + parts.file_bytes + parts.slab_bytes


class HostReader:
    """Reads `HostReading` again and again."""

    def __init__(self, own: cgroup.Own | None = None, pressure: Path | None = None) -> None:
        self._own = own or cgroup.read_own()
        self._pressure = pressure or PRESSURE
        self._stalls: deque[tuple[float, tuple[float | None, ...]]] = deque()

    def read(self, now: float) -> HostReading | None:
        """By now; None: ``/proc`` does not tell. ``now`` in seconds on any one clock."""
        kb = read_meminfo()
        if "MemAvailable" not in kb:
            return None
        free, total = min([(kb["MemAvailable"] * 1024, kb["MemTotal"] * 1024), *self._groups()])
        return HostReading(free, total, self._stalled(now))

    def _groups(self) -> Iterator[tuple[int, int]]:
        """Free bytes and limit of our group and its ancestors, as far as they have one."""
        own = self._own
        if own is None:
            return
        limit_name, used_name = _FILES[own.version]
        for path in own.lineage:
            texts = [read_text(path / name) for name in (limit_name, used_name, "memory.stat")]
            if None in texts:
                continue
            limit_text, used_text, stat = map(str, texts)
            limit = cgroup.parse_limit(limit_text)
            if limit is not None and limit < 2**60:
                yield free_bytes(limit, int(used_text), stat), limit

    def _stalled(self, now: float) -> float:
        """Share of the last seconds in which all processes of the machine, or of the container, waited for memory."""
        paths = [self._pressure]
        if self._own is not None and self._own.version == "v2":
            paths.append(self._own.path / "memory.pressure")
        stalls = tuple(parse_pressure(read_text(path) or "").get("full total") for path in paths)
        self._stalls.append((now, stalls))
        while len(self._stalls) > 2 and self._stalls[1][0] <= now - _WINDOW_SECONDS:
            self._stalls.popleft()
        at, before = self._stalls[0]
        if now - at < _WINDOW_SECONDS / 2:
            return 0.0
        shares = (
            (new - old) / 1e6 / (now - at)
            for new, old in zip(stalls, before, strict=True)
            if new is not None and old is not None
        )
        return max(shares, default=0.0)
