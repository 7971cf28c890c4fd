"""A process forked from the worker for work that may be slow: it delays no job, and its death ends no worker.

It ends when its worker closes the socket between them, or dies. It belongs to no job's process tree: it is forked
before jobs run, or between two jobs, and the worker knows its pid.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from rqmem.measure import linux, process_tree

_DRAIN_SECONDS = 5.0
_log = logging.getLogger("rqmem.worker")


class HelperProcess(ABC):
    """One of a worker, for its main thread.

    Attributes:
        pid: 0: there is none now.
        what: it is, for the log.
        again_seconds: it begins at most once in that time.
    """

    what: str
    again_seconds: float

    def __init__(self, worker: str) -> None:
        self.pid = 0
        self._worker = worker
        self._end: socket.socket | None = None
        self._begun_at = 0.0

    @abstractmethod
    def serve(self, end: socket.socket) -> None:
        """In the process: work until nothing more comes from ``end``."""

    def start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._begun_at = time.monotonic()
        self.pid = fork(lambda: self._serve(ours, theirs), f"worker {self._worker}: {self.what} failed")
        theirs.close()
        self._end = ours

    def _serve(self, workers: socket.socket, own: socket.socket) -> None:
        workers.close()
        self.serve(own)

    def tend(self) -> bool:
        """Fork another one if it has died. Returns whether it did so. Called between two jobs."""
        if self.pid and process_tree.reap(self.pid):
            self.pid = 0
            self.died()
        if self.pid or self._end is None or time.monotonic() - self._begun_at < self.again_seconds:
            return False
        self._end.close()
        self.start()
        return True

    def died(self) -> None:
        """Called when the process has ended without being told to."""
        _log.warning("worker %s: %s has died; another begins soon", self._worker, self.what)

    def stop(self) -> bool:
        """Let it finish its work, for a few seconds, and end. Returns whether it had finished."""
        end, self._end = self._end, None
        if end is not None:
            with contextlib.suppress(OSError):  # it is dead
                end.shutdown(socket.SHUT_WR)  # closing is not enough: what was forked meanwhile has this end too
            end.close()
        pid, self.pid = self.pid, 0
        return not pid or process_tree.end_child(pid, _DRAIN_SECONDS)


def fork(work: Callable[[], object], failed: str) -> int:
    """Fork a process that calls ``work`` and ends; it dies with this one. Returns its pid.

    Signals that systemd and terminals send to all processes are for the worker to decide about.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        linux.die_with_parent()
        if os.getppid() == parent:
            os.setpgrp()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
                signal.signal(number, signal.SIG_IGN)
            work()
            code = 0
    except BaseException:  # noqa: BLE001  whatever it was, this process ends
        _log.exception(failed)
    finally:
        os._exit(code)
