"""``enqueue_many``: what it writes is what RQ writes, a batch at a time, all or none."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from redis import Redis
from rq import Queue, Retry
from rq.job import Dependency, Job, JobStatus
from rq.rate_limit import RateLimit

import rqmem
from rqmem.errors import ConfigError, RedisUnavailable
from rqmem.job import call_batches
from rqmem.job.enqueue import Enqueueable
from rqmem.testing import wait_until
from tests.conftest import WorkOff
from tests.lease import jobs
from tests.lease.cases import CASES
from tests.lease.dump import differences, dump
from tests.refusing_redis import RefusingProxy
from tests.sample_jobs import Plain, add

RATHER_RQS_OWN = ("groups", "odd_data", "dependents")  # these write to Redis themselves


class InOneCall:
    """Takes the place of a queue in a case, and enqueues all that the case enqueues in one call."""

    def __init__(self, connection: Redis) -> None:
        self.queue = Queue("jobs", connection=connection)
        self.name = self.queue.name
        self.calls: list[tuple[Any, dict[str, Any]]] = []
        self.at: timedelta | None = None

    def enqueue(self, function: Any, *args: Any, **options: Any) -> str:
        if function is jobs.returns and len(args) > 2:  # else it is refused, since the function takes less
            function = "tests.lease.jobs.returns"
        names = {name: options.pop(name) for name in list(options) if name not in call_options()}
        self.calls.append((function, {**options, "args": args, "kwargs": names}))
        return str(options["job_id"])

    def enqueue_in(self, delay: timedelta, function: Any, *args: Any, **options: Any) -> None:
        self.at = delay
        self.enqueue(function, *args, **options)

    def send(self) -> int:
        return rqmem.enqueue_many(self.queue, self.calls, at=self.at)


def call_options() -> frozenset[str]:
    from rqmem.rq_seams import ENQUEUE_OPTIONS

    return ENQUEUE_OPTIONS


@pytest.mark.parametrize("name", [name for name in CASES if name not in RATHER_RQS_OWN])
def test_it_writes_the_keys_and_fields_that_rq_writes(connection: Redis, name: str) -> None:
    CASES[name](Queue("jobs", connection=connection), connection)
    theirs = dump(connection)
    connection.flushall()
    together = InOneCall(connection)
    CASES[name](together, connection)  # type: ignore[arg-type]
    assert together.send() == len(together.calls) > 0
    assert differences(theirs, dump(connection)) == []


def test_prepared_data_become_what_rqs_enqueue_many_makes_of_them(connection: Redis) -> None:
    def datas() -> list[Any]:
        return [
            Queue.prepare_data(add, (1,), {"b": 2}, job_id="one", timeout=77, meta={"a": 1}, retry=Retry(max=2)),
            Queue.prepare_data("tests.sample_jobs.add", (3,), job_id="two", ttl=600, result_ttl=5, description="adds"),
            Queue.prepare_data(add, (4,), job_id="three", at_front=True, failure_ttl=9),
            Queue.prepare_data(add, (4,), job_id="four", depends_on="one"),
            Queue.prepare_data(add, (5,), job_id="five", depends_on=Dependency("nobody", allow_failure=True)),
            Queue.prepare_data(add, (5,), job_id="seven", depends_on=Dependency(["one"], enqueue_at_front=True)),
            Queue.prepare_data(add, (6,), job_id="six", depends_on=["three", "two"], ttl=700),
        ]

    queue = Queue("jobs", connection=connection)
    queue.enqueue_many(datas())
    theirs = dump(connection)
    # RQ's enqueue_many also notes a dependency that is met; its enqueue does not.
    assert [theirs.pop(key) for key in ("rq:job:nobody:dependents", "rq:job::five:dependencies")]
    connection.flushall()
    assert rqmem.enqueue_many(queue, datas()) == 7
    assert differences(theirs, dump(connection)) == []


def test_jobs_of_a_class_are_those_of_single_enqueues(connection: Redis) -> None:
    calls = [
        {"number": 3, "job_id": "a"},
        {"number": 4, "job_id": "b", "at_front": True, "meta": {"k": 1}},
        {"number": 5, "job_id": "c"},
    ]
    for call in calls:
        Plain.enqueue("jobs", connection=connection, job_timeout=50, **call)
    theirs = dump(connection)
    connection.flushall()
    assert Plain.enqueue_many(iter(calls), "jobs", connection=connection, job_timeout=50) == 3
    assert differences(theirs, dump(connection)) == []
    by_both = [(Plain, calls[0]), (add, (1,)), (add, {"a": 1, "b": 5, "job_id": "sum"})]
    assert rqmem.enqueue_many("jobs", by_both, connection=connection) == 3
    assert Job.fetch("sum", connection).kwargs == {"a": 1, "b": 5}


def test_every_option_of_enqueue_is_taken(connection: Redis) -> None:
    assert {name for name in call_options() if name not in ("pipeline", "args", "kwargs")} <= {
        *("job_timeout", "description", "result_ttl", "ttl", "failure_ttl", "depends_on", "job_id", "at_front", "meta"),
        *("retry", "repeat", "on_success", "on_failure", "on_stopped", "rate_limit", "webhooks", "unique"),
    }, "a new option of RQ: have a case of tests.lease.cases use it"


def test_many_calls_need_few_commands(connection: Redis) -> None:
    connection.config_resetstat()
    assert rqmem.enqueue_many("jobs", ((add, (n,)) for n in range(2100)), connection=connection) == 2100
    commands = {name[8:]: each["calls"] for name, each in connection.info("commandstats").items()}
    assert commands["hset"] == 2100
    assert commands["rpush"] == commands["exec"] == 5  # batches of 500
    assert sum(commands.values()) < 2100 + 60
    ids = Queue("jobs", connection=connection).job_ids
    assert len(set(ids)) == 2100
    first, last = Job.fetch_many([ids[0], ids[-1]], connection)
    assert first.args == (0,)
    assert last.args == (2099,)


def test_a_worker_runs_them(connection: Redis, work_off: WorkOff) -> None:
    rqmem.enqueue_many("default", ((add, {"a": n, "job_id": f"sum-{n}"}) for n in range(20)), connection=connection)
    work_off("default")
    done = Job.fetch_many([f"sum-{n}" for n in range(20)], connection)
    assert [job.return_value() for job in done] == [n + 1 for n in range(20)]


def test_jobs_may_depend_on_others_of_the_same_call(connection: Redis, work_off: WorkOff) -> None:
    calls = [(add, {"a": 1, "job_id": "late", "depends_on": ["first", "second"]})]
    calls += [(add, {"a": n, "job_id": name}) for n, name in enumerate(("first", "second"))]
    rqmem.enqueue_many("default", calls, connection=connection)
    assert Queue("default", connection=connection).job_ids == ["first", "second"]
    work_off("default")
    assert Job.fetch("late", connection).get_status() == JobStatus.FINISHED


def test_a_dependency_that_ends_while_the_batch_is_made_is_seen(
    connection: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue("jobs", connection=connection)
    parent = queue.enqueue(add, 1, job_id="parent")
    from rqmem.store import new_jobs

    looked, seen = new_jobs.answers, []

    def ends_now(*args: Any) -> Any:
        found = looked(*args)
        if args[-1] == "status":
            if not seen:
                parent.set_status(JobStatus.FINISHED)
            seen.append(dict(found))
        return found

    monkeypatch.setattr(new_jobs, "answers", ends_now)
    rqmem.enqueue_many(queue, [(add, {"a": 2, "depends_on": "parent", "job_id": "child"})])
    assert seen == [{"parent": b"queued"}, {"parent": b"finished"}]
    assert queue.job_ids == ["parent", "child"]
    assert not connection.exists("rq:job:parent:dependents")


def test_unique_calls_that_are_there_are_left_out(connection: Redis) -> None:
    calls = [(add, {"a": n, "job_id": f"n-{n}"}) for n in range(1200)]
    assert rqmem.enqueue_many("jobs", calls[:700], connection=connection) == 700
    assert rqmem.enqueue_many("jobs", iter(calls), connection=connection, unique=True) == 500
    assert rqmem.enqueue_many("jobs", calls, connection=connection, unique=True, at=timedelta(hours=1)) == 0
    assert Queue("jobs", connection=connection).job_ids == [f"n-{n}" for n in range(1200)]


@pytest.mark.parametrize("at", [timedelta(hours=2), datetime(2031, 1, 1, tzinfo=timezone.utc), datetime(2031, 1, 1)])
def test_calls_may_be_due_later(connection: Redis, at: Any) -> None:
    queue = Queue("jobs", connection=connection)
    (queue.enqueue_in if isinstance(at, timedelta) else queue.enqueue_at)(at, add, 1, job_id="one", at_front=True)
    theirs = dump(connection)
    connection.flushall()
    assert rqmem.enqueue_many(queue, [(add, {"args": (1,), "job_id": "one", "at_front": True})], at=at) == 1
    assert differences(theirs, dump(connection)) == []


class Counting(Queue):
    """A project's queue that has its own way to enqueue."""

    def enqueue_call(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["meta"] = {"by": "project"}
        return super().enqueue_call(*args, **kwargs)


def test_a_queue_with_its_own_way_to_enqueue_is_asked_for_each_job(connection: Redis) -> None:
    queue = Counting("jobs", connection=connection)
    assert rqmem.enqueue_many(queue, [(add, {"a": 1, "job_id": "one"}), (add, {"a": 2, "job_id": "two"})]) == 2
    assert [job.meta for job in Job.fetch_many(["one", "two"], connection)] == [{"by": "project"}] * 2
    now = Queue("jobs", connection=connection, is_async=False)
    rqmem.enqueue_many(now, [(add, {"a": 5, "job_id": "at once"[:2]})])
    assert Job.fetch("at", connection).return_value() == 6


def test_limited_and_other_jobs_keep_their_order(connection: Redis) -> None:
    limit = RateLimit("mail", 10)
    calls = [(add, {"a": n, "job_id": str(n), **({"rate_limit": limit} if n % 2 else {})}) for n in range(6)]
    assert rqmem.enqueue_many("jobs", calls, connection=connection) == 6
    assert Queue("jobs", connection=connection).job_ids == [str(n) for n in range(6)]


# Bad input


class Unsendable:
    def __reduce__(self) -> Any:
        raise TypeError("not me")


def local() -> Any:
    return lambda: None


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ((add, {"a": 1, "job_timeout": 0}), "0 timeout is not allowed"),
        ((add, {"a": 1, "job_timeout": "soon"}), "soon"),
        ((add, {"a": 1, "ttl": -5}), "ttl must be greater than 0"),
        ((add, {"a": 1, "wrong": 2}), "add: it has no argument 'wrong': it takes a, b"),
        ((add, {"a": Unsendable()}), "not me (TypeError)"),
        ((add, {"a": 1, "meta": {"x": Unsendable()}}), "not me (TypeError)"),
        ((add, {"a": 1, "job_id": "no such/ id\n"}), "id"),
        ((add, {"a": 1, "job_id": "n-7"}), "another call has the job id 'n-7'"),
        ((add, {"a": 1, "unique": True}), "unique=True needs a job_id"),
        ((add, {"a": 1, "unique": True, "job_id": "u", "depends_on": "n-1"}), "neither with depends_on"),
        ((add, {"a": 1, "pipeline": 1}), "pipeline is not an option of one call"),
        ((add, {"a": 1, "depends_on": [3]}), "depends_on"),
        ((add, {"a": 1, "webhooks": "http://x"}), "webhooks"),
        ((local(), ()), "no worker can import"),
        ((add, 7), "the arguments of a call are a mapping"),
        (add, "a call is a pair"),
        ((Plain, {"m": 1}), "Plain.handle: it has no argument 'm': it takes number"),
        ((3, ()), "3"),
    ],
)
def test_a_bad_call_is_named_and_nothing_is_enqueued(connection: Redis, bad: Any, says: str) -> None:
    calls = [(add, {"a": n, "job_id": f"n-{n}"}) for n in range(620)]
    calls.insert(610, bad)
    with pytest.raises(ConfigError) as raised:
        rqmem.enqueue_many("jobs", calls, connection=connection)
    text = str(raised.value)
    assert text.startswith("calls[610], ")
    assert says in text
    assert text.endswith("; nothing is enqueued")
    assert "\n" not in text
    assert dump(connection) == {}


