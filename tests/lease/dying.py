"""Kills a process at a line of rqmem's own code, counted from the moment at which a job or a worker asks for it.

Imported by a worker (``--preload``), it kills that worker at a line of the code that settles what others have left.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

AT, OF_FILES = "TESTS_DIE_AT_LINE", "TESTS_DIE_IN_FILES"


def at_line(number: int, kill: Callable[[], None], is_counted: Callable[[str], bool]) -> Callable[..., Any]:
    """Call ``kill`` at that line from now on, of files with such names, in this process but not in its forks."""
    left, of_process = number, os.getpid()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if not is_counted(frame.f_code.co_filename):
            return None
        if event == "line" and os.getpid() == of_process:
            left -= 1
            if left == 0:
                kill()
        return trace

    frame: FrameType | None = sys._getframe()
    while frame is not None:
        frame.f_trace = trace if is_counted(frame.f_code.co_filename) else frame.f_trace
        frame = frame.f_back
    sys.settrace(trace)
    return trace


def kill_horse_at(number: int) -> None:
    """In a job."""
    at_line(_kept(number), lambda: os.kill(os.getpid(), signal.SIGKILL), _is_ours)


def kill_worker_at(number: int) -> None:
    """In a job: its worker dies, and so its horse does."""

    def kill() -> None:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)

    at_line(_kept(number), kill, _is_ours)


def _kept(number: int) -> int:
    """What a job has changed is put back after it, but for this."""
    from rqmem.worker.horse import process_state

    process_state._SETTINGS["trace function"] = lambda value: None
    return number


def _is_ours(name: str) -> bool:
    return any(f"/rqmem/{part}/" in name for part in ("worker", "store", "job"))


if AT in os.environ:
    _files = tuple(os.environ[OF_FILES].split())
    threading.settrace(
        at_line(int(os.environ[AT]), lambda: os.kill(os.getpid(), signal.SIGKILL), lambda name: name.endswith(_files))
    )
