"""Job types that keep memory after their runs: some leak, and some only look as if they did."""

from __future__ import annotations

import importlib
import random
from typing import Any

from rqmem import MemoryAwareJob
from rqmem.units import MB

_records: list[Any] = []
_cache: dict[int, bytes] = {}
_blocks: list[bytearray] = []
_LATE = ("sqlite3", "xml.dom.minidom", "tkinter", "unittest.mock", "email.mime.text", "http.server", "asyncio",
         "multiprocessing.pool", "ctypes.util", "decimal", "statistics", "turtle", "pydoc")  # fmt: skip


class Record:
    """Something with attributes."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.text = f"{number:0200}"


class LeaksObjects(MemoryAwareJob):
    """Keeps the records of each run, some 1 MB of them."""

    queue = "leaks"

    def handle(self, count: int = 2500) -> int:
        _records.extend(Record(number) for number in range(count))
        return len(_records)


class LeaksSlowly(LeaksObjects):
    """Keeps fewer: 0.2 MB."""

    def handle(self, count: int = 500) -> int:
        return LeaksObjects.handle(self, count)


class Caches(MemoryAwareJob):
    """A cache that fills and is full after some runs."""

    queue = "leaks"

    def handle(self, key: int, kb: int = 200, entries: int = 60) -> int:
        if key < entries:
            _cache.setdefault(key, bytes(kb * 1024))
        return len(_cache)


class Imports(MemoryAwareJob):
    """Imports at first use, and again at later uses."""

    queue = "leaks"

    def handle(self, number: int) -> str:
        name = _LATE[number % len(_LATE)]
        try:
            importlib.import_module(name)
        except ImportError:
            return "not there"
        return name


class Fragments(MemoryAwareJob):
    """Blocks of all sizes that come and go, up to some 6 MB."""

    queue = "leaks"

    def handle(self, seed: int) -> int:
        chance = random.Random(seed)
        _blocks.extend(bytearray(chance.randrange(100, 60_000)) for _ in range(60))
        chance.shuffle(_blocks)
        del _blocks[200:]
        return len(_blocks)


class Healthy(MemoryAwareJob):
    """Leaves some garbage that only the collector finds."""

    queue = "leaks"

    def handle(self, megabytes: float = 0.5) -> int:
        cycle: list[Any] = [bytearray(int(megabytes * MB))]
        cycle.append(cycle)
        return len(cycle)


class KeepsOfEachItem(MemoryAwareJob):
    """Keeps so many KB of each item, within one run; and as garbage some more."""

    queue = "leaks"
    chunk_size = 50
    adaptive = False

    def handle(self, count: int, kb: float, garbage_kb: float = 0) -> int:
        kept = []

        def work(chunk: list[int]) -> None:
            for _ in chunk:
                kept.append(bytes(int(kb * 1024)))
                cycle: list[Any] = [bytes(int(garbage_kb * 1024))]
                cycle.append(cycle)

        self.process_in_chunks(range(count), work, collect=False)
        return len(kept)


class LeaksTexts(MemoryAwareJob):
    """Keeps bytes in a dict, which Python's collector does not track: 1 MB a run."""

    queue = "leaks"

    def handle(self, run: int) -> int:
        _cache.update((1000 * run + number, bytes(1000)) for number in range(1000))
        return len(_cache)
