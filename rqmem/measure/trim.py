"""Giving memory back: Python's garbage collection, then glibc's ``malloc_trim``."""

from __future__ import annotations

import ctypes
import gc
from functools import cache
from typing import Any


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


def warm_up() -> None:
    """Load what `collect_and_trim` needs, so that its first use near a ceiling allocates nothing new."""
    _libc()
