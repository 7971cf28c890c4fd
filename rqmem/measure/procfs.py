"""The kernel's ``/proc`` files: parsing apart from reading, nothing decided.

Formats: proc_pid_statm(5), proc_pid_smaps(5) (``smaps_rollup``), proc_pid_stat(5), proc_pid_status(5).

A process that is gone has no memory, and its readers return None or an empty answer. A process that is there and may
not be examined has memory all the same. Of another user's process, and of one that is not dumpable, ``statm``, ``stat``
and ``status`` can still be read; `read_usage` falls back on them. Where ``/proc`` hides even those (``hidepid``),
readers of memory raise PermissionError. A process whose main thread has ended and whose others go on reads as ended in
its own files, so the files of another of its threads are read.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from rqmem.measure.kept_files import KeptFile, read_once, read_whole, with_a_descriptor
from rqmem.values import dataclass

T = TypeVar("T")

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_GONE = (FileNotFoundError, ProcessLookupError)
_NOT_SHOWN = (FileNotFoundError, ProcessLookupError, PermissionError)
_FORKED_NO_EXEC = 0x40  # PF_FORKNOEXEC of the kernel's sched.h, in the flags of ``stat``


@dataclass(frozen=True)
class Usage:
    """What a process costs, in bytes.

    Attributes:
        shared_bytes: anonymous memory of it that others may pay for.
        shmem_bytes: the part of ``usage_bytes`` that is shared memory.
        whole: its ``smaps_rollup`` may not be read, so each page that it shares counts whole.
    """

    usage_bytes: int
    shared_bytes: int
    whole: bool = False
    shmem_bytes: int = 0


def parse_kb(text: str) -> dict[str, int]:
    """The sizes in ``status``, ``smaps_rollup`` or ``meminfo``, in KB by name.

    The ``status`` of a process that has no memory has none of memory. A program may call itself ``x kB``.
    """
    pairs = (line.partition(":") for line in text.split("\n") if line.endswith(" kB"))
    return {name: int(number) for name, _, value in pairs if (number := value[:-3].strip()).isdecimal()}


def parse_rollup(text: str) -> Usage:
    """`Usage` of the text of ``smaps_rollup`` (kernel 5.4 or later names ``Pss_Anon``).

    Each shared page is divided by its sharers, but huge ones (hugetlb), which nobody divides. Pages of mapped files
    that the kernel can drop are not in it.
    """
    kb = parse_kb(text)
    resident_kb = kb["Pss_Anon"] + kb["Pss_Shmem"]
    locked_kb = _locked_of_files(kb.get("Locked", 0), resident_kb, kb.get("Pss_File", 0))
    huge_kb = kb.get("Private_Hugetlb", 0) + kb.get("Shared_Hugetlb", 0)
    usage = (resident_kb + kb["SwapPss"] + locked_kb + huge_kb) * 1024
    shared = max(0, kb.get("Anonymous", 0) - kb["Pss_Anon"]) * 1024
    return Usage(usage, shared, shmem_bytes=kb["Pss_Shmem"] * 1024)


def parse_whole_usage(status: str) -> Usage | None:
    """`Usage` from ``status``, which anybody may read: shared pages count whole. None: it has no memory any more."""
    kb = parse_kb(status)
    if "RssAnon" not in kb:
        return None
    resident_kb = kb["RssAnon"] + kb["RssShmem"]
    locked_kb = _locked_of_files(kb.get("VmLck", 0), resident_kb, kb.get("RssFile", 0))
    usage = (resident_kb + kb["VmSwap"] + locked_kb + kb.get("HugetlbPages", 0)) * 1024
    return Usage(usage, kb["RssAnon"] * 1024, True, kb["RssShmem"] * 1024)


def _locked_of_files(locked_kb: int, resident_kb: int, of_files_kb: int) -> int:
    """Mapped files that are locked into memory, at least. ``resident_kb``: what is of no file, locked or not."""
    return min(of_files_kb, max(0, locked_kb - resident_kb))


def parse_resident_pages(statm: bytes) -> int:
    return int(statm.split(b" ", 2)[1])


def correction_of_resident(kb: Mapping[str, int]) -> int:
    """What usage has more than resident pages, from the `parse_kb` of ``status``, in pages; most often less than 0.

    Swapped and huge pages are no resident ones, and pages of mapped files no usage. As much of those as may be locked
    into memory is.
    """
    of_files_kb = kb.get("RssFile", 0)
    more_kb = kb.get("VmSwap", 0) + kb.get("HugetlbPages", 0) + min(of_files_kb, kb.get("VmLck", 0))
    return (more_kb - of_files_kb) * 1024 // PAGE_BYTES


class Stat(NamedTuple):
    """What ``stat`` says of a process or thread.

    Attributes:
        state: its letter; of a process, that of its main thread.
        is_bare_fork: it was forked and has not become another program since.
        cpu_ticks: processor time that it has used, in clock ticks.
        start_time: in clock ticks since boot.
    """

    state: str
    parent: int
    is_bare_fork: bool
    cpu_ticks: int
    threads: int
    start_time: int


def parse_stat(stat: str) -> Stat:
    fields = stat.rpartition(")")[2].split()  # from the third on; the command before them may hold anything
    is_bare_fork = bool(int(fields[6]) & _FORKED_NO_EXEC)
    ticks = int(fields[11]) + int(fields[12])
    return Stat(fields[0], int(fields[1]), is_bare_fork, ticks, int(fields[17]), int(fields[19]))


def exists(pid: int) -> bool:
    """Whether there is such a process, ended ones that nobody has reaped included; ``/proc`` need not show it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def read_usage(pid: int) -> Usage | None:
    """What a process costs; None: it is gone. Raises OSError where ``/proc`` does not tell (see this module's text)."""
    return of_memory(pid, _read_usage)


