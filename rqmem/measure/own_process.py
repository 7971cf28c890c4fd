"""The meter of this very process and what it started, for jobs: the exact one, or where ``/proc`` falls short psutil's.

Reads and chooses; judges nothing. Orphans of what it started are the worker's to find.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Protocol

from rqmem.measure import process_tree, procfs
from rqmem.measure.meter import FullReading, TreeMeter
from rqmem.measure.portable import PortableMeter

_log = logging.getLogger("rqmem.measure")


class Meter(Protocol):
    """What `rqmem.job.usage` asks of a meter. Bytes; ``now`` and ``clock`` are of one monotonic clock."""

    def raw(self) -> int: ...
    def estimate(self, raw: int) -> int: ...
    def doubtful(self, raw: int, ceiling_bytes: int, now: float) -> bool: ...
    def wants_full(self, raw: int, now: float) -> bool: ...
    def full(self, clock: Callable[[], float]) -> FullReading: ...
    def close(self) -> None: ...


class ExactMeter(TreeMeter):
    def __init__(self, growth_bytes_per_second: float) -> None:
        pid = os.getpid()
        self._below = process_tree.Members(pid, checked=True)
        super().__init__(lambda: [pid, *self._below()], growth_bytes_per_second, checked=True)

    def close(self) -> None:
        super().close()
        self._below.close()


def meter_of_this_process(growth_bytes_per_second: float) -> Meter:
    """The best meter there is here; where that is not the exact one, a warning says so once per process."""
    why = proc_shortcoming()
    if not why:
        return ExactMeter(growth_bytes_per_second)
    meter = PortableMeter()
    _tell(os.getpid(), why, bool(meter.raw()))
    return meter


@cache
def _tell(pid: int, why: str, readable: bool) -> None:
    """Once per process: a fork is another."""
    if readable:
        _log.warning("memory is read by psutil here, which is less exact: %s", why)
    else:
        _log.warning("memory cannot be read here, so checkpoints keep no ceiling: %s, and psutil reads nothing", why)


@cache
def proc_shortcoming() -> str:
    """Why ``/proc`` does not tell what this process uses and which children it has; "" where it does. Read once."""
    try:
        rollup = Path("/proc/self/smaps_rollup").read_text()
        children = Path("/proc/thread-self/children").exists()
    except OSError as error:
        return why_unreadable(sys.platform, error, Path("/proc/self").exists())
    try:
        procfs.parse_rollup(rollup)
    except (KeyError, ValueError):
        return "its smaps_rollup names no Pss_Anon (Linux before 5.4, or a sandbox that leaves it out)"
    return "" if children else "the kernel does not tell children of processes (built without CONFIG_PROC_CHILDREN)"


def why_unreadable(platform: str, error: OSError, has_proc: bool) -> str:
    """Words for ``/proc/self/smaps_rollup`` that cannot be read."""
    if platform != "linux":
        return f"{'macOS' if platform == 'darwin' else platform} has no /proc as Linux has it"
    if not has_proc:
        return "/proc is not mounted"
    if isinstance(error, PermissionError):
        return (
            "/proc/self/smaps_rollup may not be read (the Python program has capabilities or changed its user, "
            "or a security policy forbids it)"
        )
    return "there is no /proc/self/smaps_rollup (Linux before 4.14, or a sandbox such as gVisor)"
