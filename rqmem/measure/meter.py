"""How much memory a tree of processes uses: a quick reading for the alarm, a full one for the truth.

Quick (under 50 µs): resident pages from kept-open ``statm`` files, corrected by what the last look at
``status`` knew of mapped files (not usage) and swap (usage), less an offset for pages counted twice
(copy-on-write pages of a fork). Full (0.2 to 5 ms, and far longer of a process that grows meanwhile): the sum
of ``Pss_Anon + Pss_Shmem + SwapPss``, of huge pages and of mapped files that are locked into memory. A child that has
no memory of its own yet (`shared_space`) is nothing in both. The raw quick reading, without the offset, is not below
the full one, so below the ceiling it needs no proof. Huge pages and locks may change nothing that it sees: it learns of
them at the next full one. The offset expires: copy-on-write can turn shared pages private while resident memory stays
flat.

Readings are samples. The kernel keeps a mark of the most that was ever resident (``VmHWM``), which bursts between two
readings raise too. Pages of mapped files are in it. What was resident of those before and after a rise is known, so the
larger of the two is taken off; where they had become fewer by then, the rise tells nothing. (Of a file mapped, read and
unmapped between two readings it would tell too much.)

A process that may not be examined counts whole in the full reading: its shared pages, too. A fork that is about to
become another user's program is one for a moment. Until `_FORK_SECONDS` are over it is taken to share what its parent
shares; longer if it has hardly run, which is so on a busy machine. A process that ``/proc`` hides altogether cannot be
counted, and is named.
"""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable
from dataclasses import replace

from rqmem.measure import procfs, shared_space
from rqmem.measure.kept_files import KeptFile
from rqmem.values import dataclass

_STEP_BYTES = 4 * 2**20  # of mapped files that may be taken for usage, in what is reported
_PAUSE = 20
_FULL_SECONDS = 0.001  # what a full reading takes, most often
_SURE_TIMES = 5  # as much is allowed for
_AT_LEAST_EVERY_SECONDS = 5.0  # what was swapped out, or locked into memory, since shows only then
_FORK_SECONDS = 0.25
_IDLE_FORK_SECONDS, _IDLE_FORK_TICKS = 5.0, 2  # 20 ms
_NOISE_KB = 1024  # of the kernel's counters
_MOST_KEPT_OPEN = 256
_KEPT_FRACTION = 4  # of the descriptors this process may have


@dataclass(frozen=True)
class FullReading:
    """Usage of the whole tree in bytes, and of each process that could be read.

    ``whole``: those whose shared pages count whole; ``hidden``: those that could not be read at all.
    ``shmem_bytes``: the part of usage that is shared memory.
    """

    usage_bytes: int
    by_pid: dict[int, int]
    whole: frozenset[int] = frozenset()
    hidden: frozenset[int] = frozenset()
    shmem_bytes: int = 0


