"""Facts on the machine and the container this process is in: memory there is, and kills for want of it.

Bytes, and counts since boot (or since the group was made). What cannot be read is None.
"""

from __future__ import annotations

from collections import deque
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from rqmem.measure import cgroup_files as cgroup
from rqmem.measure import kept_files
from rqmem.measure.procfs import parse_kb
from rqmem.units import MB


def read_meminfo() -> dict[str, int]:
    """Sizes in KB by name; empty: ``/proc`` is not there."""
    return parse_kb(read_text(Path("/proc/meminfo")) or "")


def total_bytes() -> int:
    return read_meminfo()["MemTotal"] * 1024


def container_limit_bytes() -> int | None:
    """The smallest limit on our own group and its ancestors; None where none is below the machine's memory."""
    own = cgroup.read_own()
    limits = read_limits(own) if own else []
    return min((limit for limit in limits if limit < total_bytes()), default=None)


def read_limits(own: cgroup.Own) -> list[int]:
    """Limits that apply in ``own``. v1 tells the smallest one, of ancestors too; v2 is asked group by group."""
    if own.version == "v1":
        stat = read_text(own.path / "memory.stat")
        limit = cgroup.parse_counters(stat or "").get("hierarchical_memory_limit")
        return [] if limit is None else [limit]
    texts = [read_text(path / "memory.max") for path in own.lineage]  # the root has none
    limits = [cgroup.parse_limit(text) for text in texts if text is not None]
    return [limit for limit in limits if limit is not None]


class Memory(NamedTuple):
    """Sizes in MB; shares of the last ten seconds in percent."""

    total_mb: float
    available_mb: float
    container_limit_mb: float | None
    some_percentage: float | None
    full_percentage: float | None


def read_memory() -> Memory | None:
    """The memory of the machine, and of the container that this process is in, by now; None: ``/proc`` is not there."""
    kb = read_meminfo()
    if not kb:
        return None
    pressure = parse_pressure(read_text(Path("/proc/pressure/memory")) or "")
    limit = _container_limit_mb()
    return Memory(
        round(kb["MemTotal"] / 1024, 1), round(kb.get("MemAvailable", 0) / 1024, 1), limit,
        pressure.get("some avg10"), pressure.get("full avg10"),
    )  # fmt: skip


def parse_pressure(text: str) -> dict[str, float]:
    """``some avg10``, ``full total`` ... of ``/proc/pressure/memory``; empty: not as the kernel writes it."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    fields = ((kind, *field.partition("=")) for kind, *more in lines for field in more)
    try:
        return {f"{kind} {name}": float(value) for kind, name, _, value in fields}
    except ValueError:
        return {}


@cache
def _container_limit_mb() -> float | None:
    """As it was when it was first asked for: it is read with each heartbeat."""
    limit = container_limit_bytes()
    return None if limit is None else round(limit / MB, 1)


Where = Literal["group", "machine"]
"""Whose kills for memory a count has: those in our own group (without its sub-groups), or all of this machine."""


def oom_kills() -> tuple[Where, int] | None:
    """Kills for memory so far: in our own group; where that does not tell (v2's root, no memory groups), anywhere."""
    own = cgroup.read_actual()
    kills = cgroup.read_local_kernel_kills(own.version, own.path) if own is not None else None
    if kills is not None:
        return "group", kills
    anywhere = cgroup.parse_counters(read_text(Path("/proc/vmstat")) or "").get("oom_kill")
    return None if anywhere is None else ("machine", anywhere)


class OomKills:
    """Whether the kernel has killed for memory lately, as near to this process as that can be known."""

    def __init__(self) -> None:
        self._seen: deque[tuple[Where, int] | None] = deque(maxlen=2)

    def begin(self) -> None:
        """What was killed before does not count."""
        self._seen.extend([oom_kills()] * 2)

    def look(self) -> None:
        """Look once more, at each beat of the worker."""
        self._seen.append(oom_kills())

    def lately(self) -> Where | None:
        """Where it has killed within the last two looks; None: it has not."""
        before, now = self._seen[0] if self._seen else None, oom_kills()
        if before is None or now is None or before[0] != now[0] or now[1] <= before[1]:
            return None
        return now[0]


def read_text(path: Path) -> str | None:
    """What a file of the kernel's holds (`kept_files.read_text`); None: it cannot be read."""
    try:
        return kept_files.read_text(str(path))
    except OSError:
        return None
