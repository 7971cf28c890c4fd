"""Celery: ``celery -A scripts.bench.peers.celery_app worker``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery import Celery

from scripts.bench.peers import work

_url = work.url().replace("unix://", "redis+socket://")
app = Celery("bench", broker=_url, backend=_url)
run = app.task(name="run")(work.run)


def send(calls: Iterable[dict[str, Any]]) -> None:
    for call in calls:
        run.apply_async(kwargs=call)
