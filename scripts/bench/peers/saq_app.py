"""SAQ: ``saq scripts.bench.peers.saq_app.settings``. Its jobs are coroutines."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from functools import cache
from typing import Any

from redis.asyncio import Redis
from saq.queue.redis import RedisQueue

from scripts.bench.peers import work


def _queue() -> RedisQueue:
    return RedisQueue(Redis.from_url(work.url()), name=work.QUEUE)


async def run(
    context: Any, sent: float = 0.0, seconds: float = 0.0, argument: str = "", result_bytes: int = 0
) -> str | None:
    """As `work.run`; it sleeps as coroutines do."""
    began = time.monotonic()
    if seconds:
        await asyncio.sleep(seconds)
    os.write(work._notes(os.getpid()), work.NOTE.pack(sent, began))
    return "x" * result_bytes or None


settings = {"queue": _queue(), "functions": [run], "concurrency": int(os.environ.get("BENCH_CONCURRENCY", "10"))}


@cache
def _sender() -> tuple[asyncio.AbstractEventLoop, RedisQueue]:
    return asyncio.new_event_loop(), _queue()


def send(calls: Iterable[dict[str, Any]]) -> None:
    loop, queue = _sender()

    async def enqueue() -> None:
        for call in calls:
            await queue.enqueue("run", timeout=600, **call)

    loop.run_until_complete(enqueue())
