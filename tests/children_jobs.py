"""Jobs that make children in the ways that users do."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

from rq import get_current_job

from rqmem import MemoryAwareJob
from tests.sample_jobs import redis


class Part(MemoryAwareJob):
    """A child with a queue and a time limit of its own."""

    queue = "parts"
    job_timeout = 33

    def handle(self, items: Any) -> Any:
        return [sum(items), len(items), list(items)]


class Bare(MemoryAwareJob):
    """A child that declares nothing."""

    def handle(self, items: Any) -> Any:
        job = get_current_job()
        return [job.origin, job.timeout, job.result_ttl, job.failure_ttl, job.ttl, job.meta.get("tenant"), job.group_id]


class Parent(MemoryAwareJob):
    """Splits ten numbers among three children of another class."""

    queue = "jobs"
    job_timeout = 500

    def handle(self, child: str = "Bare") -> Any:
        return self.split_into_child_jobs(range(10), globals()[child], 4)


class Numbered(MemoryAwareJob):
    """Names the order in which its children run."""

    queue = "jobs"

    def handle(self, items: Any = None) -> Any:
        if items is None:
            return self.split_into_child_jobs(range(6), items_per_child=2)
        redis().rpush("ran", next(iter(items)))
        return list(items)


class OneByOne(MemoryAwareJob):
    """The loop of the original: each child is dispatched by itself.

    ``skip``: numbers of those that are not. ``then``: what comes after the first two.
    """

    queue = "jobs"

    def handle(self, skip: list[int] | None = None, then: str = "", items: Any = None) -> Any:
        if items is not None:
            if then == "fail" and not redis().exists("mended"):
                raise ValueError("not yet")
            return list(items)
        children = self.create_child_jobs(range(10), OneByOne, 3, kwargs={"then": then})
        jobs = []
        for number, child in enumerate(children):
            if number in (skip or ()):
                continue
            jobs.append(child.enqueue())
            if number == 1 and then == "raise":
                raise ValueError("a slip in the loop")
            if number == 1 and then == "die" and redis().incr("died") == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if number == 1 and then == "the rest":
                return children.enqueue()
        if then == "another":
            next(iter(self.create_child_jobs(range(10), OneByOne, 3))).enqueue()
        redis().set("made", f"{len(children)} {len({job.id for job in jobs})}")
        return "not split"

    def gather(self, results: Any) -> Any:
        return list(results), len(results), [each.number for each in results.failures]


class WithResume(OneByOne):
    """The same; killed, it goes on."""

    on_breach = "resume"


class Uncounted:
    """A source of one's own without a count, and without `rqmem.sources.Cuttable`."""

    name = "mine"

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def items_after(self, cursor: Any) -> Iterator[tuple[int, int]]:
        return ((number, number) for number in range(self.first if cursor is None else cursor + 1, self.last + 1))

    def slices(self, items_per_slice: int | None = None, *, parts: int | None = None) -> Iterator[Uncounted]:
        assert items_per_slice is not None
        for begin in range(self.first, self.last + 1, items_per_slice):
            yield Uncounted(begin, min(begin + items_per_slice - 1, self.last))

    def describe(self) -> dict[str, int]:
        return {"first": self.first, "last": self.last}


class OfMySource(MemoryAwareJob):
    queue = "jobs"

    def handle(self, items: Any = None) -> Any:
        if items is None:
            children = self.create_child_jobs(Uncounted(1, 7), OfMySource, 3)
            return len(children) == 3 and children.enqueue()
        try:
            length = len(items)
        except TypeError as error:
            return [items.name, sum(items), list(items), str(error)]
        return length


class Meta(MemoryAwareJob):
    """Saves its own meta while it gathers."""

    queue = "jobs"
    on_child_failure = "continue"

    def handle(self, items: Any = None) -> Any:
        if items is None:
            get_current_job().meta["mine"] = "kept"
            get_current_job().save_meta()
            return self.split_into_child_jobs(range(4), items_per_child=1)
        [number] = items
        if number == 1:
            raise ValueError("broken")
        if number == 3:
            while not redis().exists("go on"):
                pass
        return number

    def gather(self, results: Any) -> Any:
        get_current_job().save_meta()
        return dict(get_current_job().meta["rqmem"])


class Thousand(MemoryAwareJob):
    """Works through a thousand items faster than the worker tells of chunks, and saves none."""

    def handle(self, fails_at: int = 0) -> int:
        def work(chunk: list[int]) -> list[int]:
            if fails_at and chunk[-1] >= fails_at:
                raise ValueError("this far and no further")
            return chunk

        return len(self.process_in_chunks(range(1000), work, 100))