class _Process:
    """One process's ``statm`` and the correction in pages that its ``status`` last told.

    ``statm`` stays open if ``keep`` says so. Raises OSError where the process is gone or hidden.
    """

    def __init__(self, pid: int, *, keep: bool, checked: bool) -> None:
        self._pid = pid
        self._statm = KeptFile(f"/proc/{pid}/statm", checked=checked) if keep else None
        self._pages = self._correction = 0
        self._mark_kb = self._file_kb = self._resident_kb = self.shmem_kb = 0
        self._risen_kb = 0
        self.seen_at = time.monotonic()
        self.parent = procfs.read_parent(pid)
        self._is_parents = True  # its memory; once it is not, it never is again
        self.correct()
        self._risen_kb = 0  # what was before is nobody's

    def has_none_of_its_own(self) -> bool:
        """Whether all its memory is its parent's: it is about to become a program."""
        if self._is_parents:
            self._is_parents = self.parent > 0 and shared_space.is_same(self._pid, self.parent)
            if not self._is_parents:
                self.correct()
        return self._is_parents

    def correct(self) -> bool:
        """Look at ``status`` again. False: it cannot be read, and what it told before stays."""
        try:
            kb = procfs.parse_kb(procfs.read_status(self._pid))
        except OSError:
            return False
        if "VmHWM" not in kb:  # it has ended
            return False
        self._correction = procfs.correction_of_resident(kb)
        if kb["VmHWM"] > self._mark_kb and kb["RssFile"] >= self._file_kb - _NOISE_KB:
            self._risen_kb = kb["VmHWM"] - max(kb["RssFile"], self._file_kb) + kb["VmSwap"]
        self._mark_kb, self._file_kb, self._resident_kb = kb["VmHWM"], kb["RssFile"], kb["VmRSS"]
        self.shmem_kb = kb["RssShmem"]
        return True

    def set_mark_back(self) -> None:
        """Have the kernel's mark begin anew, right after `correct`. Else only what rises above it will show."""
        self._risen_kb = 0
        if self._mark_kb - self._resident_kb > _NOISE_KB:
            with contextlib.suppress(OSError):
                procfs.set_mark_back(self._pid)
                self._mark_kb = self._resident_kb

    def most_of_rise(self) -> int:
        """Pages of usage that the mark has risen to since this was asked last, as far as it tells; 0: it has not."""
        risen_kb, self._risen_kb = self._risen_kb, 0
        return risen_kb * 1024 // procfs.PAGE_BYTES

    def pages(self) -> int:
        """Raises ProcessLookupError: it is gone. Where nothing can be read, what was read last."""
        if self.has_none_of_its_own():
            return 0
        try:
            resident = procfs.parse_resident_pages(self._statm.read()) if self._statm is not None else 0
            resident = resident or procfs.read_resident_pages(self._pid)  # 0 where only the main thread has ended, too
        except (ProcessLookupError, FileNotFoundError):
            raise ProcessLookupError from None
        except OSError:
            return self._pages
        self._pages = max(0, resident + self._correction)
        return self._pages

    def close(self) -> None:
        if self._statm is not None:
            self._statm.close()


