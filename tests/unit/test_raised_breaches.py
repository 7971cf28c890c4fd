"""The exceptions of a breach that were raised in a job: who has them, and whether they were caught knowingly."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from rqmem.errors import MemoryLimitExceeded
from rqmem.events import Breach
from rqmem.units import MB
from rqmem.worker.horse import swallowed_breaches
from rqmem.worker.horse.swallowed_breaches import Raised
from rqmem.worker.horse.user_code import new_raised

BREACH = Breach(
    job="jobs.A", job_id="1", queue="q", worker="w", used_mb=300, limit_mb=256, peak_mb=301, layer="watch",
    processes=1, operation="",
)  # fmt: skip
STAR = """
def runs_a_task(raise_it):
    try:
        raise_it()
    except BaseException as error:
        group = BaseExceptionGroup("some", [error])
    raise group  # whose traceback has this frame, which has the group: a cycle, as event loops leave them

def catches_a_group(raise_it):
    try:
        runs_a_task(raise_it)
    except* MemoryLimitExceeded:
        pass
"""


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> Iterator[Raised]:
    monkeypatch.setattr(MemoryLimitExceeded, "when_dropped", None)
    before = list(gc.callbacks)
    yield new_raised()
    gc.callbacks[:] = before


def raise_in(raised: Raised, usage_bytes: int = 128 * MB) -> None:
    raise raised.new(MemoryLimitExceeded(BREACH), usage_bytes)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there are no groups")
@pytest.mark.parametrize("named", [True, False])
def test_whoever_caught_a_group_is_known_wherever_the_garbage_collector_drops_it(raised: Raised, named: bool) -> None:
    code = STAR if named else STAR.replace("* MemoryLimitExceeded", "* BaseException")
    names: dict[str, Any] = {"MemoryLimitExceeded": MemoryLimitExceeded} if named else {}
    exec(compile(code, __file__, "exec"), names)
    gc.disable()
    try:
        names["catches_a_group"](lambda: raise_in(raised))
        gc.collect()
    finally:
        gc.enable()
    if not named:
        with pytest.raises(MemoryLimitExceeded):
            raised.check()
        return
    raised.check()
    assert raised.knew


def test_one_that_somebody_has_is_on_its_way_for_a_moment(raised: Raised, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(swallowed_breaches.time, "monotonic", lambda: now)
    assert not raised.is_on_its_way(128 * MB), "there is none"
    held = []
    try:
        raise_in(raised)
    except MemoryLimitExceeded as error:
        held.append(error)
    assert raised.is_on_its_way(129 * MB)
    assert not raised.is_on_its_way(140 * MB), "the job grows: it has gone on without it"
    now += 2
    assert not raised.is_on_its_way(128 * MB), "it does not arrive"
    now -= 2
    held.clear()
    assert not raised.is_on_its_way(128 * MB), "nobody has it any more"
