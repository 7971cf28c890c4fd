"""Shared memory that processes hold, by object: files in tmpfs, memfds, shared mappings, SysV segments.

A process's own figures tell of such memory only what it has mapped and touched itself. Data that was written through a
descriptor, or touched by processes that have ended, is in none of them; but whoever maps or holds open the object can
be asked for its size. Each object counts once, whoever shares it. Reads only; bytes everywhere.

Not seen: files that nobody maps or holds open any more; segments whose creator was never seen, before anybody attaches
them; a shared mapping without a descriptor or a name, where ``map_files`` may not be followed (CAP_CHECKPOINT_RESTORE);
what is held by processes that may not be examined. A look takes some 0.5 ms for each process.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path

from rqmem.measure import linux, procfs
from rqmem.measure.kept_files import read_text
from rqmem.values import dataclass

_SHM = Path("/dev/shm")
_AT_FDCWD, _STATX_BTIME = -100, 0x800
_SYSV = Path("/proc/sysvipc/shm")
_KCMP_FILES = 2
_IN_MEMORY = (0x01021994, 0x858458F6)  # tmpfs, ramfs

Key = tuple[int | str, int]
"""Device and inode, or ``"sysv"`` and the segment's id."""


@dataclass(frozen=True)
class Held:
    """An object: its path or what else names it, and its size.

    ``born_at``: epoch seconds, when it was made; where the kernel does not tell, when a system call changed it last.
    """

    name: str
    size_bytes: int
    born_at: float


@dataclass(frozen=True)
class Segment:
    """A SysV segment: who made it and who attached or left it last, and what is in memory or swapped of it."""

    number: int
    creator: int
    last: int
    changed_at: float
    size_bytes: int


def parse_segments(text: str) -> list[Segment]:
    """``/proc/sysvipc/shm``."""
    header, *rows = (line.split() for line in text.splitlines())
    found = []
    for row in rows:
        column = dict(zip(header, map(int, row), strict=True))
        size = column["rss"] + column["swap"]
        found.append(Segment(column["shmid"], column["cpid"], column["lpid"], float(column["ctime"]), size))
    return found


def parse_mapped(maps: str) -> dict[Key, tuple[str, str]]:
    """Objects in ``maps`` that are on no disk: the range of addresses, and the path as the kernel gives it."""
    found: dict[Key, tuple[str, str]] = {}
    internal = internal_device()
    for line in maps.split("\n"):
        if " 00:" not in line or " 00:00 0" in line:  # most are of files on a disk, or of none
            continue
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[4] != "0":
            major, _, minor = fields[3].partition(":")
            device, inode, path = os.makedev(int(major, 16), int(minor, 16)), int(fields[4]), fields[5]
            found["sysv" if path.startswith("/SYSV") and device == internal else device, inode] = (fields[0], path)
    return found


def held_by(pids: Iterable[int], ever: Collection[int] = ()) -> dict[Key, Held]:
    """What these processes map or hold open, and segments that those or processes in ``ever`` made."""
    found: dict[Key, Held] = {}
    attached: set[int] = set()
    devices = _Devices()
    for pid in pids:
        for directory in _tables_of_files(pid):
            _add_open(directory, devices, found)
        for key, (addresses, path) in _mapped(pid).items():
            if key[0] == "sysv":
                attached.add(key[1])
            elif key not in found and devices.may_be_in_memory(key[0]):
                where, status = _mapped_status(pid, addresses, path, key)
                if status is not None and devices.is_in_memory(status.st_dev, where):
                    found[key] = _held(path, status, where)
    for segment in _segments():
        if segment.number in attached or segment.creator in ever:
            name = f"SysV segment {segment.number} (ipcrm -m {segment.number})"
            found["sysv", segment.number] = Held(name, segment.size_bytes, segment.changed_at)
    return found


def still_there(held: Mapping[Key, Held]) -> list[tuple[str, int]]:
    """Those that go on without a process, with their bytes: files with a name, and segments."""
    numbers = {segment.number: segment.size_bytes for segment in _segments()}
    left = []
    for (device, inode), each in held.items():
        if device == "sysv":
            left += [(each.name, numbers[inode])] if inode in numbers else []
        elif (status := _status(each.name)) is not None and (status.st_dev, status.st_ino) == (device, inode):
            left.append((each.name, status.st_blocks * 512))
    return sorted(left)