def test_of_an_iterator_the_batches_before_a_bad_call_are_there(connection: Redis) -> None:
    calls = ({"number": n} if n != 1203 else {"m": n} for n in range(3000))
    with pytest.raises(ConfigError, match=r"calls\[1203\], \{'m': 1203\}: Plain.handle.*; 1,000 jobs before"):
        Plain.enqueue_many(calls, "jobs", connection=connection)
    assert Queue("jobs", connection=connection).count == 1000


@pytest.mark.parametrize("calls", ["text", {"n": 1}, None, 5])
def test_what_is_no_list_of_calls_is_refused(connection: Redis, calls: Any) -> None:
    with pytest.raises(ConfigError, match="takes the calls as an iterable"):
        Plain.enqueue_many(calls, connection=connection)


@pytest.mark.parametrize("at", ["tomorrow", 3])
def test_a_time_that_is_none_is_refused(connection: Redis, at: Any) -> None:
    with pytest.raises(ConfigError, match="give a datetime, or a timedelta"):
        Plain.enqueue_many([{"number": 1}], connection=connection, at=at)


def test_a_class_that_no_worker_could_import_is_refused(connection: Redis) -> None:
    class Here(Enqueueable):
        def handle(self) -> None: ...

    with pytest.raises(ConfigError, match="move the class to the top level"):
        rqmem.enqueue_many("jobs", [(Here, {})], connection=connection)


