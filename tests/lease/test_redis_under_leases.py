"""A Redis that fails while a worker's horse runs a lease: each job runs once, in its order, and ends well."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from rq.job import JobStatus

from rqmem.testing import wait_until
from tests.conftest import OwnRedis, StartWorker
from tests.lease_run_jobs import note
from tests.refusing_redis import RefusingProxy, refusing, writes
from tests.worker.test_lease import leased, nothing_is_left

JOBS = 600
Trouble = Callable[[OwnRedis, RefusingProxy, Callable[[int], None]], None]


def replies_are_lost(server: OwnRedis, proxy: RefusingProxy, ran: Callable[[int], None]) -> None:
    numbers = count(1)
    proxy.lose = lambda command: command[0] == b"EVALSHA" and next(numbers) % 7 == 0


def connections_are_cut(server: OwnRedis, proxy: RefusingProxy, ran: Callable[[int], None]) -> None:
    for jobs in range(50, JOBS, 100):
        ran(jobs)
        proxy.cut()


def writes_are_refused(server: OwnRedis, proxy: RefusingProxy, ran: Callable[[int], None]) -> None:
    for jobs, line in ((50, "READONLY You can't write against a read only replica."), (200, "MISCONF no disk")):
        ran(jobs)
        before = proxy.refused
        proxy.refuse = writes(line)
        wait_until(lambda: proxy.refused > before + 2)  # noqa: B023
        proxy.refuse = None


def redis_is_killed(server: OwnRedis, proxy: RefusingProxy, ran: Callable[[int], None]) -> None:
    for jobs in (50, 200, 350):
        ran(jobs)
        server.kill()
        server.start_again()


@pytest.mark.parametrize("trouble", [replies_are_lost, connections_are_cut, writes_are_refused, redis_is_killed])
def test_each_job_runs_once_and_in_its_order(
    request: pytest.FixtureRequest, own_redis: OwnRedis, start_worker: StartWorker, tmp_path: Path, trouble: Trouble
) -> None:
    if request.config.getoption("--isolation") == "fork":
        pytest.skip("a horse for one job takes no lease")
    notes = tmp_path / "notes"
    notes.touch()
    queue = own_redis.queue
    jobs = [queue.enqueue(note, str(number)) for number in range(JOBS)]

    def ran(count: int) -> None:
        wait_until(lambda: len(notes.read_text().splitlines()) >= count, 90)

    with refusing(own_redis.server.url) as proxy:
        own = {"RQMEM_LEASE_MAX": "64", "RQMEM_HEARTBEAT": "0.5", "TESTS_NOTES": str(notes)}
        worker = start_worker("jobs", "--burst", RQMEM_REDIS_URL=proxy.url, **own)
        trouble(own_redis, proxy, ran)
        log = worker.finish()
    queue = own_redis.queue  # over a new connection
    ended = {job.id: queue.fetch_job(job.id).get_status() for job in jobs}  # type: ignore[union-attr]
    assert set(ended.values()) == {JobStatus.FINISHED}, log
    assert notes.read_text().splitlines() == [str(number) for number in range(JOBS)], log
    assert leased(log) > 0, log
    nothing_is_left(queue)