def read_status(pid: int) -> str:
    """Its ``status``; "": it is gone. Raises OSError where ``/proc`` does not tell."""
    return of_memory(pid, lambda directory: _read_text(f"{directory}/status") or None) or ""


def of_memory(pid: int, read: Callable[[str], T | None]) -> T | None:
    """What ``read`` finds of its memory in a directory below ``/proc``; None: it has none any more.

    That is the directory of its main thread, or of another thread where the main one has ended.
    Raises `PermissionError` where it is hidden.
    """
    try:
        found = read(f"/proc/{pid}")
    except ProcessLookupError:
        found = None
    except FileNotFoundError:
        if exists(pid) and not Path(f"/proc/{pid}").exists():
            raise PermissionError(errno.EACCES, "hidden by the mount of /proc", f"/proc/{pid}") from None
        found = None
    return found if found is not None else _of_other_threads(pid, read)


def _of_other_threads(pid: int, read: Callable[[str], T | None]) -> T | None:
    for task in _tasks(pid):
        if task != str(pid):
            try:
                if (found := read(f"/proc/{pid}/task/{task}")) is not None:
                    return found
            except _GONE:
                continue
    return None


def _read_usage(directory: str) -> Usage | None:
    try:
        text = _read_text(f"{directory}/smaps_rollup")
    except _GONE:
        raise
    except OSError:  # above all PermissionError: another user's, or not dumpable
        text = ""
    return parse_rollup(text) if text else parse_whole_usage(_read_text(f"{directory}/status"))


def set_mark_back(pid: int) -> None:
    """Have ``VmHWM``, the most that was ever resident, begin anew (proc_pid_clear_refs(5)). Raises OSError."""
    fd = with_a_descriptor(lambda: os.open(f"/proc/{pid}/clear_refs", os.O_WRONLY | os.O_CLOEXEC))
    try:
        os.write(fd, b"5")
    finally:
        os.close(fd)


def read_resident_pages(pid: int) -> int:
    """Resident pages; 0: it is gone. Raises OSError where ``/proc`` does not tell."""

    def read(directory: str) -> int | None:
        return parse_resident_pages(read_whole(f"{directory}/statm")) or None

    return of_memory(pid, read) or 0


def read_stat(pid: int | str) -> Stat | None:
    """None: the process is gone, or hidden. ``pid`` may name a thread, as ``PID/task/THREAD``."""
    text = _read_shown(f"/proc/{pid}/stat")
    return parse_stat(text) if text else None


def read_parent(pid: int) -> int:
    """The parent's pid; 0 where it is gone or hidden."""
    stat = read_stat(pid)
    return 0 if stat is None else stat.parent


def is_bare_fork(pid: int) -> bool:
    """Whether it was forked and has not become another program since; False where it is gone or hidden."""
    stat = read_stat(pid)
    return stat is not None and stat.is_bare_fork


