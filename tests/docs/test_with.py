"""The pages of docs/with are typed in an empty directory, on the libraries themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from rqmem.testing import wait_until
from tests.conftest import ROOT
from tests.docs.typist import Typist
from tests.integrations.sink import Sink

LIBRARIES = ("django.db.models", "django.core.management", "flask", "fastapi", "sqlalchemy", "eventlet.patcher")
PAGES = sorted((ROOT / "docs" / "with").glob("*.md"))


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


@pytest.fixture
def typist(tmp_path: Path, redis_url: str, connection: Redis, sink: Sink) -> Iterator[Typist]:
    environ = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "HOME": str(tmp_path), "RQMEM_REDIS_URL": redis_url}
    typist = Typist(tmp_path, {**environ, "SENTRY_DSN": sink.dsn})
    try:
        yield typist
        typist.end()
    finally:
        typist.kill_rest()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_says_to_type_does_what_it_says(typist: Typist, connection: Redis, sink: Sink, page: Path) -> None:
    typist.follow(page.read_text())
    assert typist.typed
    if page.stem == "scheduler":
        wait_until(lambda: connection.zscore("rqmem:types", "nightly.CleanUp") is not None, 60)
    if page.stem == "sentry":
        [event] = sink.errors
        assert event["fingerprint"] == ["rqmem", "MemoryLimitExceeded", "greedy.load"]
