"""RQ, and rqmem: they run the same jobs."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from redis import Redis
from rq import Queue

import rqmem
from scripts.bench.peers import work

_RUN = "scripts.bench.peers.work.run"


@cache
def _connection(url: str) -> Redis:
    return Redis.from_url(url)


def send(calls: Iterable[dict[str, Any]], queue: str = work.QUEUE) -> None:
    rqmem.enqueue_many(queue, ((_RUN, call) for call in calls), connection=_connection(work.url()))


def send_one(call: dict[str, Any]) -> None:
    Queue(work.QUEUE, connection=_connection(work.url())).enqueue(_RUN, **call)
