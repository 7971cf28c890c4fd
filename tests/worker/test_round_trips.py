"""What a plain job costs in commands and round trips to Redis: counts are exact on any machine, times are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from redis import Redis
from rq import Queue

from tests.conftest import StartWorker

JOBS, OVERHEAD = 60, 20  # so that a heartbeat a second, on a slow machine, is not counted as a job's
MOST_COMMANDS, MOST_ROUND_TRIPS = {0: 40, 64: 20}, {0: 3.0, 64: 1.0}  # by --lease-max


@dataclass(frozen=True)
class Cost:
    """Of one job."""

    commands: float
    round_trips: float
    by_name: dict[str, float]


def cost_of_a_job(connection: Redis, enqueue: Callable[[int], object], work: Callable[[], None]) -> Cost:
    """The difference between many jobs and a few, so that the start and the end of a worker count nothing."""

    def measured(jobs: int) -> tuple[Counter[str], int]:
        enqueue(jobs)
        connection.config_resetstat()
        work()
        stats = connection.info("commandstats")
        counts = Counter({name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()})
        return counts, int(connection.info("stats")["total_reads_processed"])

    few, reads_of_few = measured(OVERHEAD)
    many, reads_of_many = measured(OVERHEAD + JOBS)
    many.subtract(few)
    by_name = {name: count / JOBS for name, count in many.most_common() if count}
    return Cost(many.total() / JOBS, (reads_of_many - reads_of_few) / JOBS, by_name)


@pytest.mark.alone  # each heartbeat while it works adds to what a job costs
@pytest.mark.parametrize(
    ("queues", "lease_max", "path", "arguments"),
    [
        (1, 0, "tests.sample_jobs.add", (1,)),
        (100, 0, "tests.sample_jobs.add", (1,)),
        (1, 64, "tests.sample_jobs.add", (1,)),
        (1, 64, "operator.mul", ("x", 1024)),  # a result of 1 KB
    ],
)
def test_a_job_costs_few_round_trips_however_many_queues_there_are(
    connection: Redis, start_worker: StartWorker, queues: int, lease_max: int, path: str, arguments: tuple[object, ...]
) -> None:
    names = [f"queue-{number}" for number in range(queues)]

    def enqueue(jobs: int) -> None:
        Queue(names[-1], connection=connection).enqueue_many([Queue.prepare_data(path, arguments) for _ in range(jobs)])

    def work() -> None:
        worker = start_worker("--burst", *names, "--lease-max", str(lease_max), RQMEM_JOURNAL="off")
        output = worker.finish()
        assert worker.process.returncode == 0, output

    cost = cost_of_a_job(connection, enqueue, work)
    print(cost)
    assert cost.round_trips < MOST_ROUND_TRIPS[lease_max], cost
    assert cost.commands < MOST_COMMANDS[lease_max] + queues, cost
