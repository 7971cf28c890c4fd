"""An event loop within a job, and the job's time limit, which is a signal that raises wherever the main thread is."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended_by_time_limit(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """What runs in the loop meanwhile is cancelled at the job's time limit, whose error is raised once that has ended.

    Raised within the loop, asyncio or the client would take it for an error of the network and go on without a limit.
    """
    at_limit = signal.getsignal(signal.SIGALRM)
    if not callable(at_limit) or threading.current_thread() is not threading.main_thread():
        yield
        return
    passed = False

    def cancel_all() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()

    def note(*_: object) -> None:
        nonlocal passed
        passed = True
        loop.call_soon_threadsafe(cancel_all)

    signal.signal(signal.SIGALRM, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, at_limit)
        if passed:
            at_limit(signal.SIGALRM, None)
