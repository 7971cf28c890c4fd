"""Words for a horse that ended without a verdict, and below its ceiling: who or what ended it, as far as is known.

Five ends look alike to RQ ("waitpid returned 9"): a breach, told elsewhere; the kernel short of memory; a
person's or a program's SIGKILL; a crash in native code; an exit in the middle of the job. Pure.
"""

from __future__ import annotations

import os
import signal
from typing import Literal

from rqmem.units import show_mb
from rqmem.values import dataclass

_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGSYS}


@dataclass(frozen=True)
class Circumstances:
    """What is known besides the exit status. MB.

    Attributes:
        peak_mb: the most the job used; 0: it ended too soon to be read.
        in_job: it ended in the job's own code, and not in a callback, an exception handler or RQ's code around it.
        memory_ran_out: the kernel killed for memory while it ran, and not for the job's own limit: in the group of the
            horse or the worker, or, where no group tells, anywhere on the machine; None: it did not.
        container_mb: the memory limit of the container or service all this runs in, if it has one.
    """

    peak_mb: float
    limit_mb: float
    operation: str
    in_job: bool
    memory_ran_out: Literal["group", "machine"] | None
    container_mb: float | None


def how_horse_ended(status: int | None, seen: Circumstances) -> str:
    """One line. Begins with RQ's words, so that tools which look for them find them."""
    rq_words = f"Work-horse terminated unexpectedly; waitpid returned {status}"
    used = f"used {show_mb(seen.peak_mb)} MB of {show_mb(seen.limit_mb)}" if seen.peak_mb else "had just begun"
    place = f" at '{seen.operation}'" if seen.operation else ""
    return f"{rq_words} {_who(status, seen)}; the job {used}{place}"


def killed_by_somebody(status: int | None, seen: Circumstances) -> bool:
    """Whether a signal ended it that is no sign of memory or of a crash: a person's or a program's."""
    if status is None or not os.WIFSIGNALED(status) or seen.memory_ran_out:
        return False
    return os.WTERMSIG(status) not in _CRASHES


def _who(status: int | None, seen: Circumstances) -> str:
    if status is None:
        return "(its end was not seen)"
    if not os.WIFSIGNALED(status):
        code = os.waitstatus_to_exitcode(status)
        if not seen.in_job:
            return f"(exit code {code}): it left outside the job's code (in a callback, an exception handler)"
        return f"(exit code {code}): it left in the middle of the job, by os._exit or a library that calls exit"
    number = os.WTERMSIG(status)
    name = f"signal {number}, {_name(number)}"
    if number in _CRASHES:
        return f"({name}): it crashed in native code"
    if number != signal.SIGKILL:
        return f"({name}): somebody ended it"
    if not seen.memory_ran_out:
        return f"({name}; its memory was below the ceiling): somebody killed it, and not for memory"
    if seen.memory_ran_out == "machine":
        return f"({name}): perhaps for memory: the kernel killed somebody on this machine for it meanwhile"
    if seen.container_mb is not None:
        limit = f"the container or service it runs in may use {show_mb(seen.container_mb)} MB"
        return f"({name}): the kernel killed it for want of memory; {limit}, its workers together want more"
    return f"({name}): the kernel's OOM killer killed it, since the machine ran out of memory"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "a real-time signal"
