"""Memory of a worker's jobs over time, read from /proc: the same for rqmem's worker and RQ's.

What is read is the sum of private, shared and swapped memory (``Pss_Anon + Pss_Shmem + SwapPss``) of all processes
below the worker, without the worker itself. Between two readings, a tenth of a second apart at least, a peak can be
missed: rqmem's own watcher looks more often, RQ's worker has none.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

from rqmem.measure import process_tree, procfs
from rqmem.units import MB

_INTERVAL_SECONDS = 0.1
_SHARE = 10  # at most a tenth of the time is spent on reading
KEPT = 400


class Sampler:
    """Reads in a thread until the block is left.

    Args:
        worker_pid: the worker; the processes below it are read.
        kill_above_mb: the worker's processes are killed if they use more, to protect the machine.
    """

    def __init__(self, worker_pid: int, kill_above_mb: float | None = None) -> None:
        self._worker_pid = worker_pid
        self._kill_above_mb = kill_above_mb
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read_on, daemon=True)
        self.samples: list[tuple[float, float]] = []
        """Seconds since the beginning, MB."""
        self.killed = False

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _read_on(self) -> None:
        cost = 0.0
        while not self._stop.wait(max(_INTERVAL_SECONDS, _SHARE * cost)):
            began = time.monotonic()
            pids = process_tree.descendants(self._worker_pid)
            readings = [procfs.read_usage(pid) for pid in pids]
            usage_mb = sum(each.usage_bytes for each in readings if each is not None) / MB
            cost = time.monotonic() - began
            self.samples.append((began - self._began, usage_mb))
            if self._kill_above_mb is not None and usage_mb > self._kill_above_mb:
                self.killed = True
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def peak_mb(samples: list[tuple[float, float]]) -> float:
    """The highest sample; 0 if there is none."""
    return max((usage_mb for _, usage_mb in samples), default=0.0)


def crossed_after(samples: list[tuple[float, float]], ceiling_mb: float) -> float | None:
    """Seconds until usage was first above the ceiling; None if it never was."""
    return next((seconds for seconds, usage_mb in samples if usage_mb > ceiling_mb), None)


def thinned(samples: list[tuple[float, float]], kept: int = KEPT) -> list[tuple[float, float]]:
    """At most ``kept`` samples: the highest of each span, all spans of equal length."""
    step = -(-len(samples) // kept)
    if step <= 1:
        return samples
    return [max(samples[begin : begin + step], key=lambda each: each[1]) for begin in range(0, len(samples), step)]
