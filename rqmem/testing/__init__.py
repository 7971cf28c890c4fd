"""Helpers for testing jobs, rqmem's own and yours. Needs no test framework.

`wait_until` and `assert_stays_under` are here. Jobs to run against your own set-up are in
`rqmem.testing.adversaries` (must be stopped) and `rqmem.testing.honest` (must not); a real worker for
pytest is in `rqmem.testing.fixtures`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rqmem.testing.stays_under import assert_stays_under

__all__ = ["assert_stays_under", "wait_until"]

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.01, 0.05


def wait_until(condition: Callable[[], object], timeout_seconds: float = 60) -> None:
    """Return once ``condition()`` is true; raise `AssertionError` when it is not within the time."""
    deadline, pause = time.monotonic() + timeout_seconds, _FIRST_PAUSE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            name = getattr(condition, "__qualname__", repr(condition))
            raise AssertionError(f"not true within {timeout_seconds:g} s: {name}")
        time.sleep(pause)
        pause = min(1.1 * pause, _LONGEST_PAUSE_SECONDS)
