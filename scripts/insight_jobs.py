"""Four job types for `scripts.insight`: one leaks, one only seems to, one needs more and more, one is healthy."""

from __future__ import annotations

from typing import Any

from rqmem import MemoryAwareJob
from rqmem.units import MB

QUEUE = "insight"
_records: list[Any] = []
_cache: dict[int, bytes] = {}


class Record:
    def __init__(self, number: int) -> None:
        self.number = number
        self.text = f"{number:0200}"


class Leaking(MemoryAwareJob):
    """Keeps the records of each run, some 1.5 MB."""

    queue = QUEUE

    def handle(self, records: int = 4000) -> int:
        _records.extend(Record(number) for number in range(records))
        return len(_records)


class Caching(MemoryAwareJob):
    """Keeps 100 KB for each of 50 keys, and is full then."""

    queue = QUEUE

    def handle(self, key: int) -> int:
        _cache.setdefault(key % 50, bytes(100 * 1024))
        return len(_cache)


class Drifting(MemoryAwareJob):
    """Needs more from run to run: at the end more than its ceiling."""

    queue = QUEUE
    memory_limit_mb = 100

    def handle(self, megabytes: float) -> int:
        held = [bytearray(MB) for _ in range(int(megabytes))]
        self.check_memory_usage("held")
        return len(held)


class Healthy(MemoryAwareJob):
    """Works off items in chunks, and leaves garbage that only the collector finds."""

    queue = QUEUE
    chunk_size = 50

    def handle(self, items: int = 200) -> int:
        def work(chunk: list[int]) -> list[int]:
            cycle: list[Any] = [bytearray(8 * 1024 * len(chunk))]
            cycle.append(cycle)
            return [number * number for number in chunk]

        return sum(self.process_in_chunks(range(items), work))


JOBS: dict[str, type[MemoryAwareJob]] = {job.__name__: job for job in (Leaking, Caching, Drifting, Healthy)}
