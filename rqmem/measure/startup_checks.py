"""What is looked at before a worker starts: whether it can keep ceilings on this system, and two measurements.

An idle horse, and how fast memory can grow here, are measured in a short-lived fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Literal

from rqmem.errors import ConfigError, RqmemError
from rqmem.measure import linux, process_tree, procfs
from rqmem.measure.own_process import proc_shortcoming
from rqmem.units import MB
from rqmem.values import dataclass

_TRIES = 3
_TRY_BYTES = 24 * MB
_SECOND_CORE = 1.25  # two cores share one memory: measured, not twice
_SLOWEST, _FASTEST = 4e9, 40e9
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


def check_platform() -> None:
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


@contextlib.contextmanager
def fork(says: Callable[[], bytes]) -> Iterator[tuple[int, bytes]]:
    """A fork that says something short and waits: its pid, and what it said. It ends with the block, or with us."""
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(go[1])
            os.write(ready[1], says())
            os.read(go[0], 1)
        finally:
            os._exit(0)
    try:
        os.close(ready[1])
        yield pid, os.read(ready[0], 4096)
    finally:
        for fd in (ready[0], *go):
            os.close(fd)
        os.waitpid(pid, 0)


def usage_of_idle_fork() -> int:
    """Bytes a horse uses that has done nothing yet, by the same measure as the ceiling. Raises `RqmemError`."""
    with fork(lambda: b"1") as (pid, _):
        try:
            usage = procfs.read_usage(pid)
        except (KeyError, OSError):  # a kernel before 5.4; hidden
            usage = None
    if usage is None:
        why = proc_shortcoming() or (
            "/proc shows nothing of our own children (mounted with hidepid and without gid= of our group, "
            "or a security policy forbids it)"
        )
        raise RqmemError(f"no ceiling can be kept here: {why}; 'rqmem doctor' says what to do")
    return usage.usage_bytes


@dataclass(frozen=True)
class Foreign:
    """What this process may do with one that it may not examine as its own.

    Attributes:
        another_users: it was another user's; else it was our own, and not dumpable, as setuid programs are.
        measured: ``exactly``, ``whole``: with all pages it shares, or ``not``: ``/proc`` hides it.
    """

    another_users: bool
    measured: Literal["exactly", "whole", "not"]
    can_be_ended: bool


def look_at_foreign_fork() -> Foreign:
    """Fork a process of that kind and look at it: another user's where we may make one."""
    with fork(lambda: b"u" if linux.become_nobody() else b"d") as (pid, said):
        another_users = said == b"u"
        try:
            usage = procfs.read_usage(pid)
        except OSError:
            usage = None
        can_be_ended = not process_tree.beyond_reach([pid])
    return Foreign(another_users, "not" if usage is None else "whole" if usage.whole else "exactly", can_be_ended)


def fastest_growth() -> float:
    """Bytes per second by which memory can grow here: huge pages filled in C, in a fork of 24 MB, some 10 ms.

    Never below 4 GB/s, should the machine be busy just now: too high a rate costs a little CPU, too low a rate
    costs the ceiling.
    """
    with fork(lambda: str(_measured_growth()).encode()) as (_, said):
        return min(_FASTEST, max(_SLOWEST, _SECOND_CORE * float(said or 0)))


def _measured_growth() -> float:
    best = 0.0
    for _ in range(_TRIES):
        with mmap.mmap(-1, _TRY_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            with contextlib.suppress(OSError, AttributeError):
                memory.madvise(mmap.MADV_HUGEPAGE)
            view = ctypes.c_char.from_buffer(memory)
            began = time.perf_counter()
            ctypes.memset(ctypes.addressof(view), 1, _TRY_BYTES)
            best = max(best, _TRY_BYTES / (time.perf_counter() - began))
            del view
    return best
