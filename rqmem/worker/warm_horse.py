"""The warm horse as its worker holds it: one process that runs job after job.

It is forked at the first job inside ``work()``, and ends with the worker or before.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import NoReturn

from rqmem.measure import process_tree
from rqmem.policy.recycling import HorseState
from rqmem.worker.horse.channel import Channel
from rqmem.worker.shared_memory import SharedPage
from rqmem.worker.watcher import Watcher

_LEAVE_SECONDS = 1.0


class WarmHorse:
    def __init__(self, pid: int, channel: Channel, page: SharedPage) -> None:
        self.pid = pid
        self.channel = channel
        self.page = page
        self.state = HorseState()
        self.watcher: Watcher | None = None  # since its first job
        self.worn = False  # the last job ran for a while or under another ceiling

    @classmethod
    def fork(cls, page: SharedPage, serve: Callable[[Channel], NoReturn]) -> WarmHorse:
        """Fork a horse, from the main thread. ``serve`` is its main loop, and ends the process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            ours.close()
            os.setpgrp()
            serve(Channel(theirs))
        theirs.close()
        with contextlib.suppress(OSError):  # the horse does it too; whoever comes first
            os.setpgid(pid, pid)
        return cls(pid, Channel(ours), page)

    def unwatch(self) -> None:
        """Close the watcher, if there is one. It may be called again."""
        watcher, self.watcher = self.watcher, None
        if watcher is not None:
            watcher.close()

    def end(self) -> None:
        """Let the horse end, kill it if it has not ended after a second, and reap it."""
        self.unwatch()
        self.channel.close()
        process_tree.end_child(self.pid, _LEAVE_SECONDS)
