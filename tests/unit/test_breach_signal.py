"""A breach signal that comes late hits no other job than the one that it was sent for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from rqmem.config.settings import Config
from rqmem.errors import MemoryLimitExceeded
from rqmem.events import Breach
from rqmem.store import codec
from rqmem.worker.execution import Event
from rqmem.worker.horse import user_code
from rqmem.worker.horse.user_code import Horse
from rqmem.worker.shared_memory import SharedPage

BREACH = Breach(
    job="jobs.some", job_id="one", queue="jobs", worker="w",
    used_mb=150.0, limit_mb=128.0, peak_mb=150.0, layer="watch", processes=1, operation="",
)  # fmt: skip


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedPage]:
    """Of a job whose own code runs in this process."""
    page = SharedPage.new(128 * 2**20)
    page.advance(Event.TAKEN)
    page.advance(Event.ENTERED)
    here = Horse(page, Config(), cast(Any, None), None, "one", "", "e", "jobs", "w")
    monkeypatch.setattr(user_code, "_current", here)
    return page


def breached(page: SharedPage) -> None:
    """What the watcher does before it sends its signal."""
    page.breach_json = codec.to_json(BREACH)
    page.breach_seq = page.seq
    page.advance(Event.BREACHED)


def the_signal_arrives() -> None:
    user_code._on_breach_signal(user_code.BREACH_SIGNAL, None)


def test_it_raises_in_the_job_that_it_was_sent_for(page: SharedPage) -> None:
    breached(page)
    with pytest.raises(MemoryLimitExceeded):
        the_signal_arrives()


def test_it_raises_nothing_in_the_next_job(page: SharedPage) -> None:
    breached(page)
    page.reset(128 * 2**20)
    page.advance(Event.TAKEN)
    page.advance(Event.ENTERED)
    the_signal_arrives()
    assert not page.breached


def test_it_raises_nothing_while_the_page_changes(page: SharedPage) -> None:
    breached(page)
    page.seq += 1
    the_signal_arrives()


def test_it_raises_nothing_where_nobody_has_breached(page: SharedPage) -> None:
    the_signal_arrives()
