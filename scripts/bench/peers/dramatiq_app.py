"""dramatiq: ``dramatiq scripts.bench.peers.dramatiq_app``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from scripts.bench.peers import work

broker = RedisBroker(url=work.url())
if work.keeps_results():
    broker.add_middleware(Results(backend=RedisBackend(url=work.url()), store_results=True))
dramatiq.set_broker(broker)
run = dramatiq.actor(work.run)


def send(calls: Iterable[dict[str, Any]]) -> None:
    for call in calls:
        run.send(**call)
