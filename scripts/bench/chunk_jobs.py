"""The job that `scripts.bench.chunks` measures, in both forms of chunks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat

from rqmem import MemoryAwareJob
from scripts.bench.measuring import forget_peak, peak_mb, resident_mb
from scripts.bench.worker_runs import QUEUE

WAYS = ("chunks", "process_in_chunks")
EARLY = 10
"""The size of the job is read when it begins, after a tenth of its items, and when it ends."""


@dataclass
class Spent:
    """Time and the processor's time, in seconds."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0


@contextmanager
def timed(spent: Spent) -> Iterator[None]:
    """Add what passes within the block."""
    began, cpu_began = time.perf_counter(), time.process_time()
    yield
    spent.seconds += time.perf_counter() - began
    spent.cpu_seconds += time.process_time() - cpu_began


@dataclass
class Loop:
    """What one loop measured. ``inside``: within the processor, so not between chunks. Sizes: resident MB."""

    items: int = 0
    chunks: int = 0
    whole: Spent = field(default_factory=Spent)
    inside: Spent = field(default_factory=Spent)
    start_mb: float = field(default_factory=resident_mb)
    early_mb: float = 0.0
    end_mb: float = 0.0
    peak_mb: float = 0.0


def go_through(numbers: Iterable[int], turns: int) -> None:
    """What items take: nothing but time.

    It calls no function and makes no number. Where Python's stack or heap happens to end, a call takes 3 to 10 us more
    (a page mapped and unmapped each time), and that is chance.
    """
    for _ in numbers:
        for _ in repeat(None, turns):
            pass


class GoThrough(MemoryAwareJob):
    """Works on ``count`` numbers in one of the `WAYS`, ``turns`` of work for each. Resumable: chunks save a cursor."""

    queue = QUEUE
    memory_limit_mb = 256
    on_breach = "resume"
    job_timeout = 3600

    def handle(self, way: str, count: int, turns: int) -> Loop:
        self.turns, self.early = turns, count // EARLY
        forget_peak()
        self.loop = Loop()
        with timed(self.loop.whole):
            if way == "chunks":
                for chunk in self.chunks(range(count)):
                    self.process(chunk)
            else:
                self.process_in_chunks(range(count), self.process, collect=False)
        self.loop.end_mb, self.loop.peak_mb = resident_mb(), peak_mb()
        return self.loop

    def process(self, chunk: list[int]) -> None:
        with timed(self.loop.inside):
            go_through(chunk, self.turns)
        self.loop.items += len(chunk)
        self.loop.chunks += 1
        if not self.loop.early_mb and self.loop.items >= self.early:
            self.loop.early_mb = resident_mb()
