"""The job that all systems run. It notes that it ran in a file, so that nobody has to ask a system how far it is.

A note is two times (when the job was sent, and when it began), appended with one write: that is atomic, whichever
processes and threads write.
"""

from __future__ import annotations

import os
import struct
import time
from functools import cache

NOTES_VARIABLE = "BENCH_NOTES"
URL_VARIABLE = "RQMEM_REDIS_URL"
RESULTS_VARIABLE = "BENCH_RESULTS"
"""Set: systems that keep no results by default keep them too."""

QUEUE = "bench"
NOTE = struct.Struct("dd")


def run(sent: float = 0.0, seconds: float = 0.0, argument: str = "", result_bytes: int = 0) -> str | None:
    """Sleep, note it, and return a text of that size."""
    began = time.monotonic()
    if seconds:
        time.sleep(seconds)
    os.write(_notes(os.getpid()), NOTE.pack(sent, began))
    return "x" * result_bytes or None


@cache
def _notes(pid: int) -> int:
    return os.open(os.environ[NOTES_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def url() -> str:
    return os.environ.get(URL_VARIABLE, "redis://127.0.0.1:6379")


def keeps_results() -> bool:
    return bool(os.environ.get(RESULTS_VARIABLE))
