"""An application over our own Redis, and a Redis with something on every page."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from redis import Redis
from rq import Queue

from rqmem.dashboard.app import build
from rqmem.dashboard.options import from_environ
from rqmem.store.history.history_records import LiveJob
from tests.journal_filling import a_live, a_run, fill, register, remember

JOB = "0f1e2d3c-0000-4000-8000-000000000001"
TYPE = "shop.exports.ExportJob"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PASSWORD", "PASSWORD_FILE", "TOKEN", "SECRET"):
        monkeypatch.delenv(f"RQMEM_DASHBOARD_{name}", raising=False)


@pytest.fixture(params=[False, True], ids=["ours", "with /rq/"])
def app(connection: Redis, request: pytest.FixtureRequest) -> Flask:
    """With every route there is, in one of two."""
    return build(connection, "redis", from_environ(os.environ, with_rq_dashboard=request.param))


def busy(connection: Redis, text: str = "", job_id: str = JOB, job_type: str = TYPE, share: float = 0.7) -> None:
    """Something on every page. ``text`` stands wherever somebody else chooses a text."""
    fill(connection, job_type, job_id)
    queue = Queue(f"q{text}", connection=connection)
    queue.enqueue("tests.sample_jobs.add", text, description=f"call({text})", job_id=job_id)
    failed = queue.enqueue("tests.sample_jobs.add", 1, description=f"failed({text})", meta={"note": text})
    failed.set_status("failed")
    queue.remove(failed)
    failed.failed_job_registry.add(failed, ttl=-1, exc_string=f"Traceback\nValueError: {text or 'no customer'}")
    now = time.time()
    job = LiveJob(
        job_type, job_id, queue.name, now - 40, 256 * share, 256 * share, 256.0, operation=f"items {text}",
        items_done=1250, grew=((90.0, f"exports.py:7: rows.append({text})"),),
    )  # fmt: skip
    register(connection, f"web-1-w1{text}", queue.name, state="busy", live=a_live(f"web-1-w1{text}", job))
    register(connection, f"web-1-w2{text}", queue.name, live=a_live(f"web-1-w2{text}"))
    register(connection, f"stock{text}", queue.name)
    runs = [
        replace(a_run(job_type, f"{job_id}-{number}", now - number), peak_mb=100.0 + number) for number in range(30)
    ]
    remember(connection, *runs, replace(runs[0], outcome="MemoryLimitExceeded", layer="watch"))


@pytest.fixture
def filled(connection: Redis) -> Redis:
    busy(connection)
    return connection


@pytest.fixture
def urls() -> Callable[..., list[tuple[str, str, set[str]]]]:
    """Endpoint, URL and methods of every route of an application."""

    def find(app: Flask) -> list[tuple[str, str, set[str]]]:
        samples: dict[str, Any] = {
            "job_id": JOB, "job_type": TYPE, "filename": "app.css", "queue": "q", "name": "q", "instance_number": 0,
            "queue_name": "q", "registry_name": "failed", "per_page": "8", "order": "asc", "page": "1",
        }  # fmt: skip
        found = []
        with app.test_request_context():
            adapter = app.create_url_adapter(None) or app.url_map.bind("localhost")
            for rule in app.url_map.iter_rules():
                values = {name: samples.get(name, 1 if "int" in str(rule) else "x") for name in rule.arguments}
                found.append((rule.endpoint, adapter.build(rule.endpoint, values), set(rule.methods or ())))
        return found

    return find
