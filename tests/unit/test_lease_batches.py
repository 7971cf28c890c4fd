"""How many jobs a lease asks for, and when; Redis and the clock are played."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rqmem.store.lease_commands import Batch, Taken
from rqmem.worker.horse import lease_batches
from rqmem.worker.horse.lease_batches import Batches


class Played:
    """Commits that give as many jobs as are asked for, until there are none."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        self.asked: list[int] = []
        self.sent = 0
        self.given = 0
        self.plain: list[Any] = []

    def send(self) -> None:
        self.sent += 1

    def ask(self, k: int, *, opens: bool, moved: Sequence[Any] = ()) -> None:
        assert opens == (not self.asked)
        self.asked.append(k)

    def batch(self) -> Batch:
        k = self.asked[self.given]
        self.given += 1
        jobs = [Taken(0, b"a", b"", b"", b"", b"")] * min(k, self.waiting)
        self.waiting -= len(jobs)
        return Batch(jobs, "" if len(jobs) == k else "empty", "")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [100.0]
    monkeypatch.setattr(lease_batches.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(lease_batches, "LeaseWait", lambda *_: SimpleNamespace(moved=[]))
    return clock


def batches_of(commits: Played, k: int = 8, most_jobs: int = 0) -> Batches:
    order = SimpleNamespace(wait_seconds=0, k=k, most_k=64, most_jobs=most_jobs, seconds=1.0)
    return Batches(cast(Any, None), cast(Any, order), cast(Any, None), cast(Any, None), cast(Any, commits))


def run(batches: Batches, batch: Batch | None, now: list[float], seconds_each: float) -> int:
    """How many of the batch have run."""
    assert batch is not None
    for number in range(len(batch.jobs)):
        batches.reached(number)
        batches.count += 1
        now[0] += seconds_each
        if batches.take_too_long(number):
            return number + 1
    return len(batch.jobs)


def test_the_next_batch_is_asked_for_when_half_of_one_has_run(now: list[float]) -> None:
    commits = Played(40)
    batches = batches_of(commits)
    assert run(batches, batches.next(), now, 0.0001) == 8
    assert commits.asked == [8, 8], "before anybody wanted it"
    assert commits.sent == 1, "what is sent between two jobs would say that none is in hand"
    asked_at = batches._asked_at
    second = batches.next()
    assert commits.asked == [8, 8] and batches.taken_at == asked_at < now[0]
    assert run(batches, second, now, 0.0001) == 8
    assert commits.asked == [8, 8, 16]
    assert run(batches, batches.next(), now, 0.0001) == 16
    assert run(batches, batches.next(), now, 0.0001) == 8
    assert batches.next() is None and batches.why == "take: empty"


def test_no_batch_is_asked_for_ahead_where_jobs_take_long_or_the_time_is_over(now: list[float]) -> None:
    commits = Played(100)
    batches = batches_of(commits)
    run(batches, batches.next(), now, 0.005)
    assert commits.asked == [8]
    now[0] += 1.0
    assert batches.next() is None and batches.why == "its time was over"


def test_all_jobs_that_were_asked_for_are_given_out_after_the_time_is_over(now: list[float]) -> None:
    commits = Played(100)
    batches = batches_of(commits)
    run(batches, batches.next(), now, 0.0001)
    now[0] += 1.0
    assert run(batches, batches.next(), now, 0.0001) == 1, "they have waited for so long that others may have them"


@pytest.mark.parametrize("most_jobs", [1, 7, 8, 9, 12, 13, 40])
def test_a_lease_asks_for_no_more_jobs_than_it_may_run(now: list[float], most_jobs: int) -> None:
    commits = Played(100)
    batches = batches_of(commits, most_jobs=most_jobs)
    while (batch := batches.next()) is not None:
        run(batches, batch, now, 0.0001)
    assert (batches.count, sum(commits.asked)) == (most_jobs, most_jobs)
    assert batches.why == "it has run as many jobs as it may"


def test_a_batch_that_takes_long_is_cut_and_the_next_one_is_smaller(now: list[float]) -> None:
    batches = batches_of(Played(100))
    assert run(batches, batches.next(), now, 0.03) == 4
    assert batches.k == 4