# Large, cut off, and without Redis


def test_a_generator_is_streamed(connection: Redis) -> None:
    alive = []

    def calls() -> Iterator[Any]:
        for number in range(4000):
            if number % 1250 == 1249:
                alive.append(sum(type(each) is Job for each in gc.get_objects()))
            yield add, (number,)

    rqmem.enqueue_many("jobs", calls(), connection=connection)
    assert max(alive) <= 1100  # of this batch and of the one before it


def test_large_arguments_go_in_smaller_batches(connection: Redis) -> None:
    connection.config_resetstat()
    calls = ((add, {"a": os.urandom(1_500_000)}) for _ in range(10))
    assert rqmem.enqueue_many("jobs", calls, connection=connection) == 10
    assert connection.info("commandstats")["cmdstat_exec"]["calls"] == 4


def whole(connection: Redis) -> int:
    """How many jobs are enqueued; all of them with their hash, and nothing else."""
    ids = Queue("jobs", connection=connection).job_ids
    hashes = {key.decode().removeprefix("rq:job:") for key in connection.scan_iter("rq:job:*", count=10_000)}
    assert hashes == set(ids)
    assert len(ids) == len(hashes)
    return len(ids)


@pytest.mark.parametrize("after", [1, 700, 2500])
def test_a_killed_program_leaves_no_half_of_a_job(connection: Redis, redis_url: str, after: int) -> None:
    before = {each["id"] for each in connection.client_list()}
    pid = os.fork()
    if pid == 0:
        try:
            with Redis.from_url(redis_url) as own:
                rqmem.enqueue_many("jobs", ((add, (n,)) for n in range(1_000_000)), connection=own)
        finally:
            os._exit(1)
    try:
        wait_until(lambda: Queue("jobs", connection=connection).count >= after)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    wait_until(lambda: {each["id"] for each in connection.client_list()} <= before)  # Redis has seen its end
    assert whole(connection) % 500 == 0


