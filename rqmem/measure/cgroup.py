"""One memory cgroup per work-horse: the kernel's layer of the ceiling.

What is charged to the group, by whichever process in it, stays below its limit: the kernel kills before
it gets above. The charge holds more than a job's usage: page cache, which is dropped before anybody is
killed, and the kernel's own memory. What a process held before it entered stays charged where it was.
Linux, with the v1 memory controller or a delegated v2 group (cgroups(7); ``cgroup-v1/memory.rst`` and
``cgroup-v2.rst`` of the kernel). Decides nothing: who is killed for what, and when limits are set, is the
caller's. Bytes everywhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from rqmem.measure import process_tree
from rqmem.measure.cgroup_files import (
    KILLS,
    LEAF_SUFFIX,
    Parts,
    Version,
    parse_counters,
    parse_limit,
    parse_parts,
    read_kernel_kills,
)
from rqmem.measure.charge import ChargeReader
from rqmem.values import dataclass

_LIMIT = {"v1": "memory.limit_in_bytes", "v2": "memory.max"}
_PEAK = {"v1": "memory.max_usage_in_bytes", "v2": "memory.peak"}  # v2: kernel 5.19
_MARKS = ("memory.max_usage_in_bytes", "memory.memsw.max_usage_in_bytes")  # v1; memsw: memory and swap together
_SWAP_LIMIT = "memory.memsw.limit_in_bytes"
_SOCKETS_LIMIT = "memory.kmem.tcp.limit_in_bytes"  # v1 counts buffers of TCP and UDP where this is set, and only there
_NAME = re.compile(r"rqmem-(\d+)-(\d+)-.+")
_NO_LIMIT_BYTES = 2**62  # v1 writes a number near 2**63 for none
_BATCH_BYTES = 2**20  # how far below a limit the last charge that fits may end
_KILL_SECONDS = 1.0
G = TypeVar("G", bound="Group")


@dataclass(frozen=True)
class Place:
    version: Version
    path: Path


def parse_worker(name: str) -> tuple[int, int] | None:
    """(pid, start time) of the worker that made the group ``rqmem-<pid>-<start time>-<n>``."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


