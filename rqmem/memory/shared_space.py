"""Whether two processes have one address space: a child between vfork(2) and exec has no memory but its parent's.

``subprocess`` starts programs so. Such a child reads like its parent in every file below ``/proc``, and no page of it
is shared by the kernel's count, so by these two take twice what one takes. kcmp(2) knows. Where it cannot be asked, the
answer is no: the two then count twice for that moment, as they did before.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Any

_KCMP = {"x86_64": 312, "aarch64": 272, "riscv64": 272}  # the system call's number
_KCMP_VM = 1


def is_same(pid: int, other: int) -> bool:
    """Whether these two processes have the same memory, and not only pages in common."""
    libc, number = _system_call()
    return libc is not None and libc.syscall(number, pid, other, _KCMP_VM, 0, 0) == 0


@cache
def _system_call() -> tuple[Any, int]:
    number = _KCMP.get(os.uname().machine) if sys.platform == "linux" else None
    return (None, 0) if number is None else (ctypes.CDLL(None), number)
