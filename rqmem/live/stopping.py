"""Waiting until a signal comes, which ends a run of the monitor."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopping:
    """While it is entered, it catches and notes SIGINT, SIGTERM and SIGHUP, except those that are ignored (``nohup``).

    They interrupt only `wait`. Reading and writing is finished first.

    Attributes:
        reason: the name of the first one; empty: none came.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stopping:
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def wait(self, seconds: float) -> bool:
        """Wait this long, or until a signal comes; returns whether one has come."""
        if not self.reason:
            select.select([self._wake_read], [], [], max(0.0, seconds))
        return bool(self.reason)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.reason = self.reason or signal.Signals(number).name
        with suppress(BlockingIOError):
            os.write(self._wake_write, b"!")
