"""The process next to a worker in which hooks of `rqmem.hooks.on` run.

It begins when all plugins have been imported. The worker writes events to a socket and never waits: what
finds no room is dropped and counted. A hook that takes longer than a minute, or with which the process holds more than
a job may, ends the process with an error in the log; between two jobs the worker begins another one.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable

from rqmem import events, hooks
from rqmem.measure import procfs
from rqmem.store import codec
from rqmem.units import show_mb, to_bytes
from rqmem.worker.helper_process import HelperProcess

_MOST_SECONDS = 60.0
_LOOK_SECONDS = 0.1
_MESSAGE_BYTES = 128 * 1024
_log = logging.getLogger("rqmem.hooks")


class Listening(HelperProcess):
    """One worker's process for `on` hooks; `tell` is for any thread."""

    what, again_seconds = "the process of on(...) hooks", 1.0

    def __init__(self, worker: str, limit_mb: float) -> None:
        super().__init__(worker)
        self._limit_mb = limit_mb
        self._dropped = 0

    def tell(self, event: events.Event) -> None:
        try:
            if self._end is not None:
                self._end.send(json.dumps(codec.event_to_values(event)).encode(), socket.MSG_DONTWAIT)
        except OSError:  # no room, or it is dead
            self._dropped += 1

    def tend(self) -> bool:
        if self._dropped:
            _log.warning("worker %s: hooks did not hear of %d events: they take too long", self._worker, self._dropped)
            self._dropped = 0
        return super().tend()

    def stop(self) -> bool:
        done = super().stop()
        if not done:
            _log.error("worker %s: hooks of on(...) were cut short: they take too long", self._worker)
        return done

    def serve(self, end: socket.socket) -> None:
        guard = _Guard(self._worker, self._limit_mb)
        while text := end.recv(_MESSAGE_BYTES):
            event = codec.event_from_values(json.loads(text))
            for kind, hook in hooks.listeners():
                if isinstance(event, kind):
                    guard.call(f"on({kind.__name__}) hook {hooks.name_of(hook)}", hook, event)


class _Guard:
    """Calls hooks; a thread of it ends the process in which one takes too long or too much."""

    def __init__(self, worker: str, limit_mb: float) -> None:
        self._worker = worker
        self._limit_mb = limit_mb
        self._most_bytes = procfs.own_held_bytes() + to_bytes(limit_mb)
        self._running: tuple[str, float] | None = None
        threading.Thread(target=self._look, name="rqmem-guard", daemon=True).start()

    def call(self, name: str, hook: Callable[..., object], event: events.Event) -> None:
        self._running = (name, time.monotonic())
        try:
            hook(event)
        except BaseException as error:  # noqa: BLE001  it is the hook that fails or wants to leave, and no other
            _log.error(
                "worker %s: %s failed: %s", self._worker, name, f"{type(error).__name__}: {error}", exc_info=True
            )
        self._running = None

    def _look(self) -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            running = self._running
            if running is not None and time.monotonic() - running[1] > _MOST_SECONDS:
                self._end(f"{running[0]} took longer than {_MOST_SECONDS:.0f} s")
            if procfs.own_held_bytes() > self._most_bytes:
                hook = f"with {running[0]} " if running is not None else ""
                self._end(f"{hook}it holds more than the {show_mb(self._limit_mb)} MB of a job")

    def _end(self, why: str) -> None:
        _log.error("worker %s: the process of on(...) hooks ends: %s", self._worker, why)
        os._exit(1)
