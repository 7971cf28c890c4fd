"""What a lease leaves in Redis is what a stock RQ worker leaves for the same jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis import Redis

from rqmem.store import keys
from tests import forked
from tests.conftest import StartWorker
from tests.lease import cases
from tests.lease.dump import differences, dump
from tests.lease.jobs import ORDER
from tests.lease.stand_in import StandIn

QUEUES = ("jobs", "other")
OURS = ("rq:worker:w rqmem_", "rq:results:failures-4 0:", "rq:results:failures-5 0:")
"""Our worker says in its record which process it is and how it restarts, and says more of an import that failed."""


def stock(url: str, *options: str) -> None:
    """A stock ``rq worker`` until its queues are empty."""
    command = ("worker", "--burst", "-u", url, "-n", "w", "--quiet", *options, *QUEUES)
    assert forked.run_module("rq.cli", *command).returncode == 0


@pytest.fixture(scope="module")
def expected(redis_url: str) -> Iterator[dict[str, Any]]:
    """What a stock worker leaves of all cases."""
    with redis.Redis.from_url(redis_url) as connection:
        connection.flushall()
        cases.enqueue_all(connection)
        stock(redis_url)
        yield dump(connection)


@pytest.mark.parametrize("lease_max", [0, 1, 64])
def test_our_worker_leaves_what_a_stock_worker_leaves(
    expected: dict[str, Any], connection: Redis, start_worker: StartWorker, lease_max: int
) -> None:
    cases.enqueue_all(connection)
    worker = start_worker(*QUEUES, "--burst", "--name", "w", "--lease-max", str(lease_max))
    log = worker.finish()
    assert worker.process.returncode == 0, log
    found = [each for each in differences(expected, dump(connection)) if not each.startswith(OURS)]
    assert "\n".join(found) == "", log
    owned = {keys.RUNNING, *connection.scan_iter("rqmem:taken:*"), *connection.scan_iter("rqmem:lease*")}
    assert not connection.exists(*owned)


@pytest.mark.parametrize(("k", "batch"), [(1, 1), (4, 1), (64, 8)])
def test_a_lease_leaves_what_a_stock_worker_leaves(
    expected: dict[str, Any], connection: Redis, k: int, batch: int
) -> None:
    cases.enqueue_all(connection)
    StandIn(connection, QUEUES, k=k, batch=batch).work()
    assert "\n".join(differences(expected, dump(connection))) == ""
    assert not list(connection.scan_iter("rqmem:[a-qs-z]*"))
    assert len(connection.lrange(ORDER, 0, -1)) > 50
