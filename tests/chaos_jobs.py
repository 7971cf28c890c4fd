"""Jobs for `tests.chaos`. Each tells a list in Redis of what it does, so that deaths can come in the middle of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

from redis import Redis
from rq import Retry, get_current_job

from rqmem import MemoryAwareJob
from rqmem.job import children
from rqmem.job.child_enqueuer import ITEMS, opened
from rqmem.sources import Range
from tests.sample_jobs import MB

CHUNK_SECONDS = 0.01
RESULT_SECONDS = 3600  # a slow machine, too, finds the result of the job under test
SHORT_SECONDS = 2  # what children have returned may be gone before it is gathered
children._BATCH = 3  # children made in one step: few, so that deaths fall between two steps as well


@cache
def redis() -> Redis:
    """The server itself: what refuses at random is between it and the workers, and no business of jobs."""
    return Redis.from_url(os.environ["CHAOS_REDIS_URL"])


def tell(run: str, what: str) -> None:
    """One more thing happened in that run."""
    redis().rpush(f"told:{run}", what)


def fail_at(numbers: list[int], run: str) -> None:
    """Raise `ValueError` where one of them stands in the list of what is broken in that run, once for each time."""
    for number in numbers:
        if redis().lrem(f"broken:{run}", 1, str(number)):
            tell(run, f"broken {number}")
            raise ValueError(f"number {number} is broken")


class SlowlyCut(Range):
    """Says when it is cut, and takes its time."""

    def slices(self, *args: Any, **kwargs: Any) -> Iterator[Range]:
        for each in super().slices(*args, **kwargs):
            time.sleep(0.005)
            yield each


class InChunks(MemoryAwareJob):
    """Works through its numbers itself."""

    queue = "chaos"
    on_breach = "resume"
    chunk_size = 3
    adaptive = False
    items_per_child = 5
    result_ttl = RESULT_SECONDS
    memory_limit_mb = 200

    def handle(self, run: str, count: int, heavy: int = -1, items: Any = None) -> list[int]:
        def work(chunk: list[int]) -> list[int]:
            fail_at(chunk, run)
            block = bytearray(400 * MB) if heavy in chunk else b""
            time.sleep(CHUNK_SECONDS)
            for number in chunk:
                tell(run, f"item {number}")
            return [len(block) + number for number in chunk]

        return self.process_in_chunks(range(count) if items is None else items, work)


class Child(InChunks):
    """Works through its slice."""

    result_ttl = SHORT_SECONDS


class RetriedChild(Child):
    """RQ retries it once."""

    retry = Retry(1)


class InChildren(InChunks):
    """Splits; each child works through its slice."""

    child_class: type[InChunks] | None = Child

    def handle(self, run: str, count: int, heavy: int = -1, items: Any = None) -> Any:
        if items is None:
            return self.split_into_child_jobs(SlowlyCut(count), self.child_class)
        return super().handle(run, count, heavy, items)

    def gather(self, results: Any) -> list[int]:
        time.sleep(0.02)
        gathered: list[int] = super().gather(results)
        if gathered != self._own_numbers():
            tell(self.kwargs["run"], f"incomplete: {get_current_job().id}")
        tell(self.kwargs["run"], f"gathered {get_current_job().id}")
        time.sleep(0.02)
        return gathered

    def _own_numbers(self) -> list[int]:
        """All that it and those below it were to work through, but for the one that does not fit."""
        items = opened(self.kwargs).get(ITEMS)
        numbers = range(self.kwargs["count"]) if items is None else (number for number, _ in items.items_after(None))
        return [number for number in numbers if number != self.kwargs.get("heavy")]


class InRetriedChildren(InChildren):
    """RQ retries each child once."""

    child_class = RetriedChild


class InGrandchildren(InChildren):
    """Splits, and its children split."""

    items_per_child = 15

    def handle(self, run: str, count: int, heavy: int = -1, items: Any = None) -> Any:
        if items is None:
            return self.split_into_child_jobs(SlowlyCut(count))
        return self.split_into_child_jobs(items, Child, 5)


class Halving(InChildren):
    """One number of many does not fit: it is isolated, and the others are done."""

    child_class = None  # its own: a child splits as well
    on_breach = "split"
    on_child_failure = "continue"
    items_per_child = 20
