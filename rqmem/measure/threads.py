"""How many threads this process has, those of C code too, and what they are called."""

from __future__ import annotations

import os
import threading

_SHOWN = 10


def native_threads() -> int:
    """Of this process, as the kernel counts them: each is a directory. After a chroot only those that Python knows."""
    try:
        return os.stat("/proc/self/task").st_nlink - 2  # noqa: PTH116
    except OSError:
        return threading.active_count()


class Threads:
    """Of one warm horse: which came since it was asked last."""

    def __init__(self) -> None:
        self._most = native_threads()
        self._known = {thread.ident for thread in threading.enumerate()}

    def new(self) -> list[str]:
        """Names of Python's threads that came since the last call; looked for only where there are more than ever."""
        count = native_threads()
        if count <= self._most:
            return []
        self._most = count
        now = {thread.ident: thread.name for thread in threading.enumerate()}
        new = sorted(name for ident, name in now.items() if ident not in self._known)
        self._known = set(now)
        return new[:_SHOWN]
