"""The jobs of the doctor's self-test. They do real harm, up to a bound, unless their worker keeps its ceiling."""

from __future__ import annotations

import ctypes
import mmap
import os
import time

from rqmem.measure import procfs
from rqmem.units import MB, to_bytes, to_mb

_OBJECT_BYTES = 1000
_HOLD_SECONDS = 0.2


def grow_in_objects(bound_mb: float) -> None:
    """Small Python objects, a thousand bytes each: can be unwound at any time."""
    rows = []
    for _ in range(to_bytes(bound_mb) // _OBJECT_BYTES):
        rows.append(bytes(_OBJECT_BYTES))


def grow_in_one_call(bound_mb: float) -> None:
    """One call of C, in which no Python code runs and no exception can be raised."""
    with mmap.mmap(-1, to_bytes(bound_mb), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        view = ctypes.c_char.from_buffer(memory)
        try:
            ctypes.memset(ctypes.addressof(view), 1, len(memory))
        finally:
            del view


def stay_below(bound_mb: float) -> tuple[float, float]:
    """Use memory up to ``bound_mb``, and hold it a while; returns when it began (epoch) and the MB it used."""
    began = time.time()
    used = procfs.read_usage(os.getpid())
    assert used is not None
    block = b"x" * max(0, to_bytes(bound_mb) - used.usage_bytes)
    time.sleep(_HOLD_SECONDS)
    return began, to_mb(used.usage_bytes + len(block) // MB * MB)
