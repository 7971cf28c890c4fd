"""The loops that `scripts.bench.chunks` times, as jobs: by hand, and in the two forms of chunks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rqmem import MemoryAwareJob
from scripts.bench.measuring import forget_peak, peak_mb, resident_mb
from scripts.bench.worker_runs import QUEUE

WAYS = ("by hand", "chunks", "process_in_chunks")
EARLY = 10
"""The size of the job is read when it begins, after a tenth of its items, and when it ends."""


@dataclass
class Loop:
    """What one loop measured. ``inside``: within the processor, so not between chunks. Sizes: resident MB."""

    items: int = 0
    chunks: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    inside_seconds: float = 0.0
    inside_cpu_seconds: float = 0.0
    start_mb: float = field(default_factory=resident_mb)
    early_mb: float = 0.0
    end_mb: float = 0.0
    peak_mb: float = 0.0


def work(turns: int) -> None:
    """What an item takes: nothing but time."""
    for _ in range(turns):
        pass


class GoThrough(MemoryAwareJob):
    """So many numbers, in one of the ways, each with ``turns`` of work. Resumable, so chunks save their cursor."""

    queue = QUEUE
    memory_limit_mb = 256
    on_breach = "resume"
    job_timeout = 3600

    def handle(self, way: str, count: int, turns: int) -> Loop:
        self.numbers, self.turns, self.early = range(count), turns, count // EARLY
        forget_peak()
        self.loop = Loop()
        began, cpu_began = time.perf_counter(), time.process_time()
        match way:
            case "by hand":
                self.go_by_hand()
            case "chunks":
                for chunk in self.chunks(self.numbers):
                    self.process(chunk)
            case "process_in_chunks":
                self.process_in_chunks(self.numbers, self.process, collect=False)
        self.loop.seconds, self.loop.cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
        self.loop.end_mb, self.loop.peak_mb = resident_mb(), peak_mb()
        return self.loop

    def go_by_hand(self) -> None:
        turns = self.turns
        for _ in self.numbers:
            work(turns)
        self.loop.items = len(self.numbers)

    def process(self, chunk: list[int]) -> None:
        turns, began, cpu_began = self.turns, time.perf_counter(), time.process_time()
        for _ in chunk:
            work(turns)
        self.loop.inside_seconds += time.perf_counter() - began
        self.loop.inside_cpu_seconds += time.process_time() - cpu_began
        self.loop.items += len(chunk)
        self.loop.chunks += 1
        if not self.loop.early_mb and self.loop.items >= self.early:
            self.loop.early_mb = resident_mb()
