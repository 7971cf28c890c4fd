"""`assert_stays_under`: a block of code, and the processes it starts, use at most this much more memory.

Of two readings, the higher counts. For this process the kernel's own high-water mark of resident memory, set
back at the start, so a spike of a microsecond is seen; mapped files are in that mark and cannot be told
apart afterwards, so the most that samples saw of them is taken off. And samples of the whole tree, every
few milliseconds by a thread: they are all there is for child processes, and for this process where the mark
cannot be set back. A thread cannot sample while C code holds the interpreter. Not counted: processes that
were there before, orphans (unless this process is the subreaper), files in ``/dev/shm`` that nobody maps.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

from rqmem.errors import ConfigError
from rqmem.measure import process_tree, procfs
from rqmem.measure.meter import TreeMeter
from rqmem.measure.trim import collect_and_trim
from rqmem.units import MB, show_mb, to_bytes, to_mb

_SAMPLE_SECONDS = 0.003
_MACHINE_BYTES_PER_SECOND = 8e9
_WORTH_A_PLACE_BYTES = MB // 2
_LIBRARIES = ("<", *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")))
_clock = time.monotonic


F = TypeVar("F", bound=Callable[..., Any])


class Block(Protocol):
    """A context manager that also decorates functions."""

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...

    def __call__(self, function: F, /) -> F: ...


def assert_stays_under(mb: float) -> Block:
    """Context manager and decorator: the block uses at most ``mb`` MB (2**20 bytes) more than at its start.

    Garbage is collected and freed memory given back first. An exception of the block passes unchanged.

    Raises:
        AssertionError: it used more; says how much, and the line that ran when samples saw the most.
        ConfigError: ``mb`` is no positive number.
    """
    if isinstance(mb, bool) or not isinstance(mb, int | float) or not 0 < mb < 2**63 / MB:
        raise ConfigError(f"assert_stays_under({mb!r}): give a number of MB greater than 0, for example 100")
    return _watched(to_bytes(mb))


@contextmanager
def _watched(allowed_bytes: int) -> Iterator[None]:
    collect_and_trim()
    samples = _Samples(allowed_bytes)
    samples.start()
    mark = _HighWaterMark()
    try:
        yield
    finally:
        own_bytes = mark.growth_bytes()
        samples.end()
    used_bytes = max(samples.growth_bytes, own_bytes - samples.file_growth_bytes)
    if used_bytes > allowed_bytes:
        place = f" (most at {samples.place})" if samples.place else ""
        raise AssertionError(
            f"used {show_mb(to_mb(used_bytes))} MB more than at its start, "
            f"{show_mb(to_mb(allowed_bytes))} MB are allowed{place}"
        )


class _HighWaterMark:
    """Growth of the most that was resident in this process since now; 0 where the mark cannot be set back."""

    def __init__(self) -> None:
        self._start: int | None = None
        try:
            Path("/proc/self/clear_refs").write_text("5")  # proc_pid_clear_refs(5): peak := what is resident now
        except OSError:
            return
        self._start = _status_bytes("VmHWM")

    def growth_bytes(self) -> int:
        return 0 if self._start is None else max(0, _status_bytes("VmHWM") - self._start)


class _Samples:
    """Reads the tree every few milliseconds, in a thread, and keeps the growth that was most."""

    def __init__(self, allowed_bytes: int) -> None:
        pid = os.getpid()
        self._below = process_tree.Members(pid, frozenset(process_tree.descendants(pid)))
        self._meter = TreeMeter(lambda: [pid, *self._below()], _MACHINE_BYTES_PER_SECOND)
        self._thread = threading.Thread(target=self._run, name="assert_stays_under", daemon=True)
        self._ended = threading.Event()
        self._watched = threading.get_ident()
        self._start = self._meter.full(_clock).usage_bytes
        self._file_start = _status_bytes("RssFile")
        self._allowed = allowed_bytes
        self._placed = 0
        self.growth_bytes = 0
        self.file_growth_bytes = 0
        self.place = ""

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """The last sample is taken here, when the block has ended."""
        self._ended.set()
        self._thread.join()
        self._sample()
        self._meter.close()
        self._below.close()

    def _run(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        self.file_growth_bytes = max(self.file_growth_bytes, _status_bytes("RssFile") - self._file_start)
        raw = self._meter.raw()
        usage = self._meter.estimate(raw)
        if usage > self._start + self._allowed or self._meter.wants_full(raw, _clock()):
            usage = self._meter.full(_clock).usage_bytes  # a fork's shared pages look like growth
        growth = usage - self._start
        self.growth_bytes = max(self.growth_bytes, growth)
        if growth > self._placed + _WORTH_A_PLACE_BYTES:
            self._placed, self.place = growth, _running_line(self._watched) or self.place


def _running_line(thread: int) -> str:
    """``path:line in function`` that a thread runs now, outside libraries if it can be; "" outside the block."""
    innermost = frame = sys._current_frames().get(thread)
    users = None
    while frame is not None:
        if frame.f_code.co_filename == __file__:  # while the block runs nothing of ours is on its stack
            return ""
        if users is None and not frame.f_code.co_filename.startswith(_LIBRARIES):
            users = frame
        frame = frame.f_back
    found = users or innermost
    return f"{found.f_code.co_filename}:{found.f_lineno} in {found.f_code.co_name}" if found is not None else ""


def _status_bytes(name: str) -> int:
    """A size in ``/proc/self/status``; 0 where it is not there."""
    return procfs.parse_kb(Path("/proc/self/status").read_text()).get(name, 0) * 1024