class Group:
    def __init__(self, version: Version, path: Path) -> None:
        self.version = version
        self.path = path
        self._peak_bytes = 0
        self._hits = 0  # v2: of limits that were set before

    @classmethod
    def make(cls: type[G], place: Place, name: str, limit_bytes: int) -> G:
        """A new, empty group with this limit; raises OSError, and then there is none."""
        group = cls(place.version, place.path / name)
        group.path.mkdir()
        try:
            if group.version == "v2":
                write(group.path / "memory.oom.group", "1")
                _write_if_there(group.path / "memory.swap.max", "0")
            group.set_limit(limit_bytes)
        except OSError:
            group.remove()
            raise
        return group

    def enter(self) -> None:
        """Move the calling process in, all its threads; what it forks from then on is in it too.

        Moving a process makes the caller wait for all processors, 6 ms (up to 30), unless one was moved just before.
        v1 moves a single thread without that, and a process just forked has but one.
        """
        alone = self.version == "v1" and len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208  a horse's start
        write(self.path / ("tasks" if alone else "cgroup.procs"), "0")

    def set_limit(self, limit_bytes: int | None) -> bool:
        """Set the limit (None: none), for memory and swap together; False when more than that is in use.

        v2 would kill rather than refuse, so there it is looked at first.
        """
        if self.version == "v2":
            if limit_bytes is not None and self._undroppable_above(limit_bytes):
                return False
            hits = self._read_hits()
            write(self.path / _LIMIT["v2"], "max" if limit_bytes is None else str(limit_bytes))
            self._hits = hits
            return True
        value = "-1" if limit_bytes is None else str(limit_bytes)
        lowered = limit_bytes is not None and limit_bytes <= _read_number(self.path / _LIMIT["v1"])
        try:
            if not lowered:  # the one for both must never be the lower
                _write_if_there(self.path / _SWAP_LIMIT, value)
            write(self.path / _LIMIT["v1"], value)
            if lowered:
                _write_if_there(self.path / _SWAP_LIMIT, value)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        with contextlib.suppress(OSError):  # more is in use: the watcher sees it
            _write_if_there(self.path / _SOCKETS_LIMIT, value)
        self._peak_bytes = self.peak_bytes()
        for mark in _MARKS:  # what was reached under the limit before says nothing of this one
            _write_if_there(self.path / mark, "0")
        return True

    def limit_bytes(self) -> int:
        """As it is set now; a number near 2**63 for none."""
        limit = parse_limit((self.path / _LIMIT[self.version]).read_text())
        return sys.maxsize if limit is None else limit

    def charge(self) -> ChargeReader:
        """To read what is charged, again and again; for the caller to close."""
        return ChargeReader(self.version, self.path)

    def parts(self) -> Parts:
        """Lags behind by some 64 pages per processor."""
        return parse_parts((self.path / "memory.stat").read_text())

    def peak_bytes(self) -> int:
        """The highest charge since it was made, page cache included; 0 where the kernel keeps none."""
        return max(self._peak_bytes, _read_number(self.path / _PEAK[self.version]))

    def kernel_kills(self) -> int:
        """Processes in it that the kernel killed for memory, whoever's limit or need it was."""
        groups = self._groups() if self.version == "v1" else [self.path]  # v2 counts those of sub-groups
        return sum(read_kernel_kills(self.version, group) or 0 for group in groups)

    def counts_kernel_kills(self) -> bool:
        """Whether `kernel_kills` says anything (v1: kernel 4.13)."""
        return read_kernel_kills(self.version, self.path) is not None

    def hit_limit(self) -> bool:
        """Whether its own limit was hit since it was last set, and not an ancestor's or the machine's memory used up.

        Says what a kernel kill was for and proves none: in v1 page cache that filled it looks the same. To be
        asked before the limit is set anew.
        """
        if self.version == "v1":  # failcnt would not do: on 6.18 it stays 0 where the limit for both is the same
            near = _read_number(self.path / _LIMIT["v1"]) - _BATCH_BYTES
            return 0 < near <= max(_read_number(self.path / mark) for mark in _MARKS)
        return self._read_hits() > self._hits

    def _read_hits(self) -> int:
        local = self.path / "memory.events.local"  # kernel 5.2; without it a sub-group's own limit counts
        events = local if local.exists() else self.path / "memory.events"
        return parse_counters(events.read_text()).get("oom", 0) if events.exists() else 0

    def pids(self) -> list[int]:
        """All processes in it and in sub-groups that a job made, as far as our pid namespace names them."""
        return sorted({pid for group in self._groups() for pid in read_members(group)} - {0})

    def kill(self, *, wait: bool = True) -> None:
        """SIGKILL all of it, also what is forked meanwhile; with ``wait`` until it has ended, a second at most."""
        with contextlib.suppress(FileNotFoundError):
            write(self.path / "cgroup.kill", "1")  # v2, kernel 5.14
        deadline = time.monotonic() + _KILL_SECONDS
        killed: set[int] = set()
        while (pids := self.pids()) and time.monotonic() < deadline:
            new = [pid for pid in pids if pid not in killed]
            process_tree.send(new, signal.SIGKILL)
            killed.update(new)
            if not (wait or new):
                return
            if not new:
                time.sleep(0.001)

    def move_out(self, target: Path) -> None:
        move(self.pids(), target)

    def remove(self) -> bool:
        """Remove it and sub-groups a job made; False, and nothing is removed, while something lives in it."""
        groups = self._groups()
        if any(read_members(group) for group in groups):
            return False
        try:
            for group in groups:
                group.rmdir()
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):  # entered, or made, since
                raise
            return False
        return True

    def alarm(self) -> int | None:
        """A descriptor to wait on, for the caller to close; None where the kernel offers none.

        v1: an eventfd, readable when the kernel is about to kill in it, and when the group is removed. v2:
        ``memory.events``, in select's exceptional set when a counter changed, until it is read from its start.
        (A threshold of v1 would tell before that, but asking for one takes 5 to 30 ms.)
        """
        if self.version == "v2":
            try:
                events = os.open(self.path / KILLS["v2"], os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return None
            os.pread(events, 4096, 0)  # what was before does not count
            return events
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            watched = os.open(self.path / KILLS["v1"], os.O_RDONLY | os.O_CLOEXEC)
            try:
                write(self.path / "cgroup.event_control", f"{event} {watched}")
            finally:
                os.close(watched)
        except OSError:
            os.close(event)
            return None
        return event

    def _groups(self) -> list[Path]:
        """It and all below it, the innermost first."""
        try:
            if self.path.stat().st_nlink == 2:  # a directory has one more per directory in it
                return [self.path]
        except FileNotFoundError:
            return []
        return [Path(directory) for directory, _, _ in os.walk(self.path, topdown=False)]

    def _undroppable_above(self, limit_bytes: int) -> bool:
        """v2: whether the kernel could not get below ``limit_bytes`` by dropping caches."""
        charged = _read_number(self.path / "memory.current")
        if charged <= limit_bytes:
            return False
        parts = self.parts()
        return charged - parts.file_bytes - parts.slab_bytes > limit_bytes


def remove_stale(place: Place) -> list[Path]:
    """Remove the empty groups of workers that are gone; returns their paths. Others' are never touched."""
    removed = []
    for path in place.path.iterdir():
        worker = parse_worker(path.name)
        if worker and path.is_dir() and process_tree.is_gone(*worker) and Group(place.version, path).remove():
            removed.append(path)
    return removed


def kill_horses(path: Path, pid: int, start_time: int) -> None:
    """End what is in the groups of that worker's horses. What lives in those without a limit is nobody's."""
    for group in path.glob(f"rqmem-{pid}-{start_time}-*"):
        if group.name.endswith(LEAF_SUFFIX):
            continue
        version: Version = "v2" if (group / _LIMIT["v2"]).exists() else "v1"
        limit = parse_limit((group / _LIMIT[version]).read_text())
        if limit is not None and limit < _NO_LIMIT_BYTES:
            Group(version, group).kill()


def read_members(group: Path) -> list[int]:
    """Pids in ``group`` itself, 0 for one of another pid namespace; none where it is gone."""
    try:
        return list(map(int, (group / "cgroup.procs").read_text().split()))
    except OSError:
        return []


def _read_number(path: Path) -> int:
    """0 where there is no such file."""
    try:
        return int(path.read_text())
    except FileNotFoundError:
        return 0


def move(pids: Iterable[int], target: Path) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it ended
            write(target / "cgroup.procs", str(pid))


def write(path: Path, value: str) -> None:
    """Write to a file of a group, in one call.

    Never creates: cgroup file systems answer that with EACCES, and not with ENOENT.
    """
    file = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(file, value.encode())
    finally:
        os.close(file)


def _write_if_there(path: Path, value: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        write(path, value)
