"""One small job for each mechanism. Each needs its mechanism, and returns what it observed."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable

from rq import get_current_job

from rqmem import MemoryAwareJob
from rqmem.policy.alert_rules import USAGE
from rqmem.store.history import history_reader
from rqmem.units import MB, to_bytes

KB = 1024
_ALERT_SECONDS = 15.0  # usage is judged once a second


class Tracked(MemoryAwareJob):
    """Holds ``megabytes`` between two checkpoints. Returns the MB used before, then, and after."""

    def handle(self, megabytes: int) -> tuple[float, float, float]:
        before = self.check_memory_usage("before")
        block = b"x" * (megabytes * MB)
        held = self.check_memory_usage("held")
        del block
        return before, held, self.check_memory_usage("released")


class Collected(MemoryAwareJob):
    """Leaves ``megabytes`` of objects that only a collection finds. Returns the MB that it freed."""

    def handle(self, megabytes: int) -> float:
        gc.disable()  # else Python might collect some of them first
        try:
            for _ in range(megabytes * MB // (10 * KB)):
                knot: list[object] = [bytearray(10 * KB)]
                knot.append(knot)
            self.check_memory_usage("knots left")
            return self.force_garbage_collection()
        finally:
            gc.enable()


class Greedy(MemoryAwareJob):
    """Grows in small objects up to a bound far above its ceiling, and is stopped before."""

    def handle(self, bound_mb: int) -> None:
        rows = []
        for _ in range(bound_mb * MB // KB):
            rows.append(bytes(KB))


class After(MemoryAwareJob):
    """The next one on the same worker."""

    def handle(self) -> str:
        return "ran"


class Chunked(MemoryAwareJob):
    """Works through items that together are far larger than its ceiling. Returns how many, and the MB used before."""

    chunk_size = 100
    on_breach = "resume"

    def handle(self, count: int, item_kb: int) -> tuple[int, float]:
        before = self.check_memory_usage("before")
        sizes = self.process_in_chunks(range(count), lambda chunk: self.total(chunk, item_kb))
        return sum(sizes) // (item_kb * KB), before

    @staticmethod
    def total(chunk: list[int], item_kb: int) -> int:
        rows = [bytes([number % 256]) * (item_kb * KB) for number in chunk]
        return sum(len(row) for row in rows)


class Divided(MemoryAwareJob):
    """Sums numbers in child jobs."""

    split_above_items = 1000

    def handle(self, count: int, items: list[int] | None = None) -> int:
        if items is None and self.should_split_job(count):
            return self.split_into_child_jobs(range(count))
        return sum(sum(chunk) for chunk in self.chunks(range(count) if items is None else items))

    def gather(self, results: Iterable[int]) -> int:
        return sum(results)


class Resumed(MemoryAwareJob):
    """Holds a chunk of items at once: a full one does not fit, half of one does. Returns the items."""

    on_breach = "resume"
    chunk_size = 8
    adaptive = False

    def handle(self, count: int, item_mb: int) -> list[int]:
        return self.process_in_chunks(range(count), lambda chunk: self.hold(chunk, item_mb))

    @staticmethod
    def hold(chunk: list[int], item_mb: int) -> list[int]:
        held = [(number, b"x" * (item_mb * MB)) for number in chunk]
        return [number for number, _ in held]


class NearCeiling(MemoryAwareJob):
    """Stays at ``fraction`` of its ceiling until there is an alert about it. Returns the seconds; None if none came."""

    def handle(self, limit_mb: float, fraction: float) -> float | None:
        wanted_mb = fraction * limit_mb - self.check_memory_usage("before")
        block = b"x" * to_bytes(max(0.0, wanted_mb))
        since = time.monotonic()
        while (waited := time.monotonic() - since) < _ALERT_SECONDS:
            if self.is_told():
                return waited
            time.sleep(0.05)
        del block
        return None

    def is_told(self) -> bool:
        job = get_current_job()
        assert job is not None
        found = history_reader.open_alerts(job.connection)
        return any((alert.rule, alert.job) == (USAGE.name, self.path()) for alert in found)


ALL = (Tracked, Collected, Greedy, After, Chunked, Divided, Resumed, NearCeiling)
