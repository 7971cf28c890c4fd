"""Jobs that share one warm horse, and what they leave in it."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from rqmem import MemoryAwareJob, memory_aware
from rqmem.units import MB
from tests.sample_jobs import redis

_kept: list[Any] = []


def leaves(mb: int) -> int:
    """As imports do, so much stays in the horse."""
    _kept.append(bytearray(b"x") * (mb * MB))
    return os.getpid()


def needs(mb: int) -> int:
    """A plain function; each time it begins is counted."""
    redis().incr("begun")
    blocks = [bytearray(b"x") * MB for _ in range(mb)]
    assert len(blocks) == mb
    return os.getpid()


@memory_aware(memory_limit_mb=150)
def needs_of_150(mb: int) -> int:
    return needs(mb)


def calls_one_of_150(mb: int) -> int:
    """A plain job in the middle of which a declared function is called."""
    redis().incr("outer")
    return needs_of_150(mb)


class InChunks(MemoryAwareJob):
    """Each item takes so many MB for the time of its chunk."""

    memory_limit_mb = 150
    chunk_size = 4
    adaptive: ClassVar[bool] = False
    on_breach = "resume"

    def handle(self, sizes_mb: list[int]) -> list[list[int]]:
        return self.process_in_chunks(sizes_mb, self.one)

    def one(self, chunk: list[int]) -> list[list[int]]:
        redis().rpush("chunks", str(chunk))
        blocks = [bytearray(b"x") * (mb * MB) for mb in chunk]
        return [[len(blocks)]]


@memory_aware(memory_limit_mb=150)
def grows_without_end() -> None:
    redis().incr("begun")
    blocks = []
    while True:
        blocks.append(bytearray(b"x") * MB)
