"""``@memory_aware`` functions: with a worker, with a stock one, and called directly."""

from __future__ import annotations

import logging

import pytest
from redis import Redis
from rq import Queue, SimpleWorker
from rq.job import JobStatus

from rqmem import MemoryAwareJob, current_memory, memory_aware
from rqmem.errors import ConfigError, MemoryLimitExceeded, RqmemError
from rqmem.store import execution_reader
from tests import sample_jobs
from tests.conftest import WorkOff

pytestmark = pytest.mark.alone  # they measure the process that they run in


def test_under_a_memory_worker_its_own_ceiling_holds(connection: Redis, work_off: WorkOff) -> None:
    queue = Queue("jobs", connection=connection)
    fits, breaches = queue.enqueue(sample_jobs.aware, 30), queue.enqueue(sample_jobs.aware, 150)
    log = work_off("jobs", "--memory", "512")
    assert 30 < fits.return_value() < 100
    assert breaches.get_status() == JobStatus.FAILED
    [breach] = execution_reader.breaches(connection, breaches.id)
    assert (breach.job, breach.limit_mb) == ("tests.sample_jobs.aware", 100)
    assert "tests.sample_jobs.aware" in log
    assert "at loaded" in log
    assert "ended ok" in log


def test_under_a_stock_worker_checkpoints_protect_it(connection: Redis) -> None:
    queue = Queue("jobs", connection=connection)
    job = queue.enqueue(sample_jobs.aware, 150)
    SimpleWorker([queue], connection=connection).work(burst=True)
    assert "by checkpoint" in (job.latest_result().exc_string or "")


def test_called_directly_it_is_metered(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rqmem")

    @memory_aware()
    def work(number: int) -> int:
        assert current_memory().check_memory_usage("here") > 0
        return number + 1

    assert work(1) == 2
    assert work.__name__ == "work"
    assert "at here" in caplog.text
    assert "ended ok" in caplog.text


def test_the_ceiling_can_be_changed_while_it_runs() -> None:
    @memory_aware()
    def work() -> None:
        current_memory().set_memory_limit(1)
        current_memory().check_memory_usage("too much")

    with pytest.raises(MemoryLimitExceeded, match="of 1 MB at 'too much'"):
        work()


def test_coroutines_are_run_to_their_end() -> None:
    @memory_aware()
    async def work() -> float:
        return current_memory().check_memory_usage("in a coroutine")

    assert work() > 0  # type: ignore[operator]


def test_code_called_by_a_job_class_finds_its_memory_too() -> None:
    class Job(MemoryAwareJob):
        def handle(self) -> float:
            return current_memory().check_memory_usage("deep below")

    assert Job.run() > 0


def test_outside_a_job_there_is_none() -> None:
    with pytest.raises(RqmemError, match=r"current_memory\(\) is for code that"):
        current_memory()


@pytest.mark.parametrize("limit", [0, -1, "256", True])
def test_a_ceiling_that_cannot_be(limit: object) -> None:
    with pytest.raises(ConfigError, match=r"memory_limit_mb of .*work"):

        @memory_aware(memory_limit_mb=limit)  # type: ignore[arg-type]
        def work() -> None: ...