class TreeMeter:
    """Meters the processes that ``members`` names at each reading.

    Args:
        growth_bytes_per_second: how fast shared pages may turn private, for the offset's expiry.
        pause: full readings for that are at least this many times as far apart as one takes.
        checked: this process runs user code (`rqmem.measure.kept_files.KeptFile`).
    """

    def __init__(
        self,
        members: Callable[[], list[int]],
        growth_bytes_per_second: float,
        pause: int = _PAUSE,
        *,
        checked: bool = False,
    ) -> None:
        self._members = members
        self._checked = checked
        self._most_kept = min(_MOST_KEPT_OPEN, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _KEPT_FRACTION)
        self._hidden: set[int] = set()
        self._pause = pause
        self._rate = growth_bytes_per_second
        self._processes: dict[int, _Process] = {}
        self._last_pids: list[int] = []
        self._forget()

    def _forget(self) -> None:
        self._full_pids: set[int] = set()
        self._offset = self._offset_alone = self._shmem_kb_alone = 0
        self._knows_alone = False
        self._full_usage = 0
        self._corrected_raw = float("-inf")  # the next reading corrects: the last may be of the middle of a job
        self._full_at = float("-inf")
        self._full_cost = 0.0

    def begin(self, usage_bytes: int, pid: int) -> None:
        """Another job begins: until its first full reading, take this for what the tree uses now.

        From now on `take_mark` tells what process ``pid`` uses at most.
        """
        self._forget()
        self._offset = max(0, self.raw() - usage_bytes)
        if (alone := self._alone()) is not None:
            self._offset_alone, self._knows_alone = self._offset, True
            self._shmem_kb_alone = alone.shmem_kb
        if pid in self._processes:
            self._processes[pid].set_mark_back()

    def raw(self) -> int:
        """The quick reading in bytes, shared pages counted once per sharer."""
        raw = self._sum()
        if abs(raw - self._corrected_raw) >= _STEP_BYTES:  # it may be a mapped file that is read through
            for process in self._processes.values():
                process.correct()
            raw = self._corrected_raw = self._sum()
        return raw

    def estimate(self, raw: int) -> int:
        """Usage in bytes as far as a quick reading tells it; rather too much than too little."""
        return max(0, raw - self._offset)

    def likely(self, raw: int) -> int:
        """The same for what is only written down, not too much where the full reading saw memory grow meanwhile."""
        return max(0, raw - max(self._offset, self._offset_alone)) if len(self._last_pids) == 1 else self.estimate(raw)

    def take_mark(self, pid: int, *, look: bool = False) -> int | None:
        """The most bytes that process used by the kernel's mark; 0: it has not risen since this was asked last.

        ``look``: look at it now, and not only when something else is looked at. None: it cannot be read any more.
        """
        process = self._processes.get(pid)
        if process is None or (look and not process.correct()):
            return None
        pages = process.most_of_rise()
        return max(0, pages * procfs.PAGE_BYTES - self._offset_alone)

    @property
    def hidden(self) -> frozenset[int]:
        """Processes that could not be read at the last reading, since ``/proc`` hides them."""
        return frozenset(self._hidden)

    def resident_shmem_bytes(self) -> int:
        """Shared memory in the quick reading as it is now, counted once per sharer."""
        for process in self._processes.values():
            process.correct()
        return sum(process.shmem_kb for process in self._processes.values()) * 1024

    @property
    def pids(self) -> list[int]:
        return self._last_pids

    def comparable(self) -> bool:
        """Whether the tree is one process, or the same as at the last full reading: no new ones share pages."""
        return len(self._last_pids) == 1 or self._full_pids.issuperset(self._last_pids)

    def doubtful(self, raw: int, ceiling_bytes: int, now: float) -> bool:
        """Whether the last full reading no longer proves that the tree is below the ceiling.

        True when ``raw`` is above it and the headroom found then could have been used up since.
        """
        if raw <= ceiling_bytes:
            return False
        headroom = max(0, ceiling_bytes - self._full_usage)
        return now - self._full_at >= max(headroom / self._rate, self._pause * self._full_cost)

    def wants_full(self, raw: int, now: float) -> bool:
        """Whether a full reading would better what is reported: none yet, or long ago."""
        return now - self._full_at >= _AT_LEAST_EVERY_SECONDS

    def takes_long(self, headroom_bytes: int) -> bool:
        """Whether that headroom might be used up during a full reading of the running tree."""
        return headroom_bytes < _SURE_TIMES * max(_FULL_SECONDS, self._full_cost) * self._rate

    def full(self, clock: Callable[[], float], *, stopped: bool = False) -> FullReading:
        """The full reading; also renews the offset and the mapped-file parts of the quick one.

        While a process gives memory back, ``smaps_rollup`` no longer has what ``statm`` still counts, which looks like
        sharing. So the offset of a process on its own rises only with its shared memory, or if the tree is ``stopped``.
        """
        started = clock()
        usages: dict[int, procfs.Usage] = {}
        least = most = 0  # growth meanwhile is no sharing, nor what was freed
        for pid in self._refresh():
            process = self._processes[pid]
            nothing = process.has_none_of_its_own()  # before the reading: soon it may have its own
            process.correct()
            with contextlib.suppress(ProcessLookupError):
                before = process.pages()
                usage = self._read_usage(pid, before)
                if usage is not None:
                    parents = usages.get(process.parent)
                    usages[pid] = procfs.Usage(0, 0) if nothing else self._less_what_forks_share(pid, usage, parents)
                    after = process.pages()
                    least, most = least + min(before, after), most + max(before, after)
        by_pid = {pid: usage.usage_bytes for pid, usage in usages.items()}
        self._full_usage = sum(by_pid.values())
        self._full_pids = set(by_pid)
        self._corrected_raw = self._sum()
        self._offset = max(0, least * procfs.PAGE_BYTES - self._full_usage)
        process_alone = self._alone()
        if process_alone is not None and self._last_pids == [*by_pid]:
            alone, shmem_kb = self._offset, process_alone.shmem_kb
            if self._knows_alone and not stopped and shmem_kb <= self._shmem_kb_alone:
                calm = (most - least) * procfs.PAGE_BYTES <= _NOISE_KB * 1024
                alone = min(alone, self._offset_alone) if calm else self._offset_alone
                self._offset = min(self._offset, alone)
            self._offset_alone, self._shmem_kb_alone, self._knows_alone = alone, shmem_kb, True
        self._full_at = clock()
        self._full_cost = self._full_at - started
        whole = frozenset(pid for pid, usage in usages.items() if usage.whole)
        return FullReading(
            self._full_usage, by_pid, whole, self.hidden, sum(usage.shmem_bytes for usage in usages.values())
        )

    def _alone(self) -> _Process | None:
        """The tree's only process at the last reading; None: there were others, or it could not be read."""
        return self._processes.get(self._last_pids[0]) if len(self._last_pids) == 1 else None

    def _read_usage(self, pid: int, pages: int) -> procfs.Usage | None:
        """Where ``statm``, opened earlier, is all that can be read any more, that tells."""
        try:
            return procfs.read_usage(pid)
        except OSError:
            known = self._offset if self._last_pids == [pid] else 0
            usage_bytes = max(0, pages * procfs.PAGE_BYTES - known)
            return procfs.Usage(usage_bytes, usage_bytes, whole=True)

    def _less_what_forks_share(self, pid: int, usage: procfs.Usage, parents: procfs.Usage | None) -> procfs.Usage:
        """A process that may not be examined, as long as it may be a fork on its way to another program."""
        age = time.monotonic() - self._processes[pid].seen_at
        if not usage.whole or parents is None or age > _IDLE_FORK_SECONDS:
            return usage
        stat = procfs.read_stat(pid)
        if stat is None or not stat.is_bare_fork or (age > _FORK_SECONDS and stat.cpu_ticks > _IDLE_FORK_TICKS):
            return usage
        return replace(usage, usage_bytes=max(0, usage.usage_bytes - parents.shared_bytes))

    def lone(self) -> FullReading | None:
        """The same for a tree of one process, at a hundredth of the cost: what the quick reading cannot deny.

        Nothing but its worker shares pages with it, and what was shared can only have become less: it uses at
        least what resident memory less the known offset says. None: there are more processes, or none.
        """
        pids = self._refresh()
        if len(pids) != 1:
            return None
        [pid] = pids
        self._processes[pid].correct()
        usage = self.estimate(self._sum())
        return FullReading(usage, {pid: usage}, hidden=self.hidden)

    def close(self) -> None:
        for process in self._processes.values():
            process.close()
        self._processes.clear()

    def _sum(self) -> int:
        pages = 0
        for pid in self._refresh():
            try:
                pages += self._processes[pid].pages()
            except ProcessLookupError:  # its pid may be another's tomorrow
                self._processes.pop(pid).close()
        return pages * procfs.PAGE_BYTES

    def _refresh(self) -> list[int]:
        """The pids that can be read now; opens what is new, closes what is gone."""
        pids = self._members()
        if pids == self._last_pids and len(self._processes) == len(pids):
            return pids
        self._last_pids = list(pids)
        for pid in [pid for pid in self._processes if pid not in pids]:
            self._processes.pop(pid).close()
        self._hidden.clear()
        for pid in pids:
            if pid not in self._processes:
                self._open(pid)
        return [pid for pid in pids if pid in self._processes]

    def _open(self, pid: int) -> None:
        try:
            keep = len(self._processes) < self._most_kept
            self._processes[pid] = _Process(pid, keep=keep, checked=self._checked)
        except OSError:
            if procfs.exists(pid):
                self._hidden.add(pid)
