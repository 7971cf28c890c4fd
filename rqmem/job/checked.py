"""Checks of values that job classes and calls give."""

from __future__ import annotations

from typing import Any

from rqmem.errors import ConfigError
from rqmem.units import MB


def checked_limit(limit_mb: Any, whose: str) -> float | None:
    """A declared ceiling as MB; None stays None. Raises `ConfigError`."""
    if limit_mb is None:
        return None
    if isinstance(limit_mb, bool) or not isinstance(limit_mb, int | float) or not 0 < limit_mb < 2**63 / MB:
        raise ConfigError(f"{whose} is {limit_mb!r}: give a number of MB greater than 0, for example 256")
    return float(limit_mb)


def checked_chunk_size(size: Any, whose: str) -> int | None:
    """A chunk size of at least 1; None stays None. Raises `ConfigError`."""
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ConfigError(f"{whose} is {size!r}: give a whole number of items of at least 1")
    return size
