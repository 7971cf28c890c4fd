"""Jobs that escalate, for the tests' workers to run. They talk to the tests through Redis."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from rq import get_current_job

from rqmem import MemoryAwareJob, memory_aware
from rqmem.sources import Sequence

MB = 2**20


def redis() -> Any:
    return get_current_job().connection


def take(size_mb: float) -> None:
    """Use so much, and say on which queue."""
    redis().rpush("began", get_current_job().origin)
    block = bytearray(int(size_mb * MB))
    block[::4096] = b"x" * len(block[::4096])
    time.sleep(0.1)
    redis().rpush("done", get_current_job().origin)


class Plain(MemoryAwareJob):
    memory_limit_mb = 96
    on_breach = "escalate"
    escalate_to = (160, (320, "big"))

    def handle(self, size_mb: float) -> str:
        take(size_mb)
        return "done"


@memory_aware(96, on_breach="escalate", escalate_to=(160, (320, "big")))
def function(size_mb: float) -> str:
    take(size_mb)
    return "done"


class Chunks(MemoryAwareJob):
    """The items from ``heavy_from`` on cost so much each, for as long as their chunk lasts."""

    memory_limit_mb = 96
    chunk_size = 4
    adaptive = False
    on_breach = "escalate"
    escalate_to = (160, (320, "big"))

    def handle(self, count: int, heavy_from: int, item_mb: float) -> int:
        def work(chunk: list[int]) -> list[int]:
            block = bytearray(int(sum(item_mb * MB for item in chunk if item >= heavy_from)))
            time.sleep(0.05)
            redis().rpush("chunks", f"{chunk[0]}-{chunk[-1]}")
            del block
            return chunk

        return len(self.process_in_chunks(range(count), work))


class Children(MemoryAwareJob):
    """Each child has one item, which takes ``item_mb``."""

    memory_limit_mb = 96
    on_breach = "escalate"
    escalate_to = (160, (320, "big"))

    def handle(self, sizes: list[float], items: Any = None) -> Any:
        if items is None:
            self.split_into_child_jobs(Sequence(sizes), items_per_child=1)
            return None
        for size_mb in items:
            take(size_mb)
        return "child"

    def gather(self, results: Any) -> list[str]:
        return list(results)


def kill_the_worker_at(step: str) -> None:
    """The worker of this horse dies right before or right after the hand-over, and the horse with it."""
    from rqmem.store import executions

    requeue = executions.requeue

    def die() -> None:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)

    def handing_over(*args: Any, **options: Any) -> bool:
        executions.requeue = requeue
        if step == "before":
            die()
        requeue(*args, **options)
        die()
        return True

    executions.requeue = handing_over


class DiesAtTheHandOver(MemoryAwareJob):
    memory_limit_mb = 96
    on_breach = "escalate"
    escalate_to = ((320, "big"),)

    def handle(self, step: str) -> str:
        if redis().incr("executions") == 1:
            kill_the_worker_at(step)
        take(85)
        return "done"


class NoQueue(MemoryAwareJob):
    memory_limit_mb = 96
    on_breach = "escalate"
    escalate_to = (320,)

    def handle(self, size_mb: float) -> None:
        take(size_mb)
