"""Redis is restarted, loses its data, or refuses while a lease is under way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from rq import Queue
from rq.job import Job

from rqmem.store import keys, lease
from rqmem.store.lease_commands import Stepped
from rqmem.store.retrying import unavailable, until_redis_answers
from rqmem.testing import wait_until
from tests.conftest import OwnRedis
from tests.lease.driver import Lease, cut, execution, ids, taken
from tests.lease.dump import dump


def enqueue(connection: Redis, *job_ids: str) -> None:
    for job_id in job_ids:
        Queue("low", connection=connection).enqueue("time.time", job_id=job_id)


@pytest.mark.parametrize("done", [True, False])
def test_a_lease_goes_on_after_redis_was_killed(own_redis: OwnRedis, done: bool) -> None:
    connection = own_redis.connection
    enqueue(connection, *"abcd")
    ada = Lease(connection)
    a, b, c = ada.take(3).jobs
    ada.step(begins=a)
    if done:
        ada.send_step(a, begins=b)
        wait_until(lambda: lease.was_committed(connection, "a", execution(a).decode()))
        cut(ada.link)
    own_redis.kill()
    with pytest.raises(RedisConnectionError):
        ada.link.read() if done else ada.step(a, begins=b)
    own_redis.start_again()
    reply = until_redis_answers(lambda: ada.step_again(a, begins=b), "go on")
    assert reply == Stepped("", {b"a": "gone"} if done else {})
    assert lease.was_committed(connection, "a", execution(a).decode())
    assert ada.step(b, begins=c) == Stepped("", {})
    assert ada.step(c) == Stepped("", {})
    assert ids(ada.take(opens=False)) == ["d"]
    assert ada.give_back() == 1
    assert connection.lrange("rq:queue:low", 0, -1) == [b"d"]
    assert connection.hget("rq:worker:ada", "successful_job_count") == b"3"
    ada.link.close()


def test_nothing_is_written_to_a_redis_that_has_lost_the_lease(connection: Redis) -> None:
    enqueue(connection, *"abc")
    ada = Lease(connection)
    a, b, c = ada.take().jobs
    ada.step(begins=a)
    connection.flushall()
    assert ada.step(a, begins=b) == Stepped("gone", {b"a": "gone"})
    assert ada.show(b) == "gone"
    assert ada.show(c, hand_over=True) == "gone"
    assert ada.take(opens=False).why == "token"
    assert ada.give_back(keep="b") == 0
    assert ada.give_back() == 0
    assert lease.take_over(connection, "ada", "token") is None
    assert connection.dbsize() == 0
    ada.link.close()


REFUSALS = {
    "no memory": ("config", "set", "maxmemory", "1"),
    "a replica": ("replicaof", "127.0.0.1", "1"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("what", ["open", "take", "step", "show", "hand over", "give back", "take over"])
def test_a_script_that_redis_refuses_has_done_all_or_nothing(own_redis: OwnRedis, refusal: str, what: str) -> None:
    connection = own_redis.connection
    enqueue(connection, *"abcdef")
    ada, bob = Lease(connection), Lease(connection, worker="bob")
    a, b, _ = ada.take(3).jobs
    ada.step(begins=a)
    act: dict[str, Callable[[], object]] = {
        "open": lambda: bob.take(1),
        "take": lambda: ada.take(1, opens=False),
        "step": lambda: ada.step(a, begins=b),
        "show": lambda: ada.show(a),
        "hand over": lambda: ada.show(a, hand_over=True),
        "give back": lambda: ada.give_back(keep="a"),
        "take over": lambda: lease.take_over(connection, "ada", "token"),
    }
    before = dump(connection, with_ours=True)
    connection.execute_command(*REFUSALS[refusal])
    refused = False
    try:
        act[what]()
    except RedisError as error:
        refused = True
        assert isinstance(error, ResponseError)
        assert unavailable(error) == "refuses", error
    connection.execute_command("replicaof", "no", "one")
    connection.execute_command("config", "set", "maxmemory", "0")
    assert refused or refusal == "no memory"
    if refused:
        assert dump(connection, with_ours=True) == before
        act[what]()
    jobs = [each.decode() for each in connection.lrange("rq:queue:low", 0, -1)]
    took = taken(connection, "ada") + taken(connection, "bob")
    ended = [each.decode() for each in connection.zrange("rq:finished:low", 0, -1)]
    running = [each.decode() for each in connection.hkeys(keys.RUNNING)]
    assert sorted({*jobs, *took, *ended, *running}) == list("abcdef")
    assert len(jobs) + len(took) + len(ended) == 6 - (what in ("hand over", "take over"))
    if what == "step":
        assert Job.fetch("a", connection=connection).get_status() == "finished"
    for each in (ada, bob):
        each.link.close()
