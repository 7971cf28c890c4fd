"""The kernel's ``/proc`` files: parsing apart from reading, nothing decided.

Formats: proc_pid_statm(5), proc_pid_smaps(5) (``smaps_rollup``), proc_pid_stat(5). Readers return
None, or an empty answer, for a process that is gone or not ours to read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)


@dataclass(frozen=True)
class Rollup:
    """What a process costs, in bytes, from ``smaps_rollup``: each shared page divided by its sharers."""

    rss: int
    pss_anon: int
    pss_shmem: int
    swap_pss: int

    @property
    def usage_bytes(self) -> int:
        """What it costs and cannot be dropped. Clean pages of mapped files are not in it."""
        return self.pss_anon + self.pss_shmem + self.swap_pss


def parse_rollup(text: str) -> Rollup:
    """`Rollup` of the text of ``smaps_rollup`` (kernel 5.4 or later names ``Pss_Anon``)."""
    kb = {}
    for line in text.splitlines()[1:]:
        name, _, value = line.partition(":")
        kb[name] = int(value.split()[0])
    return Rollup(
        rss=kb["Rss"] * 1024,
        pss_anon=kb["Pss_Anon"] * 1024,
        pss_shmem=kb["Pss_Shmem"] * 1024,
        swap_pss=kb["SwapPss"] * 1024,
    )


def parse_resident_pages(statm: bytes) -> int:
    """Resident pages from ``statm``."""
    return int(statm.split(b" ", 2)[1])


def parse_swap_less_file_pages(status: str) -> int:
    """Swapped pages less resident pages of mapped files, from ``status``; 0 where it names neither."""
    kb = 0
    for line in status.splitlines():
        if line.startswith("RssFile:"):
            kb -= int(line.split()[1])
        elif line.startswith("VmSwap:"):
            kb += int(line.split()[1])
    return kb * 1024 // PAGE_BYTES


def parse_parent(status: str) -> int:
    """The parent's pid, from ``status``; 0 where it names none."""
    for line in status.splitlines():
        if line.startswith("PPid:"):
            return int(line.split()[1])
    return 0


def parse_start_time(stat: str) -> int:
    """Start time in clock ticks since boot: field 22 of ``stat``, after a command that may hold anything."""
    return int(stat.rpartition(")")[2].split()[19])


def read_rollup(pid: int) -> Rollup | None:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except _GONE:
        return None
    return parse_rollup(text) if text else None


def read_swap_less_file_pages(pid: int) -> int:
    try:
        return parse_swap_less_file_pages(Path(f"/proc/{pid}/status").read_text())
    except _GONE:
        return 0


def read_parent(pid: int) -> int:
    try:
        return parse_parent(Path(f"/proc/{pid}/status").read_text())
    except _GONE:
        return 0


def read_start_time(pid: int) -> int | None:
    """A process is known by (pid, start time), never by its pid alone."""
    try:
        return parse_start_time(Path(f"/proc/{pid}/stat").read_text())
    except _GONE:
        return None


def parse_caught_signals(status: str) -> int:
    """The mask of signals with a handler (``SigCgt``), from ``status``; bit 0 is signal 1."""
    for line in status.splitlines():
        if line.startswith("SigCgt:"):
            return int(line.split()[1], 16)
    return 0


def catches(pid: int, number: int) -> bool:
    """Whether ``pid`` has a handler for that signal; one without would be ended by it."""
    try:
        return bool(parse_caught_signals(Path(f"/proc/{pid}/status").read_text()) >> (number - 1) & 1)
    except _GONE:
        return False


def read_command(pid: int) -> str:
    """The name of the program (``comm``), without its arguments: they may hold secrets."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except _GONE:
        return ""


def parse_segments(maps: str) -> set[str]:
    """Files below /dev/shm in ``maps``, those already removed left out."""
    paths = (line.partition("/dev/shm/") for line in maps.splitlines())
    return {slash + name for _, slash, name in paths if name and not name.endswith(" (deleted)")}


def read_segments(pid: int) -> set[str]:
    try:
        return parse_segments(Path(f"/proc/{pid}/maps").read_text())
    except _GONE:
        return set()


def own_held_bytes() -> int:
    """Resident bytes of this process that belong to no file."""
    fields = Path("/proc/self/statm").read_bytes().split(b" ", 3)
    return (int(fields[1]) - int(fields[2])) * PAGE_BYTES


def read_children(pid: int) -> list[int]:
    """Pids of the direct children, of whichever of its threads forked them."""
    children: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  this runs at each reading
    except _GONE:
        return children
    for task in tasks:
        try:
            children.extend(map(int, _read_whole(f"/proc/{pid}/task/{task}/children").split()))
        except _GONE:
            continue
    return children


def _read_whole(path: str) -> bytes:
    """As `Path.read_bytes`, by three system calls and not by eight."""
    parts = []
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while part := os.read(fd, 65536):
            parts.append(part)
    finally:
        os.close(fd)
    return b"".join(parts)


@cache
def host_identity() -> str:
    """Names this boot of this machine and this pid namespace: pids can be compared only within it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116
