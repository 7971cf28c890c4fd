"""The jobs of `scripts.bench.pool`, for rqmem, RQ and Celery: the same work, with the sizes and times of a usual mix.

Each job says in Redis when it begins and when it is done. What is begun and never done is lost work.
"""

from __future__ import annotations

import os
import time
from functools import cache
from urllib.parse import urlsplit

from redis import Redis

from rqmem import MemoryAwareJob
from rqmem.units import MB

CHUNKS = 20
KINDS: dict[str, tuple[float, int, float]] = {
    "small": (0.60, 30, 0.3),
    "medium": (0.25, 80, 1.0),
    "chunked": (0.10, 100, 4.0),
    "large": (0.05, 250, 2.0),
}
"""Kind -> its share of all jobs, MB that it uses, seconds that it takes."""


@cache
def _redis() -> Redis:
    return Redis.from_url(os.environ["BENCH_REDIS_URL"])


def _use(megabytes: int, seconds: float) -> None:
    block = os.urandom(1) * (megabytes * MB)
    time.sleep(seconds)
    del block


def _whole(kind: str, number: str) -> None:
    _, megabytes, seconds = KINDS[kind]
    _redis().hincrby("bench:begun", number, 1)
    _use(megabytes, seconds)
    _redis().hincrby("bench:done", number, 1)


def small(number: str) -> None:
    _whole("small", number)


def medium(number: str) -> None:
    _whole("medium", number)


def large(number: str) -> None:
    _whole("large", number)


def chunked(number: str) -> None:
    """Without rqmem: all of it in one go."""
    _, megabytes, seconds = KINDS["chunked"]
    _redis().hincrby("bench:begun", number, 1)
    for _ in range(CHUNKS):
        _use(megabytes, seconds / CHUNKS)
    _redis().hincrby("bench:done", number, 1)


class Chunked(MemoryAwareJob):
    """The same, in chunks: it continues after an eviction or a death."""

    on_breach = "resume"
    chunk_size = 1
    adaptive = False

    def handle(self, number: str) -> None:
        _, megabytes, seconds = KINDS["chunked"]
        _redis().hincrby("bench:begun", number, 1)

        def work(chunk: list[int]) -> list[int]:
            _redis().hincrby("bench:chunks", number, 1)
            _use(megabytes, seconds / CHUNKS)
            return chunk

        self.process_in_chunks(range(CHUNKS), work, collect=False)
        _redis().hincrby("bench:done", number, 1)


def make_celery() -> object:
    """The application that ``celery -A scripts.bench.pool_mix`` finds."""
    from celery import Celery

    url = urlsplit(os.environ["BENCH_REDIS_URL"])
    app = Celery("bench", broker=f"redis+socket://{url.path}" if url.scheme == "unix" else url.geturl())
    app.conf.update(worker_prefetch_multiplier=1, task_acks_late=True, broker_connection_retry_on_startup=True)
    for kind, function in (("small", small), ("medium", medium), ("large", large), ("chunked", chunked)):
        app.task(name=kind)(function)
    return app


if os.environ.get("BENCH_CELERY"):
    app = make_celery()
