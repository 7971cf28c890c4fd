"""The loops that `scripts.bench.chunks` times, as jobs: both forms of chunks, on request with as much work by hand."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat

from rqmem import MemoryAwareJob, connect
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
    """What one loop measured. Sizes: resident MB.

    Attributes:
        whole: all of it, less what was done by hand and for it.
        inside: within the processor, so not between chunks.
        by_hand: the same work on as many items, without chunks.
        asking: the PINGs.
    """

    items: int = 0
    chunks: int = 0
    whole: Spent = field(default_factory=Spent)
    inside: Spent = field(default_factory=Spent)
    by_hand: Spent = field(default_factory=Spent)
    asking: Spent = field(default_factory=Spent)
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
    """Works on ``count`` numbers in one of the `WAYS`, ``turns`` of work for each. Resumable, so chunks save a cursor.

    With ``in_turns``, as many items are done by hand with each chunk, before or after it, with a PING between the two.
    So a slow second of the machine affects both, and so does the time after a wait for Redis: on the virtual machine
    where this was written, any loop, even one without rqmem, ran 5 to 10 % slower for tenths of a second after a PING.
    The Thue-Morse sequence decides which comes first. With plain turns, a cursor that is saved after every second chunk
    would always come before the same one.
    """

    queue = QUEUE
    memory_limit_mb = 256
    on_breach = "resume"
    job_timeout = 3600

    def handle(self, way: str, count: int, turns: int, in_turns: bool) -> Loop:
        self.redis, self.turns, self.in_turns, self.early = connect(), turns, in_turns, count // EARLY
        forget_peak()
        self.loop = loop = Loop()
        began, cpu_began = time.perf_counter(), time.process_time()
        match way:
            case "chunks":
                for chunk in self.chunks(range(count)):
                    self.process(chunk)
            case "process_in_chunks":
                self.process_in_chunks(range(count), self.process, collect=False)
        extra = loop.by_hand, loop.asking
        loop.whole.seconds = time.perf_counter() - began - sum(each.seconds for each in extra)
        loop.whole.cpu_seconds = time.process_time() - cpu_began - sum(each.cpu_seconds for each in extra)
        loop.end_mb, loop.peak_mb = resident_mb(), peak_mb()
        return loop

    def process(self, chunk: list[int]) -> None:
        done, parts = self.loop.items, list[tuple[Spent, Iterable[int]]]([(self.loop.inside, chunk)])
        if self.in_turns:
            parts.insert(self.loop.chunks.bit_count() % 2, (self.loop.by_hand, range(done, done + len(chunk))))
        for number, (spent, numbers) in enumerate(parts):
            if number > 0:
                self.ask_redis()
            self.spend(spent, numbers)
        self.loop.items += len(chunk)
        self.loop.chunks += 1
        if not self.loop.early_mb and self.loop.items >= self.early:
            self.loop.early_mb = resident_mb()

    def spend(self, spent: Spent, numbers: Iterable[int]) -> None:
        with timed(spent):
            go_through(numbers, self.turns)

    def ask_redis(self) -> None:
        with timed(self.loop.asking):
            self.redis.ping()
