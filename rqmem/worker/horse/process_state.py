"""What a job can change about its process, and leave to the next job in a warm horse.

Looked at when a horse begins and after each of its jobs: one in which something differs is replaced, so that the next
job begins as under RQ, which has a process for each. Not looked at is what modules set when they are imported and
count on from then on: the environment, ``sys.path``, logging, and whatever else is an object of Python. But RQ's and
rqmem's loggers go on, which `logging.config` switches off unless told not to: other jobs' failures were in no log.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
from collections.abc import Mapping

_SIGNALS = sorted(signal.valid_signals())
_LIMITS = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})
_TIMERS = (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)

Traces = Mapping[str, object]


def look() -> Traces:
    """This process by now, in some 0.1 ms. Call it from the main thread."""
    umask = os.umask(0o077)
    os.umask(umask)
    return {
        "working directory": _directory(),
        "umask": umask,
        "user and group": (os.getresuid(), os.getresgid()),
        "signal handlers": [signal.getsignal(number) for number in _SIGNALS],
        "blocked signals": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "timers": [signal.getitimer(timer)[0] > 0 for timer in _TIMERS],
        "resource limits": [resource.getrlimit(limit) for limit in _LIMITS],
        "garbage collection": gc.isenabled(),
        "logging.disable": logging.root.manager.disable,
    }


def changed(before: Traces, now: Traces) -> str:
    """Names of what differs, for people; "": nothing."""
    return ", ".join(name for name, value in now.items() if before[name] != value)


def own_loggers() -> list[logging.Logger]:
    """RQ's and rqmem's."""
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in ("rq", "rqmem")]
    return [logging.getLogger(name) for name in names]


def _directory() -> tuple[int, int] | None:
    """By inode: whoever renames the directory has not moved us."""
    try:
        here = os.stat(".")  # noqa: PTH116
    except OSError:
        return None
    return here.st_dev, here.st_ino