@pytest.fixture
def proxy(redis_url: str) -> Iterator[RefusingProxy]:
    made = RefusingProxy(redis_url)
    yield made
    made.close()


@pytest.mark.parametrize("batch", [1, 2])
def test_a_lost_reply_enqueues_no_job_twice(connection: Redis, proxy: RefusingProxy, batch: int) -> None:
    executed = 0

    def lose(command: list[bytes]) -> bool:
        nonlocal executed
        executed += command[0] == b"EXEC"
        return command[0] == b"EXEC" and executed == batch

    proxy.lose = lose
    calls = ((add, (n,)) for n in range(1500))
    assert rqmem.enqueue_many("jobs", calls, connection=proxy.connection) == 1500
    assert executed == 3
    assert whole(connection) == 1500


@pytest.mark.parametrize("after", [b"MULTI", b"RPUSH", b"GET"])
def test_a_batch_that_is_cut_off_is_enqueued_once(connection: Redis, proxy: RefusingProxy, after: bytes) -> None:
    cut = []

    def lose(command: list[bytes]) -> bool:
        cut.extend([command[0]] if command[0] == after and not cut else [])
        return cut == [after] and command[0] == after and not cut.append(b"once")

    proxy.lose = lose
    assert rqmem.enqueue_many("jobs", ((add, (n,)) for n in range(900)), connection=proxy.connection) == 900
    assert cut
    assert whole(connection) == 900


def test_a_redis_that_goes_away_for_a_moment_is_waited_for(connection: Redis, proxy: RefusingProxy) -> None:
    def calls() -> Iterator[Any]:
        for number in range(1500):
            if number == 1200:
                proxy.refuse = lambda command: "LOADING in a moment" if proxy.refused < 3 else None
            yield add, (number,)

    assert rqmem.enqueue_many("jobs", calls(), connection=proxy.connection) == 1500
    assert proxy.refused
    assert whole(connection) == 1500


def test_a_redis_that_stays_away_is_told_with_what_is_done(
    connection: Redis, proxy: RefusingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_batches, "_PATIENCE_SECONDS", 0.5)

    def calls() -> Iterator[Any]:
        for number in range(1500):
            if number == 1200:
                proxy.refuse = lambda command: "OOM command not allowed" if command[0] != b"WATCH" else None
            yield add, (number,)

    with pytest.raises(RedisUnavailable, match=r"OOM.*: 1,000 jobs are enqueued$"):
        rqmem.enqueue_many("jobs", calls(), connection=proxy.connection)
    proxy.refuse = None
    proxy.cut()
    proxy.close()
    with pytest.raises(RedisUnavailable, match=r": 0 jobs are enqueued, and perhaps the 1 after them$"):
        rqmem.enqueue_many("jobs", [(add, (1,))], connection=proxy.connection)
    assert whole(connection) == 1000
