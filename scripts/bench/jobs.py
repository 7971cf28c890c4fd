"""Jobs that only the measurements need."""

from __future__ import annotations

import os
import time
from importlib import import_module

from rqmem.measure import procfs
from rqmem.units import MB


def nothing() -> None: ...


def work_for(seconds: float) -> None:
    """Keeps the interpreter busy and allocates next to nothing."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))


def work_near(ceiling_mb: int, below_mb: int, seconds: float) -> None:
    """The same, ``below_mb`` MB under the ceiling."""
    held = bytearray(ceiling_mb * MB - below_mb * MB - _usage_bytes())
    work_for(seconds)
    del held


def usage_after_imports(modules: list[str]) -> float:
    """MB of a horse that has imported what another job imports, as ceilings count it."""
    for name in modules:
        import_module(name)
    return _usage_bytes() / MB


def _usage_bytes() -> int:
    rollup = procfs.read_usage(os.getpid())
    assert rollup is not None
    return rollup.usage_bytes
