"""Simulated jobs that work in chunks. `rqmem.policy.chunk_size` is tested and drawn with them.

A job is what each item costs in memory and time. A run takes chunks of the size the policy names, adds up usage, and
at a breach goes on from the last finished chunk in a new horse, as rqmem does. No clock, no process; seeded, so the
same each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from random import Random

from rqmem.policy import chunk_size
from rqmem.store import codec
from rqmem.units import MB

KB = 1024
BASELINE_MB = 60  # of a horse before the job
WARNING_FRACTION = 0.8
CHUNK_SECONDS = 0.005  # between two chunks: checkpoint, cursor saved
RESTART_SECONDS = 0.05  # a breach: evidence, a new horse, the job taken again
LARGEST_ITEM_MB = 24  # an item that fits under no ceiling is not the chunk size's business


@dataclass(frozen=True)
class SimulatedJob:
    """What a job's items cost.

    Attributes:
        item_bytes: of each item while its chunk is worked on.
        item_seconds: of each item.
        leak_bytes_per_item, leak_bytes_per_chunk: never released in its horse.
        allocator_keeps: what chunks released stays with the process, and is used again.
    """

    name: str
    item_bytes: list[int]
    item_seconds: float = 0.0002
    leak_bytes_per_item: int = 0
    leak_bytes_per_chunk: int = 0
    allocator_keeps: bool = False

    @property
    def seconds(self) -> float:
        """What the items alone take."""
        return len(self.item_bytes) * self.item_seconds

    def held(self, first: int, items: int) -> int:
        return self._sums[first + items] - self._sums[first]

    @cached_property
    def _sums(self) -> list[int]:
        return list(accumulate(self.item_bytes, initial=0))


@dataclass(frozen=True)
class Step:
    """A chunk that was finished or breached: when it ended, its items, and bytes of usage."""

    at_seconds: float
    items: int
    before: int
    peak: int
    after: int
    breached: bool = False


@dataclass(frozen=True)
class Run:
    """A job from its first item to its last."""

    job: SimulatedJob
    steps: list[Step] = field(default_factory=list)

    @property
    def breaches(self) -> int:
        return sum(step.breached for step in self.steps)

    @property
    def chunks(self) -> int:
        return len(self.steps) - self.breaches

    @property
    def overhead(self) -> float:
        """Time between chunks and lost in breaches, as a fraction of the time that the items take."""
        return self.steps[-1].at_seconds / self.job.seconds - 1


def run(job: SimulatedJob, ceiling_mb: int, declared: int = 100, adaptive: bool = True) -> Run:
    """Work through ``job``. Raises `ValueError` where one item breaches in a new horse."""
    return Run(job, list(_steps(job, ceiling_mb * MB, declared, adaptive)))


def _steps(job: SimulatedJob, ceiling: int, declared: int, adaptive: bool) -> Iterator[Step]:
    baseline = BASELINE_MB * MB
    new_horse = chunk_size.room(baseline, ceiling, WARNING_FRACTION)
    size, state = chunk_size.start(declared, None, new_horse, adaptive)
    done, now, leaked, pool, progressed = 0, 0.0, 0, 0, False
    while done < len(job.item_bytes):
        items = min(size, len(job.item_bytes) - done)
        held = job.held(done, items)
        before = baseline + leaked + pool
        leak = job.leak_bytes_per_item * items + job.leak_bytes_per_chunk
        peak = baseline + leaked + leak + max(pool, held)
        seconds = items * job.item_seconds
        if peak > ceiling:
            if items == 1 and not progressed:
                raise ValueError(f"item {done} of {job.name} does not fit under {ceiling / MB:.0f} MB")
            now += seconds * max(0, ceiling - before) / (peak - before) + RESTART_SECONDS
            yield Step(now, items, before, ceiling, baseline, breached=True)
            leaked, pool, progressed = 0, 0, False
            _, state = chunk_size.after_breach(state, items)
            size, state = chunk_size.resumed(codec.from_json(chunk_size.SizeState, codec.to_json(state)), new_horse)
            continue
        leaked, progressed = leaked + leak, True
        pool = max(pool, held) if job.allocator_keeps else 0
        after = baseline + leaked + pool
        done, now = done + items, now + seconds + CHUNK_SECONDS
        yield Step(now, items, before, peak, after)
        seen = chunk_size.Observation(items, before, peak, after, seconds, ceiling, WARNING_FRACTION)
        size, state = chunk_size.next_size(state, seen)


def catalogue(items: int = 100_000, seed: int = 1) -> list[SimulatedJob]:
    random = Random(seed)

    def drawn(cost: Callable[[int], float]) -> list[int]:
        return [min(int(cost(number)), LARGEST_ITEM_MB * MB) for number in range(items)]

    def blocks(number: int) -> float:  # long light stretches, on which a chunk may grow, before heavy ones
        return 150 * KB if number % 14_000 >= 10_000 else 2 * KB

    even = [20 * KB] * items
    return [
        SimulatedJob("constant", even),
        SimulatedJob("tiny items", [200] * (5 * items), item_seconds=0.00001),
        SimulatedJob("large items", [3 * MB // 2] * (items // 50), item_seconds=0.01),
        SimulatedJob("lognormal", drawn(lambda _: 6.5 * KB * random.lognormvariate(0, 1.5))),
        SimulatedJob("pareto", drawn(lambda _: 4 * KB * random.paretovariate(1.3))),
        SimulatedJob("growing", drawn(lambda number: 2 * KB + 100 * KB * number / items)),
        SimulatedJob("bimodal", drawn(lambda _: 200 * KB if random.random() < 0.1 else 2 * KB)),
        SimulatedJob("heavy blocks", drawn(blocks)),
        SimulatedJob("leak an item", even, leak_bytes_per_item=4 * KB),
        SimulatedJob("leak a chunk", even, leak_bytes_per_chunk=MB // 4),
        SimulatedJob("allocator keeps", even, allocator_keeps=True),
    ]
