"""The lock of a scheduler that was killed is released by the next one; nobody else's is."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from rq.scheduler import RQScheduler

from rqmem.measure import procfs
from rqmem.testing import wait_until
from rqmem.worker.scheduler import PatientScheduler, new_name

LOCK = RQScheduler.get_locking_key("jobs")
Child = Callable[[Callable[[], object]], int]


@pytest.fixture
def child() -> Iterator[Child]:
    """Do something in a child, which then waits to be killed; returns its pid."""
    pids: list[int] = []

    def start(what: Callable[[], object]) -> int:
        pids.append(pid := os.fork())
        if pid:
            return pid
        try:
            what()
            signal.pause()
        finally:
            os._exit(1)

    yield start
    for pid in pids:
        kill(pid)


def kill(pid: int) -> None:
    if procfs.exists(pid):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def scheduler(redis_url: str, name: str | None = None) -> PatientScheduler:
    return PatientScheduler(["jobs"], connection=Redis.from_url(redis_url), name=name or new_name())


def test_the_lock_of_a_worker_that_was_killed_before_it_forked_its_scheduler_is_released(
    connection: Redis, redis_url: str, child: Child
) -> None:
    worker = child(lambda: scheduler(redis_url).acquire_locks())
    wait_until(lambda: connection.exists(LOCK))
    assert scheduler(redis_url).acquire_locks() == set()
    kill(worker)
    following = scheduler(redis_url)
    assert following.acquire_locks() == {"jobs"}
    assert connection.get(LOCK) == following.name.encode()


def test_a_scheduler_that_lives_on_keeps_its_lock_until_it_has_ended(
    connection: Redis, redis_url: str, child: Child
) -> None:
    names: list[str] = []
    worker = child(lambda: scheduler(redis_url).acquire_locks())
    wait_until(lambda: connection.exists(LOCK))
    names.append(connection.get(LOCK).decode())  # type: ignore[union-attr]
    process = child(lambda: scheduler(redis_url, names[0]).register_birth())
    wait_until(lambda: connection.exists(f"rq:scheduler:{names[0]}"))
    kill(worker)
    assert scheduler(redis_url).acquire_locks() == set()
    kill(process)
    assert scheduler(redis_url).acquire_locks() == {"jobs"}


@pytest.mark.parametrize(
    "name",
    [
        "f3a9",
        "rqmem:",
        "rqmem:f3a9:x:y",
        "rqmem:f3a9:another boot:1:999999:1",
        f"rqmem:f3a9:{procfs.host_identity()}2:999999:1",
    ],
)
def test_a_lock_of_another_machine_or_of_rqs_own_scheduler_is_left(
    connection: Redis, redis_url: str, name: str
) -> None:
    connection.set(LOCK, name)
    assert scheduler(redis_url).acquire_locks() == set()
    assert connection.get(LOCK) == name.encode()
