"""Lets a job's time limit, a signal whose handler raises an exception, end an event loop in order."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended_by_time_limit(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """At the job's time limit, cancel what runs in the loop. Once that has ended, raise the time limit's error.

    If it were raised within the loop, asyncio or the client would take it for a network error and go on.
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
