"""Calls of Linux that Python does not offer, or not in this form. Elsewhere they do nothing."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_ASKED_BY_POINTER = (2, _PR_GET_CHILD_SUBREAPER)  # the first one: PR_GET_PDEATHSIG
_ASKED = (3, 7, 27, 30, 42)  # PR_GET_DUMPABLE, _KEEPCAPS, _SECUREBITS, _TIMERSLACK, _THP_DISABLE
_AS_IT_IS = 0xFFFFFFFF
_CLONE_NEWNET = 0x40000000
_NOBODY = 65534
_MOST_URGENT = -20
_SWITCH_SECONDS = 0.0005
_ARM_AND_RISCV = {"tgkill": 131, "kcmp": 272}
_SYSTEM_CALLS = {"x86_64": {"tgkill": 234, "kcmp": 312}, "aarch64": _ARM_AND_RISCV, "riscv64": _ARM_AND_RISCV}

_network = -1


def become_subreaper(wanted: bool = True) -> bool:
    """Have orphans of our descendants become our children instead of init's, or not any more; what it was before."""
    before = ctypes.c_int(0)
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(before))
    _prctl(_PR_SET_CHILD_SUBREAPER, int(wanted))
    return bool(before.value)


def die_with_parent() -> None:
    """Get SIGKILL when the thread that forked us ends. The caller checks that it still lives."""
    signal_when_parent_ends(signal.SIGKILL)


def signal_when_parent_ends(number: int) -> None:
    """Get this signal when the thread that forked us ends. The caller checks that it still lives."""
    _prctl(_PR_SET_PDEATHSIG, number)


@contextmanager
def urgent() -> Iterator[str]:
    """Let this thread go before others while in the block, as far as the system allows it (root, CAP_SYS_NICE).

    Yields what it allowed: ``real-time``, ``nice`` or "".

    Real-time if possible: with 64 other busy processes on two cores it then wakes within 0.1 ms. With the lowest nice
    value it is sometimes 50 ms late, and otherwise 15 ms late at the median (measured). This concerns the calling
    thread only (sched(7)), which must sleep most of the time. Other threads of this process give the interpreter back
    ten times as soon.
    """
    switch_seconds = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    how = _make_urgent()
    try:
        yield how
    finally:
        sys.setswitchinterval(switch_seconds)
        with contextlib.suppress(OSError):
            if how == "real-time":
                os.sched_setscheduler(0, policy, priority)
            elif how == "nice":
                os.setpriority(os.PRIO_PROCESS, 0, nice)


def _make_urgent() -> str:
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        return "real-time"
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _MOST_URGENT)
        return "nice"
    return ""


def tell_main_thread(pid: int, number: int) -> None:
    """Send signal ``number`` to a process, for its main thread; nothing happens where it has ended.

    kill(2) leaves it to the kernel which thread gets it, and that is another one where the main thread has a signal to
    look at already. Python 3.11 then takes the mark away that would make its main thread look (``COMPUTE_EVAL_BREAKER``
    in ceval.c asks whether the thread that it runs in may handle signals). With a thread of memray's, which is
    only C, the job heard of its breach up to 100 ms late.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if system_call("tgkill", pid, pid, number) != 0:
            os.kill(pid, number)


def open_exit(pid: int) -> int:
    """A descriptor that can be read once that child has ended (a pidfd), or at once where it was reaped already."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        ended, other = os.pipe()
        os.close(other)
        return ended


def ended_well(pid: int) -> bool | None:
    """Whether a child that has ended exited with 0; it is not reaped, so its pid stays its own. None: it is gone."""
    try:
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        return None
    return result is not None and result.si_code == os.CLD_EXITED and result.si_status == os.EX_OK


def system_call(name: Literal["tgkill", "kcmp"], *args: int) -> int:
    """What the system call returns; -1 also where its number on this machine is not known."""
    libc, numbers = _libc()
    return libc.syscall(numbers[name], *args) if numbers else -1


@cache
def _libc() -> tuple[Any, dict[str, int]]:
    return ctypes.CDLL(None), _SYSTEM_CALLS.get(os.uname().machine, {}) if sys.platform == "linux" else {}


def become_nobody() -> bool:
    """Have this process, a fork about to end, be one that its parent may not examine; whether it is another user's now.

    Else it is not dumpable.
    """
    try:
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    except OSError:
        _prctl(_PR_SET_DUMPABLE, 0)
        return False
    return True


def keep_network() -> None:
    """Remember this thread's network, for `back_to_network`."""
    global _network
    with contextlib.suppress(OSError):
        _network = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def back_to_network() -> None:
    """Undo ``unshare(CLONE_NEWNET)`` in this thread, where it may."""
    if _network >= 0:
        ctypes.CDLL(None).setns(_network, _CLONE_NEWNET)


def process_flags() -> list[int]:
    """What prctl(2) and personality(2) can change about this process or thread, in a fixed order."""
    if sys.platform != "linux":
        return []
    libc, by_pointer = _libc()[0], [ctypes.c_int(0) for _ in _ASKED_BY_POINTER]
    for option, value in zip(_ASKED_BY_POINTER, by_pointer, strict=True):
        libc.prctl(option, ctypes.byref(value), 0, 0, 0)
    asked = [libc.prctl(option, 0, 0, 0, 0) for option in _ASKED]
    return [*(value.value for value in by_pointer), *asked, libc.personality(ctypes.c_ulong(_AS_IT_IS))]


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)
