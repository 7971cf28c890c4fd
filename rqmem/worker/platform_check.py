"""Whether a worker can keep ceilings on this system; words where it cannot."""

from __future__ import annotations

import os
import sys

from rqmem.errors import ConfigError
from rqmem.measure.own_process import proc_shortcoming

_STOCK = "run 'rq worker': checkpoints of memory-aware jobs still read memory"


def unsupported(platform: str, has_fork: bool, has_pidfd: bool, proc_readable: bool) -> str:
    """Why ``rqmem worker`` cannot run, and what to do, in one line; "" where it can.

    Args:
        platform: as `sys.platform`.
        has_fork, has_pidfd: `os.fork` exists; `os.pidfd_open` exists and the kernel lets us.
        proc_readable: usage and children of our own processes can be read from ``/proc``.
    """
    if platform != "linux":
        name = "macOS" if platform == "darwin" else platform
        return f"rqmem worker keeps ceilings on Linux only; on {name} {_STOCK}, less exactly"
    if not has_fork:
        return f"rqmem worker forks its horses, and this Python cannot fork; {_STOCK}"
    if not proc_readable:
        return (
            "rqmem worker cannot keep a ceiling here, since /proc does not tell usage and children of its processes: "
            "'rqmem doctor' says why"
        )
    if not has_pidfd:
        return (
            "rqmem worker needs pidfd_open(2), which is refused here: it takes Linux 5.3 or later, Python built for it "
            "and a sandbox (seccomp profile) that lets it through"
        )
    return ""


def check() -> None:
    """Raise `ConfigError` where a worker cannot keep ceilings."""
    why = unsupported(sys.platform, hasattr(os, "fork"), has_pidfd(), not proc_shortcoming())
    if why:
        raise ConfigError(why)


def has_pidfd() -> bool:
    """Whether `os.pidfd_open` works, tried on ourselves: old sandboxes refuse it."""
    if not hasattr(os, "pidfd_open"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True
