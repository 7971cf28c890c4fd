"""Memory-aware jobs for tests of leases: most end at once; of some, one does something else."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from rqmem import MemoryAwareJob
from rqmem.testing import wait_until
from tests.lease import dying
from tests.lease_jobs import redis

LINES = {"horse": dying.kill_horse_at, "worker": dying.kill_worker_at}


class Add(MemoryAwareJob):
    """Adds numbers, six to a child, in chunks of two. ``acts``: what happens at a number, or at the end: `happen`."""

    queue = "jobs"
    on_breach = "resume"
    chunk_size = 2
    memory_limit_mb = 160
    adaptive = False

    def handle(self, numbers: int = 0, acts: Any = None, items: Any = None) -> Any:
        acts = acts or {}
        if items is None:
            return self.split_into_child_jobs(range(numbers), items_per_child=6)

        def add(chunk: list[int]) -> list[int]:
            note(f"{chunk[0]} {len(chunk)}")
            for number in chunk:
                happen(acts.get(str(number)), number)
            return [sum(chunk)]

        total = sum(self.process_in_chunks(items, add))
        return Sum(total, acts.get(f"result {next(iter(items))}"))

    def gather(self, results: Any) -> list[Any]:
        return [len(results), sum(each.total for each in results)]


class Failing(Add):
    on_breach = "fail"


class Sum:
    """A result. ``act``: what happens when it is serialised, which is after the code of its job."""

    def __init__(self, total: int, act: str | None) -> None:
        self.total, self.act = total, act

    def __reduce__(self) -> Any:
        happen(self.act, self.total)
        return Sum, (self.total, None)


def note(line: str) -> None:
    """In a file: a busy Redis would take longer than a short job does."""
    with Path(os.environ["TESTS_NOTES"]).open("a") as notes:
        notes.write(f"{line}\n")


def happen(act: str | None, number: int) -> None:
    """Do that, once in all."""
    if act is None or redis().incr(f"{act} at {number}") > 1:
        return
    kind, _, line = act.rpartition(" at line ")
    if kind in LINES:
        LINES[kind](int(line))
    if act == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "kill worker once shown":
        wait_until(lambda: bool(redis().hlen("rqmem:running")))
        act = "kill worker"
    if act == "kill worker":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    if act == "grow":
        rows = []
        while True:
            rows.append([0] * 1000)
    if act == "raise":
        raise ValueError(f"number {number}")
    if act == "sleep":
        time.sleep(0.2)


class Chunks(MemoryAwareJob):
    """Three chunks, whose results are kept."""

    queue = "jobs"
    on_breach = "resume"
    chunk_size = 1
    adaptive = False

    def handle(self, name: str, act: str | None = None) -> list[int]:
        def keep(chunk: list[int]) -> list[int]:
            note(f"{name} {chunk[0]}")
            if chunk[0] == 1:
                happen(act, 1)
            return chunk

        return self.process_in_chunks(range(3), keep)


class Nothing(MemoryAwareJob):
    queue = "jobs"

    def handle(self, name: str = "") -> str:
        return name