def new_files(since: float, user: int) -> dict[Key, Held]:
    """Files of this user in /dev/shm that were made since then (epoch seconds)."""
    found: dict[Key, Held] = {}
    try:
        paths = list(_SHM.iterdir())
    except OSError:
        return found
    for path in paths:
        status = _status(str(path))
        if status is not None and stat.S_ISREG(status.st_mode) and status.st_uid == user and status.st_ctime >= since:
            held = _held(str(path), status, str(path))
            if held.born_at >= since:
                found[status.st_dev, status.st_ino] = held
    return found


def _tables_of_files(pid: int) -> list[str]:
    """Directories of descriptors: of the main thread, and of threads that have a table of their own (CLONE_FILES)."""
    owners = [pid]
    for thread in procfs.threads(pid):
        if all(linux.system_call("kcmp", owner, thread, _KCMP_FILES, 0, 0) > 0 for owner in owners):
            owners.append(thread)
    return [f"/proc/{pid}/fd", *(f"/proc/{pid}/task/{owner}/fd" for owner in owners[1:])]


def _add_open(directory: str, devices: _Devices, found: dict[Key, Held]) -> None:
    try:
        names = os.listdir(directory)  # noqa: PTH208
    except OSError:
        return
    for name in names:
        path = f"{directory}/{name}"
        status = _status(path)
        if status is None or not stat.S_ISREG(status.st_mode):
            continue
        if (status.st_dev, status.st_ino) not in found and devices.is_in_memory(status.st_dev, path):
            try:
                path = os.readlink(f"{directory}/{name}")  # noqa: PTH115
            except OSError:
                continue
            found[status.st_dev, status.st_ino] = _held(path, status, f"{directory}/{name}")


def _mapped(pid: int) -> dict[Key, tuple[str, str]]:
    try:
        maps = procfs.of_memory(pid, lambda directory: read_text(f"{directory}/maps") or None)
    except OSError:
        return {}
    return parse_mapped(maps) if maps else {}


def _mapped_status(pid: int, addresses: str, path: str, key: Key) -> tuple[str, os.stat_result | None]:
    """By the range, which takes a capability; else by the path, if that still is the same file. And that path."""
    low, _, high = addresses.partition("-")
    for each in (f"/proc/{pid}/map_files/{int(low, 16):x}-{int(high, 16):x}", path):
        status = _status(each)
        if status is not None and (status.st_dev, status.st_ino) == key:
            return each, status
    return path, None


def _held(path: str, status: os.stat_result, where: str) -> Held:
    return Held(path, status.st_blocks * 512, _born_at(where) or status.st_ctime)


def _born_at(path: str) -> float | None:
    """By statx(2), which Python does not offer."""
    statx = getattr(ctypes.CDLL(None), "statx", None)
    answer = ctypes.create_string_buffer(256)
    if statx is None or statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, answer) != 0:
        return None
    [known] = struct.unpack_from("I", answer, 0)
    seconds, nanoseconds = struct.unpack_from("qI", answer, 80)
    return float(seconds + nanoseconds / 1e9) if known & _STATX_BTIME else None


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116
    except OSError:
        return None


def _segments() -> list[Segment]:
    try:
        return parse_segments(_SYSV.read_text())
    except OSError:
        return []


class _Devices:
    """Which file systems have their files in memory: asked once for each, by one look. Later a number may be another's.

    A job may mount one of its own, where only its processes see it.
    """

    def __init__(self) -> None:
        self._known = {internal_device(): True}

    def may_be_in_memory(self, device: int | str) -> bool:
        return isinstance(device, int) and self._known.get(device, os.major(device) == 0)

    def is_in_memory(self, device: int, path: str) -> bool:
        """``path`` leads to a file on it."""
        if device not in self._known:
            self._known[device] = os.major(device) == 0 and _type_of_file_system(path) in _IN_MEMORY
        return self._known[device]


def _type_of_file_system(path: str) -> int:
    """By statfs(2), whose first field Python does not offer; 0: it cannot be told."""
    answer = ctypes.create_string_buffer(256)
    done = ctypes.CDLL(None).statfs(os.fsencode(path), answer) == 0
    return int(ctypes.c_long.from_buffer(answer).value) if done else 0


@cache
def internal_device() -> int:
    """Of the kernel's own tmpfs: memfds, shared mappings and segments are files in that."""
    memfd = os.memfd_create("rqmem")
    try:
        return os.fstat(memfd).st_dev
    finally:
        os.close(memfd)
