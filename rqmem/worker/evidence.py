"""What is written down about a job's processes when it is stopped. Reading only; nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rqmem.measure import procfs
from rqmem.units import to_mb

_SHOWN_PROCESSES = 8
_CURVE_POINTS = 30


def tree(usage_by_pid: Mapping[int, int]) -> list[tuple[int, str, float]]:
    """Pid, command and MB of each process, largest first."""
    largest = sorted(usage_by_pid.items(), key=lambda each: -each[1])[:_SHOWN_PROCESSES]
    return [(pid, procfs.read_command(pid), to_mb(usage)) for pid, usage in largest]


def curve(points: Iterable[tuple[float, int]], until: float) -> list[tuple[float, float]]:
    """Readings (time, bytes) as (seconds before ``until``, MB), thinned; the last one stays."""
    known = list(points)
    step = max(1, -(-len(known) // _CURVE_POINTS))
    return [(round(until - at, 3), to_mb(usage)) for at, usage in known[::-1][::step][::-1]]
