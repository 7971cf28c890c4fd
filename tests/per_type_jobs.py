"""Unique jobs, and jobs of which only so many run at once. They talk to the tests through Redis."""

from __future__ import annotations

import time
from typing import Any

from rq import get_current_job

from rqmem import MemoryAwareJob, memory_aware


def redis() -> Any:
    return get_current_job().connection


def hold(name: str, seconds: float) -> None:
    """How many of a name run at once, at most, is in ``most:NAME``."""
    count = redis().incr(f"now:{name}")
    redis().zadd(f"most:{name}", {"most": count}, gt=True)
    redis().rpush("order", get_current_job().id)
    time.sleep(seconds)
    redis().decr(f"now:{name}")


class Unique(MemoryAwareJob):
    unique = True
    queue = "jobs"

    def handle(self, tenant_id: int, month: str = "2026-11", more: Any = None) -> int:
        redis().incr("ran")
        if more == "fail":
            raise ValueError("as asked")
        return tenant_id


@memory_aware(unique=True)
def unique(tenant_id: int, month: str = "2026-11") -> int:
    redis().incr("ran")
    return tenant_id


class AtMostTwo(MemoryAwareJob):
    concurrency = 2
    queue = "jobs"

    def handle(self, seconds: float = 0.2) -> None:
        hold("two", seconds)


class OnePerTenant(MemoryAwareJob):
    concurrency = 1
    concurrency_key = "tenant"
    queue = "jobs"

    def handle(self, tenant: str, seconds: float = 0.2) -> None:
        hold(tenant, seconds)


@memory_aware(concurrency=1, concurrency_key=lambda tenant, seconds=0.2: f"t-{tenant}")
def one_per_tenant(tenant: str, seconds: float = 0.2) -> None:
    hold(tenant, seconds)


class SlowChunks(MemoryAwareJob):
    """Goes on elsewhere when its worker dies; the worker's death takes no place for ever."""

    concurrency = 1
    queue = "jobs"
    on_breach = "resume"
    chunk_size = 1
    adaptive = False

    def handle(self, name: str, count: int) -> None:
        def work(chunk: list[int]) -> None:
            redis().rpush("chunks", name)
            time.sleep(0.1)

        self.process_in_chunks(range(count), work, collect=False)


class Plain(MemoryAwareJob):
    """Does not go on when its worker dies."""

    concurrency = 1
    queue = "jobs"

    def handle(self, seconds: float) -> None:
        redis().rpush("plain", get_current_job().id)
        time.sleep(seconds)


class ForTenant(MemoryAwareJob):
    tenant = "tenant_id"
    queue = "jobs"

    def handle(self, tenant_id: Any, seconds: float = 0.5, size_mb: int = 0) -> None:
        block = bytearray(size_mb * 2**20)
        block[::4096] = b"x" * len(block[::4096])
        time.sleep(seconds)


@memory_aware(tenant="tenant_id")
def for_tenant(tenant_id: Any, seconds: float = 0.5) -> None:
    time.sleep(seconds)
