"""Jobs that only the measurements need."""

from __future__ import annotations

import os
import time

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
    rollup = procfs.read_usage(os.getpid())
    assert rollup is not None
    held = bytearray(ceiling_mb * MB - below_mb * MB - rollup.usage_bytes)
    work_for(seconds)
    del held
