"""huey: ``huey_consumer scripts.bench.peers.huey_app.huey``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from huey import RedisHuey

from scripts.bench.peers import work

huey = RedisHuey("bench", url=work.url())
run = huey.task()(work.run)


def send(calls: Iterable[dict[str, Any]]) -> None:
    for call in calls:
        run(**call)