def waited_for_processor_seconds() -> float:
    """How long this thread could have run and did not, since it began; 0: the kernel does not tell."""
    try:
        return int(read_once("/proc/thread-self/schedstat").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def read_state(pid: int) -> str:
    """Its letter in ``stat``; "": it is gone, "?": it is there, and hidden. ``R`` while any of its threads goes on."""
    stat = read_stat(pid)
    if stat is None:
        return "?" if exists(pid) else ""
    return "R" if stat.state in "ZX" and stat.threads > 1 else stat.state


def has_waiting_thread(pid: int) -> bool:
    """Whether one of its threads waits in the kernel and can be interrupted by nothing but its end (state ``D``)."""
    stats = (read_stat(f"{pid}/task/{task}") for task in _tasks(pid))
    return any(stat is not None and stat.state == "D" for stat in stats)


def read_start_time(pid: int) -> int | None:
    """A process is known by (pid, start time), never by its pid alone. None: it is gone, or hidden."""
    stat = read_stat(pid)
    return None if stat is None else stat.start_time


class MainThread(NamedTuple):
    """What a process's main thread does, from ``status``.

    Attributes:
        waits: it sleeps in the kernel.
        waits_so_far: how often it has begun to.
        caught: the signals that have a handler (``SigCgt``); bit 0 is signal 1.
    """

    waits: bool
    waits_so_far: int
    caught: int

    def catches(self, number: int) -> bool:
        """Whether that signal has a handler; it would end a process that has none."""
        return bool(self.caught >> (number - 1) & 1)


def parse_main_thread(status: str) -> MainThread:
    words = {line.partition(":")[0]: line.split()[1] for line in status.split("\n") if len(line.split()) > 1}
    waits_so_far = int(words.get("voluntary_ctxt_switches", "0"))
    return MainThread(words.get("State") == "S", waits_so_far, int(words.get("SigCgt", "0"), 16))


def read_main_thread(pid: int) -> MainThread | None:
    """None: the process is gone, or hidden."""
    status = _read_shown(f"/proc/{pid}/status")
    return parse_main_thread(status) if status else None


def catches(pid: int, number: int) -> bool:
    thread = read_main_thread(pid)
    return thread is not None and thread.catches(number)


def read_command(pid: int) -> str:
    """The name of the program (``comm``), without its arguments: they may hold secrets."""
    return _read_shown(f"/proc/{pid}/comm").strip()


def read_children(pid: int) -> list[int]:
    """Pids of the direct children, of whichever of its threads forked them. Raises PermissionError: it is hidden."""
    children: list[int] = []
    tasks = _tasks(pid)
    for task in tasks:
        try:
            children.extend(map(int, read_whole(f"/proc/{pid}/task/{task}/children").split()))
        except _GONE:
            continue
    if not tasks and exists(pid):
        raise PermissionError(errno.EACCES, "hidden by the mount of /proc", f"/proc/{pid}")
    return children


def find_children(pid: int) -> list[int]:
    """Those of the children of a hidden process that are not hidden: takes a look at all processes there are."""
    try:
        names = with_a_descriptor(lambda: os.listdir("/proc"))  # noqa: PTH208
    except _NOT_SHOWN:  # not mounted, as a job that has called chroot sees it
        return []
    return [other for other in map(int, filter(str.isdigit, names)) if read_parent(other) == pid]


def threads(pid: int) -> list[int]:
    """Its other threads than the main one."""
    return [thread for thread in map(int, _tasks(pid)) if thread != pid]


def _tasks(pid: int) -> list[str]:
    """Its threads; none where it is gone, or hidden by ``hidepid=2``."""
    try:
        return with_a_descriptor(lambda: os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208  this runs at each reading
    except _GONE:
        return []


def _read_shown(path: str) -> str:
    """What a file tells; "": the process is gone, or hidden."""
    try:
        return _read_text(path)
    except _NOT_SHOWN:
        return ""


def _read_text(path: str) -> str:
    return read_whole(path).decode("utf-8", "replace")


_own_statm: tuple[int, KeptFile] | None = None  # whose it is, and the file


def own_held_bytes() -> int:
    """Resident bytes of this process that belong to no file. Raises OSError.

    The file stays open from the first call on: later there may be no descriptor left, or no ``/proc`` (chroot).
    """
    global _own_statm
    if _own_statm is None or _own_statm[0] != os.getpid():
        _own_statm = (os.getpid(), KeptFile("/proc/self/statm", checked=True))
    fields = _own_statm[1].read().split(b" ", 3)
    return (int(fields[1]) - int(fields[2])) * PAGE_BYTES


@cache
def host_identity() -> str:
    """Names this boot of this machine and this pid namespace: pids can be compared only within it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116


def process_identity() -> str:
    """Names this process among those of all machines and boots."""
    pid = os.getpid()
    return f"{host_identity()}:{pid}:{read_start_time(pid) or 0}"
