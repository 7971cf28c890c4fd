"""Whether two processes have one address space: a child between vfork(2) and exec has no memory but its parent's.

``subprocess`` starts programs so. Such a child reads like its parent in every file below ``/proc``, and no page of it
is shared by the kernel's count, so by these two take twice what one takes. kcmp(2) knows. It may not be asked about
processes that we may not examine, and not at all in many containers (Docker's seccomp profile). There a child counts as
one before exec if its sizes are its parent's to the last, and a thread of the parent waits in the kernel, as
vfork(2) has it do. Where even that cannot be read, the answer is no: then the two count twice for that moment.
"""

from __future__ import annotations

from rqmem.measure import linux, procfs

_KCMP_VM = 1


def is_same(pid: int, parent: int) -> bool:
    """Whether a process has the same memory as its parent, and not only pages in common."""
    answer = linux.system_call("kcmp", pid, parent, _KCMP_VM, 0, 0)
    return answer == 0 if answer != -1 else _looks_the_same(pid, parent)


def _looks_the_same(pid: int, parent: int) -> bool:
    if not procfs.is_bare_fork(pid) or not procfs.has_waiting_thread(parent):
        return False
    try:
        sizes = procfs.parse_kb(procfs.read_status(pid))
        return bool(sizes) and sizes == procfs.parse_kb(procfs.read_status(parent))
    except OSError:
        return False
