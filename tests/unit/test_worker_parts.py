"""The parts of a worker by themselves: no fork, no Redis, RQ's worker played by a few attributes."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from rqmem import MemoryWorker, events
from rqmem.config.settings import Config
from rqmem.errors import HorseTooHeavy, MemoryLimitExceeded, RunTakenOver, WorkerBroken
from rqmem.measure.machine import OomKills
from rqmem.rq_names import StopRequested, Worker, now
from rqmem.units import MB, to_bytes
from rqmem.worker.execution import Event, Phase
from rqmem.worker.horse_pool import HorsePool
from rqmem.worker.horse_recycling import Recycling
from rqmem.worker.redis_outage import RedisOutage, step_of_work
from rqmem.worker.rq_worker import OnConnection, own_methods
from rqmem.worker.settlement import Settlement
from rqmem.worker.shared_memory import SharedPage
from rqmem.worker.worker_setup import Setup

JOB = SimpleNamespace(id="one", retries_left=3, ended_at=None)


SETUP = Setup("a worker", Config(memory_mb=128))


class Settled:
    """A settlement whose commits are written down."""

    def __init__(self) -> None:
        pool = HorsePool(SETUP)
        self.page = pool.page
        self.phases_at_failure: list[Phase] = []
        self.let_go: list[str] = []
        committer = SimpleNamespace(let_go=lambda job, execution: self.let_go.append(job.id))
        worker = SimpleNamespace(name="a worker", connection=None)
        self.settlement = Settlement(
            cast(Any, worker), SETUP, pool, cast(Any, committer), cast(Any, None), OomKills(),
            self._fail, cast(Any, lambda *_: None), cast(Any, SimpleNamespace(evicted=None)),
        )  # fmt: skip
        for event in (Event.TAKEN, Event.ENTERED, Event.LEFT):
            self.page.advance(event)

    def _fail(self, *_: Any) -> None:
        self.phases_at_failure.append(self.page.state.phase)

    def ends_with(self, error: BaseException) -> None:
        nothing = cast(Any, None)
        self.settlement.fail(cast(Any, JOB), nothing, nothing, (type(error), error, None))


def a_breach(used_mb: float) -> events.Breach:
    return events.Breach(
        job="jobs.Some", job_id="one", queue="jobs", worker="a worker",
        used_mb=used_mb, limit_mb=128.0, peak_mb=used_mb, layer="watch", processes=1, operation="",
    )  # fmt: skip


def test_a_failure_is_marked_before_callbacks_can_run() -> None:
    settled = Settled()
    settled.ends_with(ValueError("wrong"))
    assert settled.phases_at_failure == [Phase.FAILING]
    assert settled.page.outcome == "ValueError"


def test_a_job_that_a_horse_is_too_heavy_for_has_not_failed() -> None:
    settled = Settled()
    settled.ends_with(HorseTooHeavy())
    assert settled.page.state.phase is Phase.DECLINED
    assert settled.page.outcome == ""
    assert settled.phases_at_failure == []


def test_a_breach_that_others_caused_is_ordered_again() -> None:
    settled = Settled()
    settled.page.left_before = to_bytes(60)
    settled.ends_with(MemoryLimitExceeded(a_breach(150.0)))
    assert settled.page.state.phase is Phase.SPOILED
    assert settled.page.state.ends_horse
    assert settled.phases_at_failure == []


def test_a_run_that_somebody_took_over_is_let_go() -> None:
    settled = Settled()
    settled.ends_with(RunTakenOver("elsewhere"))
    assert settled.let_go == ["one"]
    assert settled.page.outcome == "RunTakenOver"
    assert settled.phases_at_failure == []


# While Redis is away


def an_outage() -> RedisOutage:
    worker = SimpleNamespace(name="a worker", _shutdown_requested_date=None)
    return RedisOutage(cast(Any, worker))


def raising(error: BaseException) -> Callable[[], None]:
    def step() -> None:
        raise error

    return step


def test_what_redis_does_not_take_is_skipped() -> None:
    an_outage().skipping("heartbeat", raising(RedisConnectionError("refused")))


def test_an_error_of_ours_is_not_skipped() -> None:
    with pytest.raises(ResponseError):
        an_outage().skipping("heartbeat", raising(ResponseError("WRONGTYPE of a key")))


def test_a_worker_that_is_asked_to_stop_waits_for_nothing() -> None:
    outage = an_outage()
    outage._worker._shutdown_requested_date = now()
    with pytest.raises(StopRequested):
        outage.wait_for("answer", raising(AssertionError("it was asked")))


class Stepping:
    def __init__(self) -> None:
        self._outage = an_outage()

    @step_of_work
    def step(self, what: Callable[[], None]) -> None:
        what()


def test_the_last_error_of_the_loop_has_ended_the_worker() -> None:
    worker = Stepping()
    with pytest.raises(KeyError):
        worker.step(raising(KeyError("broken")))
    with pytest.raises(WorkerBroken, match="KeyError: 'broken'"):
        worker._outage.check()
    worker.step(lambda: None)
    worker._outage.check()


def test_a_stop_request_is_no_error() -> None:
    worker = Stepping()
    with pytest.raises(StopRequested):
        worker.step(raising(StopRequested()))
    worker._outage.check()


def test_what_rq_sets_over_another_connection_does_not_reach_the_worker() -> None:
    here, there = object(), object()
    worker = SimpleNamespace(name="a worker", connection=here)
    elsewhere = cast(Any, OnConnection(cast(Any, worker), cast(Any, there)))
    elsewhere.last_heartbeat = "now"
    assert (elsewhere.name, elsewhere.connection) == ("a worker", there)
    assert worker.connection is here
    assert not hasattr(worker, "last_heartbeat")


def test_what_the_heart_meets_does_not_hide_the_error_that_ended_the_worker() -> None:
    worker = Stepping()
    with pytest.raises(KeyError):
        worker.step(raising(KeyError("broken")))
    heart = threading.Thread(target=worker.step, args=(lambda: None,))
    heart.start()
    heart.join()
    with pytest.raises(WorkerBroken):
        worker._outage.check()


# Recycling


def test_a_horse_says_why_it_declined_and_the_type_is_known_from_then_on() -> None:
    page = SharedPage.new(128 * MB)
    page.held_before, page.left_before, page.need_bytes = 90 * MB, 80 * MB, -1
    page.declared_bytes = 100 * MB
    recycling = Recycling(SETUP)
    assert "others had left 80 MB in it, more than half of its ceiling of 100 MB" in recycling.declined(
        page, "jobs.Some"
    )
    page.left_before = 0
    assert recycling.declined(page, "jobs.Some") == "it holds more than the job's ceiling"


# The class


def test_a_memory_worker_has_rqs_worker_right_above_it() -> None:
    assert MemoryWorker.__bases__ == (Worker,)


def test_each_override_says_which_method_of_rq_it_is_about() -> None:
    for name, member in vars(MemoryWorker).items():
        if hasattr(Worker, name) and not name.startswith("__"):
            text = member.fget.__doc__ if isinstance(member, property) else member.__doc__
            assert text and ("RQ's" in text), name


def test_parts_do_not_know_the_class_that_is_composed_of_them() -> None:
    folder = Path(__file__).parents[2] / "rqmem/worker"
    for path in folder.rglob("*.py"):
        if path.name not in ("memory_worker.py", "memory_worker_pool.py"):
            assert "import MemoryWorker" not in path.read_text(), path


def test_a_method_is_somebodys_own_however_it_came_there(monkeypatch: pytest.MonkeyPatch) -> None:
    class Decorated(MemoryWorker):
        execute_job = functools.wraps(MemoryWorker.execute_job)(lambda *_: None)

    class Builtin(MemoryWorker):
        execute_job = len

    def own(worker_class: type[MemoryWorker], **replaced: Any) -> list[str]:
        worker = object.__new__(worker_class)
        vars(worker).update(replaced)
        return own_methods(worker, ["execute_job", "get_heartbeat_ttl"])

    assert own(MemoryWorker) == []
    assert own(Decorated) == own(Builtin) == ["execute_job"], "in a class of their own"
    assert own(MemoryWorker, get_heartbeat_ttl=len) == ["get_heartbeat_ttl"], "on the worker"
    monkeypatch.setattr(Worker, "get_heartbeat_ttl", lambda *_: 5)
    assert own(MemoryWorker) == ["get_heartbeat_ttl"], "in RQ's class"
