"""Batches of one job each, as with ``--lease-max 1``: the next one is asked for while the one in hand runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis
from rq import Queue

from rqmem.store import keys
from tests.lease.driver import Lease, ids

IDS = ["a", "b", "c", "d", "e"]


@pytest.fixture
def ada(connection: Redis) -> Iterator[Lease]:
    queue = Queue("low", connection=connection)
    for each in IDS:
        queue.enqueue("time.time", job_id=each)
    one = Lease(connection)
    yield one
    one.link.close()


def test_the_same_take_is_sent_with_other_queues_and_sizes(ada: Lease) -> None:
    ada.take(1)
    assert ids(ada.take(1, opens=False)) == ["b"]
    assert ada.take(1, queues=["high"], opens=False).why == "empty"
    assert ids(ada.take(2, opens=False)) == ["c", "d"]


def test_the_times_of_the_last_three_batches_are_kept_and_all_goes_back_in_order(ada: Lease, connection: Redis) -> None:
    for _ in IDS:
        ada.take(1)
    lines = str(connection.hget(keys.lease("ada"), "batches"), "ascii").split("\n")
    assert [line.split()[0] for line in lines] == IDS[-3:]
    times = [int(line.split()[1]) for line in lines]
    assert times == sorted(times)
    assert ada.give_back() == len(IDS)
    assert [each.decode() for each in connection.lrange("rq:queue:low", 0, -1)] == IDS
