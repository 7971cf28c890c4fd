"""The wait at the fronts of queues ends when it is to, whatever reaches Redis first."""

from __future__ import annotations

import os
from threading import Event

import pytest
from redis import Redis
from rq import Queue

from rqmem.store.lease_commands import Moved
from rqmem.store.queue_fronts import QueueFronts
from tests.refusing_redis import Command, refusing


@pytest.mark.parametrize("came", [False, True])
def test_a_wait_that_reaches_redis_after_the_word_to_end_it_ends_too(
    connection: Redis, redis_url: str, came: bool
) -> None:
    """Over two connections, one may overtake the other. It waited until its time was over, and its worker too."""
    asked, (wake, end) = Event(), os.pipe()
    if came:
        Queue("b", connection=connection).enqueue("time.time", job_id="job")
    else:
        os.write(end, b"1")

    def hold(command: Command) -> None:
        if command[0] == b"BLMOVE" and command[1] == b"rq:queue:a":
            assert asked.wait(60)

    def lose(command: Command) -> bool:
        if command[:2] == [b"CLIENT", b"UNBLOCK"]:
            asked.set()
        return False

    with refusing(redis_url) as proxy, Redis.from_url(proxy.url, socket_timeout=10) as client:
        proxy.hold, proxy.lose = hold, lose
        fronts = QueueFronts(client, ["a", "b"])
        found = fronts.wait(600, wake)
        assert found == ([Moved(1, "job")] if came else [])
        assert asked.is_set()
        fronts.close()
    for each in (wake, end):
        os.close(each)
