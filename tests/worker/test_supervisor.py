"""One execution in the worker. A thread plays the horse; a sleeping process is watched and killed for it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job

from rqmem import MemoryWorker
from rqmem.config.settings import Config
from rqmem.errors import HorseLost
from rqmem.rq_names import now
from rqmem.store.history.history_records import OK
from rqmem.testing import wait_until
from rqmem.worker.execution import Event
from rqmem.worker.horse.channel import Channel, Order, Report
from rqmem.worker.shared_memory import SharedPage
from rqmem.worker.warm_horse import WarmHorse
from tests import sample_jobs

Act = Callable[["PlayedHorse", Order], None]


class PlayedHorse:
    """A horse that does with each order what it was told to."""

    def __init__(self, page: SharedPage, act: Act) -> None:
        self.page = page
        self.orders: list[Order] = []
        self.process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.warm = WarmHorse(self.process.pid, Channel(ours), page)
        self.channel = Channel(theirs)
        self._act = act
        self._dead = False
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while not self._dead and (order := self.channel.order()) is not None:
            self.orders.append(order)
            self._act(self, order)
        self.channel.close()

    def die(self) -> None:
        self._dead = True
        os.kill(self.process.pid, signal.SIGKILL)


@dataclass
class Supervised:
    """A worker whose horses are played, and what it did."""

    worker: MemoryWorker
    queue: Queue
    acts: list[Act] = field(default_factory=list)
    horses: list[PlayedHorse] = field(default_factory=list)

    def fork(self, serve: Callable[[Channel], Any]) -> WarmHorse:
        pool = self.worker._pool
        pool.new_page()
        self.horses.append(PlayedHorse(pool.page, self.acts[len(self.horses)]))
        pool.warm = self.horses[-1].warm
        return pool.warm

    def settle(self, job: Job, queue: Queue, settle: Callable[[], None], **about: Any) -> None:
        """In place of the fork that settles for a dead horse: as if a callback had ended it."""

    def runs(self) -> Job:
        job = self.queue.enqueue(sample_jobs.add, 1)
        self.queue.pop_job_id()
        execution = self.worker.prepare_execution(job)
        self.worker._supervisor.run_warm(job, self.queue, execution)
        assert not self.worker.horse_pid
        assert not self.worker.executions
        return job


@pytest.fixture
def supervised(connection: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervised]:
    queue = Queue("jobs", connection=connection)
    worker = MemoryWorker([queue], connection=connection, config=Config(cgroup="off"))
    found = Supervised(worker, queue)
    monkeypatch.setattr(worker._pool, "fork", found.fork)
    monkeypatch.setattr(worker._settlement._fork, "settle", found.settle)
    worker._heart.start(worker._life.new_recorder())
    yield found
    worker._pool.end_warm()
    worker._pool.bury()
    worker._heart.stop()
    for horse in found.horses:
        horse.process.kill()


def finish(horse: PlayedHorse, order: Order) -> None:
    """The job is run and committed, as a horse does it."""
    horse.page.advance(Event.TAKEN)
    horse.page.advance(Event.ENTERED)
    horse.page.advance(Event.LEFT)
    horse.page.outcome = OK
    horse.page.advance(Event.COMMITTED)
    horse.channel.send(Report(kept_bytes=0))


def die(horse: PlayedHorse, order: Order) -> None:
    horse.die()


def die_in_the_job(horse: PlayedHorse, order: Order) -> None:
    horse.page.advance(Event.TAKEN)
    horse.page.advance(Event.ENTERED)
    horse.die()


def die_in_a_hook(horse: PlayedHorse, order: Order) -> None:
    for event in (Event.TAKEN, Event.ENTERED, Event.LEFT, Event.COMMITTED, Event.ENTERED):
        horse.page.advance(event)
    horse.die()


def decline(horse: PlayedHorse, order: Order) -> None:
    for event in (Event.TAKEN, Event.ENTERED, Event.LEFT, Event.DECLINED):
        horse.page.advance(event)
    horse.channel.send(Report(kept_bytes=0))


def test_a_horse_that_reports_is_kept_for_the_next_job(supervised: Supervised) -> None:
    supervised.acts = [finish]
    jobs = [supervised.runs(), supervised.runs()]
    (horse,) = supervised.horses
    assert [order.job_id for order in horse.orders] == [job.id for job in jobs]
    assert supervised.worker.idle_horse_pid == horse.process.pid
    assert not horse.page.state.ends_horse


def test_an_order_names_the_data_of_redis_in_which_the_job_was_claimed(supervised: Supervised) -> None:
    supervised.acts = [finish]
    supervised.runs()
    assert supervised.worker._heart.epoch
    assert supervised.horses[0].orders[0].began_in == supervised.worker._heart.epoch


def test_a_horse_that_dies_before_it_takes_the_job_costs_it_nothing(supervised: Supervised) -> None:
    supervised.acts = [die, die, finish]
    job = supervised.runs()
    assert [len(horse.orders) for horse in supervised.horses] == [1, 1, 1]
    assert job.id not in supervised.queue.failed_job_registry
    assert supervised.horses[-1].page.outcome == OK


def test_three_horses_that_die_at_once_fail_the_job(supervised: Supervised) -> None:
    supervised.acts = [die, die, die]
    job = supervised.runs()
    assert job.id in supervised.queue.failed_job_registry
    assert len(supervised.horses) == 3


def test_a_horse_that_dies_in_the_job_is_settled_for_and_replaced(supervised: Supervised) -> None:
    supervised.acts = [die_in_the_job, finish]
    lost = supervised.runs()
    supervised.runs()
    result = lost.latest_result()
    assert result is not None and HorseLost.__name__ in (result.exc_string or "")
    assert supervised.worker.idle_horse_pid == supervised.horses[1].process.pid


def test_a_horse_that_dies_in_a_hook_changes_nothing_of_the_outcome(supervised: Supervised) -> None:
    supervised.acts = [die_in_a_hook]
    job = supervised.runs()
    assert job.id not in supervised.queue.failed_job_registry
    assert supervised.worker.idle_horse_pid == 0


def test_a_job_that_a_horse_declines_is_run_by_another(supervised: Supervised) -> None:
    supervised.acts = [decline, finish]
    supervised.runs()
    assert [len(horse.orders) for horse in supervised.horses] == [1, 1]
    supervised.horses[0].process.wait(60)


def test_a_stopped_job_that_dies_is_stopped_and_not_failed(supervised: Supervised) -> None:
    def stop(horse: PlayedHorse, order: Order) -> None:
        supervised.worker._stopped_job_id = order.job_id
        die_in_the_job(horse, order)

    supervised.acts = [stop]
    assert supervised.runs().is_stopped


def test_a_worker_that_is_asked_to_stop_says_so_to_the_job_it_orders(supervised: Supervised) -> None:
    asked: list[bool] = []

    def look(horse: PlayedHorse, order: Order) -> None:
        asked.append(horse.page.stop_asked)
        finish(horse, order)

    supervised.acts = [look]
    supervised.runs()
    supervised.worker._shutdown_requested_date = now()
    supervised.runs()
    assert asked == [False, True]


def test_the_heart_hears_of_each_job_and_of_its_end(supervised: Supervised) -> None:
    seen: list[str] = []

    def look(horse: PlayedHorse, order: Order) -> None:
        recorder = supervised.worker._heart.recorder
        wait_until(lambda: recorder.now() is not None)
        seen.append(getattr(recorder.now(), "job_id", ""))
        finish(horse, order)

    supervised.acts = [look]
    job = supervised.runs()
    assert seen == [job.id]
    assert supervised.worker._heart.recorder.now() is None
    assert supervised.worker._heart._running is None
