"""The scripts of a lease, one by one: what each does, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Queue
from rq.job import Job
from rq.suspension import resume, suspend

from rqmem.store import execution_reader, executions, keys, lease, pausing
from rqmem.store.execution_records import Owner
from rqmem.store.lease_commands import Batch, Moved, Stepped
from rqmem.testing import wait_until
from tests.lease.driver import PROCESS, Lease, cut, execution, ids, taken

Enqueue = Callable[..., Job]


@pytest.fixture
def ada(connection: Redis) -> Iterator[Lease]:
    one = Lease(connection)
    yield one
    one.link.close()


@pytest.fixture
def enqueue(connection: Redis) -> Enqueue:
    def enqueue(job_id: str, name: str = "low", **options: Any) -> Job:
        return Queue(name, connection=connection).enqueue("time.time", job_id=job_id, **options)

    return enqueue


def waiting(connection: Redis, name: str = "low") -> list[str]:
    return [each.decode() for each in connection.lrange(f"rq:queue:{name}", 0, -1)]


def test_jobs_of_the_first_queue_come_first_and_the_lease_is_known(
    ada: Lease, connection: Redis, enqueue: Enqueue
) -> None:
    for job_id, name in (("a", "low"), ("b", "high"), ("c", "low"), ("d", "low")):
        enqueue(job_id, name)
    batch = ada.take(3)
    assert ids(batch) == ["b", "a", "c"]
    assert [each.queue for each in batch.jobs] == [0, 1, 1]
    assert batch.why == ""
    assert waiting(connection) == ["d"]
    assert taken(connection, "ada") == ["b", "a", "c"]
    assert connection.lrange("rq:queue:low:intermediate", 0, -1) == [b"a", b"c"]
    assert lease.leases(connection) == {"ada": lease.LeaseRecord("token", "", PROCESS, ("high", "low"))}
    assert ada.take(opens=False).why == "empty"


@pytest.mark.parametrize(
    ("needs", "options"),
    [
        ("success_callback_name", {"on_success": "time.time"}),
        ("repeats_left", {"repeat": 2}),
        ("result_ttl", {"result_ttl": -5}),
        ("dependents", {}),
    ],
)
def test_what_needs_more_than_a_lease_stays_in_its_queue(
    ada: Lease, connection: Redis, enqueue: Enqueue, needs: str, options: dict[str, Any]
) -> None:
    from rq import Callback, Repeat

    if "on_success" in options:
        options = {"on_success": Callback("time.time")}
    elif "repeat" in options:
        options = {"repeat": Repeat(times=2)}
    enqueue("a")
    special = enqueue("b", **options)
    if needs == "dependents":
        enqueue("later", "high", depends_on=special)
    enqueue("c")
    batch = ada.take()
    assert (ids(batch), batch.why, batch.needs) == (["a"], "needs", needs)
    assert waiting(connection) == ["b", "c"]
    batch = ada.take(opens=False)
    assert (batch.jobs, batch.needs) == ([], needs)


def test_an_id_that_stands_twice_in_its_queue_is_taken_once(ada: Lease, connection: Redis, enqueue: Enqueue) -> None:
    enqueue("a")
    connection.rpush("rq:queue:low", "a")
    batch = ada.take()
    assert (ids(batch), batch.why, batch.needs) == (["a"], "needs", "status")
    assert waiting(connection) == ["a"]


def test_an_id_that_is_taken_is_not_taken_again(ada: Lease, connection: Redis, enqueue: Enqueue) -> None:
    enqueue("a")
    connection.rpush("rq:queue:low", "a")
    assert ids(ada.take(1)) == ["a"]
    batch = ada.take(opens=False)
    assert (ids(batch), batch.why, batch.needs) == ([], "needs", "status")
    assert waiting(connection) == ["a"]


def test_ids_without_a_job_are_dropped(ada: Lease, connection: Redis, enqueue: Enqueue) -> None:
    connection.rpush("rq:queue:low", *(f"gone-{number}" for number in range(1500)))
    enqueue("a")
    assert ada.take(1) == Batch([], "", "")
    assert 0 < len(waiting(connection)) < 501
    assert not connection.exists(keys.lease("ada"), keys.LEASES)
    assert ids(ada.take(1)) == ["a"]
    assert waiting(connection) == []


def test_large_arguments_make_small_batches(ada: Lease, connection: Redis, enqueue: Enqueue) -> None:
    for number in range(5):
        job = enqueue(f"large-{number}")
        connection.hset(job.key, "data", b"x" + bytes(600_000))
    assert ids(ada.take()) == ["large-0", "large-1"]
    assert len(waiting(connection)) == 3


def test_a_suspended_worker_takes_nothing(ada: Lease, connection: Redis, enqueue: Enqueue) -> None:
    enqueue("a")
    suspend(connection)
    assert ada.take() == Batch([], "suspended", "")
    resume(connection)
    assert ids(ada.take()) == ["a"]


def test_a_queue_that_is_paused_is_passed_over(ada: Lease, connection: Redis, enqueue: Enqueue) -> None:
    enqueue("a", "high")
    enqueue("b")
    pausing.pause(connection, "high")
    assert ids(ada.take()) == ["b"]
    pausing.resume(connection, "high")
    assert ids(ada.take(opens=False)) == ["a"]


def test_a_job_that_was_cancelled_while_it_came_to_a_waiting_horse_is_in_no_queue(
    ada: Lease, connection: Redis, enqueue: Enqueue
) -> None:
    """A worker of RQ would run it. RQ itself takes it out of its queue only."""
    gone = enqueue("gone")
    enqueue("a")
    connection.lmove("rq:queue:low", "rq:queue:low:intermediate")
    gone.cancel()
    assert ids(ada.take(moved=[Moved(1, "gone")])) == ["a"]
    assert (waiting(connection), connection.lrange("rq:queue:low:intermediate", 0, -1)) == ([], [b"a"])


def test_what_two_workers_put_back_comes_in_the_order_in_which_it_was_enqueued(
    ada: Lease, connection: Redis, enqueue: Enqueue
) -> None:
    for job_id in "abcdef":
        enqueue(job_id)
    bob = Lease(connection, worker="bob")
    assert ids(ada.take(2)) + ids(bob.take(2)) == list("abcd")
    ada.give_back()
    bob.give_back()
    assert waiting(connection) == list("abcdef")
    assert ids(ada.take(3)) == list("abc")
    assert ids(bob.take(1)) == ["d"]
    bob.give_back()
    ada.give_back()
    assert waiting(connection) == list("abcdef")
    bob.link.close()


def test_what_is_put_back_comes_after_what_was_before_it_also_behind_one_that_went_on(
    ada: Lease, connection: Redis, enqueue: Enqueue
) -> None:
    for job_id in "abcd":
        enqueue(job_id)
    bob = Lease(connection, worker="bob")
    assert ids(ada.take(2)) + ids(bob.take(1)) == list("abc")
    ada.give_back()
    connection.zrem(keys.returned("low"), "a")  # as a job that began, whose worker died, and which goes on
    assert ids(ada.take(3)) == list("abd")
    ada.give_back()
    bob.give_back()
    assert waiting(connection) == list("abcd")
    bob.link.close()


def test_what_is_put_back_comes_after_what_was_before_it_and_after_what_came_to_the_front(
    ada: Lease, connection: Redis, enqueue: Enqueue
) -> None:
    for job_id in "abcdef":
        enqueue(job_id)
    bob = Lease(connection, worker="bob")
    assert ids(ada.take(2)) + ids(bob.take(2)) == list("abcd")
    ada.give_back()
    enqueue("urgent", at_front=True)
    bob.give_back()
    assert waiting(connection) == ["urgent", *"abcdef"]
    bob.link.close()


def test_what_was_put_back_and_has_been_requeued_since_has_no_place_of_old(
    ada: Lease, connection: Redis, enqueue: Enqueue
) -> None:
    first = enqueue("a")
    for job_id in "bcdef":
        enqueue(job_id)
    assert ids(ada.take(1)) == ["a"]
    ada.give_back()
    connection.lpop("rq:queue:low")
    assert ids(ada.take(2)) == ["b", "c"]
    Queue("low", connection=connection).enqueue_job(first)
    ada.give_back()
    assert waiting(connection) == [*"bcdef", "a"]


def test_only_the_lease_that_was_opened_takes(ada: Lease, connection: Redis, enqueue: Enqueue) -> None:
    enqueue("a")
    enqueue("b")
    assert ada.take(1, opens=False).why == "token"  # as after it was taken over
    assert ids(ada.take(1)) == ["a"]
    other = Lease(connection, "another")
    assert other.take(1).why == "token"
    assert other.give_back() is None
    assert lease.take_over(connection, "ada", "another") is None
    other.link.close()
    assert waiting(connection) == ["b"]
    assert taken(connection, "ada") == ["a"]


def test_a_lease_that_was_recalled_keeps_the_running_job_and_takes_no_more(
    ada: Lease, connection: Redis, enqueue: Enqueue
) -> None:
    for job_id in "abcde":
        enqueue(job_id)
    jobs = ada.take(4).jobs
    assert ada.step(begins=jobs[0]) == Stepped("", {})
    assert ada.step(jobs[0], begins=jobs[1]) == Stepped("", {})
    assert ada.give_back(keep="b") == 2
    assert ada.give_back(keep="b") == 0
    assert waiting(connection) == ["c", "d", "e"]
    assert ada.take(opens=False).why == "recalled"
    assert ada.step(begins=jobs[2]).next == "gone"
    assert ada.step(jobs[1], jobs[2]).refused == {b"c": "gone"}
    assert ada.give_back() == 0
    assert list(connection.scan_iter("rqmem:[a-qs-z]*")) == []
    assert connection.lrange("rq:queue:low:intermediate", 0, -1) == []


def test_a_step_that_is_repeated_changes_nothing(ada: Lease, connection: Redis, enqueue: Enqueue) -> None:
    enqueue("a")
    enqueue("b")
    a, b = ada.take().jobs
    assert ada.step(a, begins=b) == Stepped("", {})
    assert ada.step(a, begins=b) == Stepped("", {b"a": "gone"})
    assert lease.was_committed(connection, "a", execution(a).decode())
    assert not lease.was_committed(connection, "b", execution(b).decode())
    assert connection.xlen("rq:results:a") == 1
    assert connection.hgetall("rq:worker:ada") == {b"successful_job_count": b"1", b"total_working_time": b"0.5"}


def test_a_cancelled_job_is_not_begun_and_one_that_was_begun_stays_cancelled(
    ada: Lease, connection: Redis, enqueue: Enqueue
) -> None:
    enqueue("a")
    cancelled = enqueue("b")
    a, b = ada.take().jobs
    cancelled.cancel()
    assert ada.step(a, begins=b).next == "status"
    assert ada.step(b).refused == {b"b": "status"}
    assert cancelled.get_status() == "canceled"
    assert taken(connection, "ada") == []
    assert connection.lrange("rq:queue:low:intermediate", 0, -1) == []


def test_a_job_that_was_shown_and_then_cancelled_is_left_to_rq(ada: Lease, connection: Redis, enqueue: Enqueue) -> None:
    cancelled = enqueue("a")
    (a,) = ada.take().jobs
    ada.step(begins=a)
    assert ada.show(a) == "shown"
    cancelled.cancel()
    assert ada.step(a).refused == {b"a": "plain"}
    assert taken(connection, "ada") == ["a"]
    assert ada.show(a, hand_over=True) == "shown"
    assert taken(connection, "ada") == []
    assert execution_reader.owners(connection)["a"].execution == execution(a).decode()


@pytest.mark.parametrize("shown", [False, True])
def test_nothing_is_written_about_a_job_that_was_deleted(
    ada: Lease, connection: Redis, enqueue: Enqueue, shown: bool
) -> None:
    deleted = enqueue("a")
    (a,) = ada.take().jobs
    ada.step(begins=a)
    if shown:
        ada.show(a)
    deleted.delete()
    connection.hset(deleted.key, "last_heartbeat", "now")  # as RQ's heartbeat does
    assert ada.step(a).refused == {b"a": "deleted"}
    ada.give_back()
    assert list(connection.scan_iter("rqmem:[a-qs-z]*")) == []
    assert set(connection.scan_iter("*")) == {b"rq:queues"}


def test_a_new_job_with_the_same_id_gets_no_result_of_the_old_one(
    ada: Lease, connection: Redis, enqueue: Enqueue
) -> None:
    old = enqueue("a")
    (a,) = ada.take().jobs
    ada.step(begins=a)
    old.delete()
    new = enqueue("a")
    assert ada.show(a) == "ended"
    assert ada.step(a).refused == {b"a": "deleted"}
    assert new.get_status() == "queued"
    assert waiting(connection) == ["a"]
    ada.give_back()
    assert waiting(connection) == ["a"]


def test_a_dependent_that_came_late_leaves_the_commit_to_rq(ada: Lease, connection: Redis, enqueue: Enqueue) -> None:
    parent = enqueue("a")
    enqueue("b")
    a, b = ada.take().jobs
    ada.step(begins=a)
    enqueue("child", "high", depends_on=parent)
    assert ada.step(a, begins=b) == Stepped("", {b"a": "plain"})
    assert taken(connection, "ada") == ["a", "b"]
    assert parent.get_status() == "queued"


def test_a_shown_job_looks_to_rq_as_if_it_ran_and_its_commit_leaves_no_trace(
    ada: Lease, connection: Redis, enqueue: Enqueue
) -> None:
    job = enqueue("a", ttl=5000)
    (a,) = ada.take().jobs
    ada.step(begins=a)
    assert ada.show(a) == "shown"
    assert ada.show(a) == "shown"
    assert job.get_status() == "started"
    assert connection.ttl(job.key) == -1
    registry = Queue("low", connection=connection).started_job_registry
    assert registry.get_job_and_execution_ids() == [("a", execution(a).decode())]
    assert [each.id for each in job.get_executions()] == [execution(a).decode()]
    assert list(execution_reader.owners(connection)) == ["a"]
    assert ada.step(a, ttl=-1) == Stepped("", {})
    ada.give_back()
    assert {each.decode() for each in connection.scan_iter("*")} == {
        "rq:finished:low", "rq:job:a", "rq:queues", "rq:results:a", "rq:worker:ada",
    }  # fmt: skip
    assert ada.show(a) == "gone"


def test_two_jobs_that_were_both_shown_are_committed_together(ada: Lease, connection: Redis, enqueue: Enqueue) -> None:
    for job_id in "abc":
        enqueue(job_id)
    a, b, c = ada.take().jobs
    ada.step(begins=a)
    assert [ada.show(each) for each in (a, b, c)] == ["shown"] * 3
    assert ada.step(a, c) == Stepped("", {})
    assert execution_reader.owners(connection).keys() == {"b"}
    assert ada.show(b, hand_over=True) == "shown"
    assert connection.hget(keys.lease("ada"), "shown") is None
    assert [each for each in connection.scan_iter("rq:execution*") if not each.endswith(b":b")] == [
        b"rq:execution:b:execution-of-b"
    ]


def test_one_of_two_takes_over_and_the_job_that_had_begun_is_a_run_of_the_dead(
    ada: Lease, connection: Redis, enqueue: Enqueue
) -> None:
    for job_id in "abcd":
        enqueue(job_id)
    jobs = ada.take().jobs
    ada.step(jobs[0], begins=jobs[1])
    token = lease.leases(connection)["ada"].token
    assert lease.take_over(connection, "ada", token) == lease.TakenOver(2, "b")
    assert lease.take_over(connection, "ada", token) is None
    assert waiting(connection) == ["c", "d"]
    assert Job.fetch("b", connection=connection).get_status() == "started"
    owner = execution_reader.owners(connection)["b"]
    assert owner == Owner(execution(jobs[1]).decode(), "ada", "low", "host", 1, 2)
    # What the dead worker's horse still sends is refused.
    assert ada.step(jobs[1], jobs[2], begins=jobs[3]) == Stepped("gone", {b"b": "gone", b"c": "gone"})
    assert ada.take(opens=False).why == "token"


def test_a_commit_by_the_worker_leaves_noted_which_job_has_begun(
    ada: Lease, connection: Redis, enqueue: Enqueue
) -> None:
    for job_id in "abc":
        enqueue(job_id)
    a, b, _ = ada.take().jobs
    ada.step(begins=b)
    assert ada.step(a, by_worker=True) == Stepped("", {})
    assert lease.take_over(connection, "ada", "token") == lease.TakenOver(1, "b")
    assert waiting(connection) == ["c"]


def test_the_jobs_of_a_dead_worker_that_had_begun_none_all_go_back(
    ada: Lease, connection: Redis, enqueue: Enqueue
) -> None:
    for job_id in "abc":
        enqueue(job_id)
    a, *_ = ada.take().jobs
    ada.step(begins=a)
    ada.step(a)
    assert lease.take_over(connection, "ada", "token") == lease.TakenOver(2, "")
    assert waiting(connection) == ["b", "c"]
    assert not connection.exists(keys.RUNNING, keys.taken("ada"), keys.lease("ada"), keys.LEASES)


def test_what_looks_abandoned_is_not_put_back_from_a_lease(ada: Lease, connection: Redis, enqueue: Enqueue) -> None:
    enqueue("a")
    (a,) = ada.take().jobs
    low = Queue("low", connection=connection)
    assert not executions.put_back(low, "a")
    assert ada.step(a).refused == {}
    enqueue("b")
    connection.lmove("rq:queue:low", "rq:queue:low:intermediate")  # as a stock worker that died then
    assert executions.put_back(low, "b")
    assert waiting(connection) == ["b"]


def test_a_job_that_somebody_else_put_back_is_not_committed(ada: Lease, connection: Redis, enqueue: Enqueue) -> None:
    job = enqueue("a")
    (a,) = ada.take().jobs
    ada.step(begins=a)
    connection.lrem("rq:queue:low:intermediate", 1, "a")  # by an rqmem that knows no leases
    connection.lpush("rq:queue:low", "a")
    assert ada.show(a, hand_over=True) == "ended"
    assert ada.step(a).refused == {b"a": "gone"}
    assert job.get_status() == "queued"
    ada.give_back()
    assert waiting(connection) == ["a"]


def test_given_back_jobs_keep_their_order_whatever_became_of_some(
    ada: Lease, connection: Redis, enqueue: Enqueue
) -> None:
    jobs = {job_id: enqueue(job_id, "high" if job_id in "bd" else "low") for job_id in "abcdefg"}
    ada.take(6)
    jobs["c"].cancel()
    jobs["b"].delete()
    enqueue("z", at_front=True)
    assert ada.give_back() == 4
    assert waiting(connection, "high") == ["d"]
    assert waiting(connection) == ["a", "e", "f", "z", "g"]
    for name in ("high", "low"):
        assert connection.lrange(f"rq:queue:{name}:intermediate", 0, -1) == []


def test_forgotten_scripts_are_loaded_and_what_was_refused_is_repeated_in_order(
    ada: Lease, connection: Redis, enqueue: Enqueue
) -> None:
    for job_id in "abcd":
        enqueue(job_id)
    a, b = ada.take(2).jobs
    ada.step(begins=a)
    connection.script_flush()
    ada.send_step(a, begins=b)
    ada.send_step(b)
    ada.link.send_take(["high", "low"], 10)
    assert ada.link.owed == 3
    assert ada.link.read() == Stepped("", {})
    assert ada.link.read() == Stepped("", {})
    assert ids(ada.link.read_batch()) == ["c", "d"]
    assert ada.link.owed == 0


def test_after_a_lost_connection_steps_are_repeated_over_a_new_one_and_takes_are_not(
    ada: Lease, connection: Redis, enqueue: Enqueue
) -> None:
    for job_id in "abcd":
        enqueue(job_id)
    a, b = ada.take(2).jobs
    ada.step(begins=a)
    ada.send_step(a, begins=b)
    ada.link.send_take(["high", "low"], 10)
    wait_until(lambda: waiting(connection) == [])  # Redis has done both
    cut(ada.link)
    with pytest.raises(RedisConnectionError):
        ada.link.read()
    with pytest.raises(RedisConnectionError):
        ada.step(b)
    assert ada.step_again(a, b) == Stepped("", {b"a": "gone"})
    for each in (a, b):
        assert lease.was_committed(connection, each.id.decode(), execution(each).decode())
    ada.give_back()
    assert not connection.exists(keys.taken("ada"))
    assert waiting(connection) == ["c", "d"]
