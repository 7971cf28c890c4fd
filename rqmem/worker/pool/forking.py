"""Forks a worker of a pool, so that no signal of its first moment is lost and a fork that fails leaves nothing open."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rqmem.rq_names import ForkProcess

_OPEN = Path("/proc/self/fd")


def start(
    target: Callable[..., None], args: tuple[Any, ...], name: str, signals: Iterable[signal.Signals]
) -> BaseProcess:
    """Fork a process that calls ``target`` with ``signals`` blocked: it unblocks them when its handlers are there.

    With the handlers of the one that forked it, it would note a signal that nobody looks at.

    Raises:
        OSError: no process, no memory or no file descriptor is left.
    """
    process: BaseProcess = ForkProcess(target=target, args=args, name=name)
    sys.stdout.flush()
    sys.stderr.flush()
    before = set(_OPEN.iterdir())
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        process.start()
    except OSError:
        for path in set(_OPEN.iterdir()) - before:  # multiprocessing leaves its pipes open
            with contextlib.suppress(OSError):
                os.close(int(path.name))
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return process
