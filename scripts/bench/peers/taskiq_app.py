"""taskiq: ``taskiq worker scripts.bench.peers.taskiq_app:broker``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import cache
from typing import Any

from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from scripts.bench.peers import work

broker: Any = ListQueueBroker(work.url(), queue_name=work.QUEUE)
if work.keeps_results():
    broker = broker.with_result_backend(RedisAsyncResultBackend(work.url()))
run = broker.task(task_name="run")(work.run)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(broker.startup())
    return loop


def send(calls: Iterable[dict[str, Any]]) -> None:
    async def enqueue() -> None:
        for call in calls:
            await run.kiq(**call)

    _loop().run_until_complete(enqueue())
