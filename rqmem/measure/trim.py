"""Giving memory back: Python's garbage collection, then glibc's ``malloc_trim``."""

from __future__ import annotations

import ctypes
import gc
from functools import cache
from typing import Any

_M_ARENA_MAX = -8  # of malloc.h


@cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def collect_and_trim() -> None:
    """Collect garbage and return freed heap to the kernel; without glibc only the first."""
    gc.collect()
    trim()


def trim() -> None:
    """Return freed heap to the kernel, as far as glibc can; without it nothing."""
    malloc_trim = getattr(_libc(), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def share_one_heap() -> None:
    """Have all threads that come use one heap of glibc's.

    By itself it gives them several, and each keeps what a large answer took.
    """
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def warm_up() -> None:
    """Load what `collect_and_trim` needs, so that its first use near a ceiling allocates nothing new."""
    _libc()
