"""Batches of one job each, as with ``--lease-max 1``: the next one is asked for while the one in hand runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from rq import Queue

from rqmem.store import keys
from tests.lease.driver import QUEUES, Lease, cut, ids, taken

IDS = ["a", "b", "c", "d", "e"]


@pytest.fixture
def ada(connection: Redis) -> Iterator[Lease]:
    queue = Queue("low", connection=connection)
    for each in IDS:
        queue.enqueue("time.time", job_id=each)
    one = Lease(connection)
    yield one
    one.link.close()


@pytest.mark.parametrize("sent_by", [lambda ada: ada.send_step(), lambda ada: None], ids=["the next step", "a read"])
def test_a_take_may_wait_for_what_is_sent_or_read_next(
    ada: Lease, connection: Redis, sent_by: Callable[[Lease], None]
) -> None:
    ada.take(1)
    ada.link.send_take(QUEUES, 1, with_next=True)
    assert taken(connection, "ada") == ["a"]
    sent_by(ada)
    assert ids(ada.link.read_batch()) == ["b"]
    assert taken(connection, "ada") == ["a", "b"]
    while ada.link.owed:
        assert ada.link.read_step().next == ""


def test_a_take_that_waits_is_gone_with_its_connection(ada: Lease, connection: Redis) -> None:
    ada.take(1)
    ada.link.send_take(QUEUES, 1, with_next=True)
    cut(ada.link)
    ada.link.close(broken=True)
    ada.link = Lease(connection).link
    ada.step()
    assert taken(connection, "ada") == ["a"]


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
