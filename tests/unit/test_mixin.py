"""MemoryAwareJob as its author and its caller meet it; no worker needed."""

from __future__ import annotations

import gc
import logging
import mmap
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue, Retry, SimpleWorker
from rq.job import JobStatus
from rq.serializers import JSONSerializer

from rqmem import MemoryAwareJob, events
from rqmem.errors import ConfigError, MemoryLimitExceeded, SourceError
from tests import sample_jobs

MB = 2**20


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"memory_limit_mb": 0}, "Bad.memory_limit_mb is 0: give a number of MB greater than 0"),
        ({"memory_limit_mb": "256"}, "Bad.memory_limit_mb is '256'"),
        ({"memory_limit_mb": True}, "Bad.memory_limit_mb is True"),
        ({"chunk_size": 0}, "Bad.chunk_size is 0: give a whole number of items of at least 1"),
        ({"chunk_size": 2.5}, "Bad.chunk_size is 2.5"),
        ({"memory_limit": 256}, "Bad.memory_limit is nothing that rqmem reads: did you mean memory_limit_mb?"),
        ({"chunksize": 100}, "Bad.chunksize is nothing that rqmem reads: did you mean chunk_size?"),
        ({"on_breech": "resume"}, "Bad.on_breech is nothing that rqmem reads: did you mean on_breach?"),
        ({"on_breach": "explode"}, "Bad.on_breach is 'explode': give 'fail' or 'resume'"),
        ({"adaptive": "no"}, "Bad.adaptive is 'no': give True or False"),
        ({"bytes_per_item": "1 KB"}, "Bad.bytes_per_item is '1 KB': give a number of bytes greater than 0"),
        ({"bytes_per_item": float("nan")}, "Bad.bytes_per_item is nan"),
        ({"retry": 3}, "Bad.retry is 3: give rq.Retry, for example Retry"),
        ({"retry": [Retry(max=1)]}, "Bad.retry is "),
        ({"queue": 7}, "Bad.queue is 7: give the name of a queue"),
        ({"queue": " "}, "Bad.queue is ' '"),
        ({"queue": None}, "Bad.queue is None"),
        ({"job_timeout": "soon"}, "Bad.job_timeout is 'soon': give seconds"),
        ({"job_timeout": timedelta(hours=1)}, "Bad.job_timeout is "),
        ({"job_timeout": 0}, "Bad.job_timeout is 0"),
        ({"job_timeout": 2.5}, "Bad.job_timeout is 2.5"),
        ({"job_timeout": True}, "Bad.job_timeout is True"),
        ({"result_ttl": "1h"}, "Bad.result_ttl is '1h': give whole seconds"),
        ({"result_ttl": -2}, "Bad.result_ttl is -2"),
        (
            {"handle": lambda self, ttl: None},
            "Bad.handle has a parameter 'ttl', which is the name of an enqueue option",
        ),
    ],
)
def test_a_class_that_cannot_work_is_an_error_when_it_is_made(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        type("Bad", (MemoryAwareJob,), attributes)


@pytest.mark.parametrize(
    "attributes",
    [{"job_timeout": "2H"}, {"job_timeout": -1}, {"job_timeout": "90"}, {"result_ttl": 0}, {"retry": Retry(max=1)}],
)
def test_options_as_rq_takes_them_are_no_error(attributes: dict[str, Any]) -> None:
    type("Good", (MemoryAwareJob,), attributes)


def test_attributes_of_its_own_are_no_error() -> None:
    own = {"queues": ["a"], "_chunksize": 1, "memory": 1, "currency": "EUR", "retries": 3, "chunk_sizes": property(str)}
    type("Good", (type("Base", (MemoryAwareJob,), own),), {"currency": "USD", "escalated_to": lambda self: None})


def test_it_is_enqueued_by_path_with_plain_arguments(connection: Redis) -> None:
    job = sample_jobs.Plain.enqueue(number=7, connection=connection)
    assert job.func_name == "tests.sample_jobs.Plain.run"
    assert job.kwargs == {"number": 7}
    assert job.origin == "plain"
    assert job.description == "tests.sample_jobs.Plain(number=7)"


def test_queue_and_rqs_options_pass_through(connection: Redis) -> None:
    job = sample_jobs.Plain.enqueue(
        "other", 7, name="n", job_timeout=900, result_ttl=5, retry=Retry(max=2), job_id="mine", connection=connection
    )
    assert (job.origin, job.timeout, job.result_ttl, job.retries_left, job.id) == ("other", 900, 5, 2, "mine")
    assert (tuple(job.args), job.kwargs) == ((7,), {"name": "n"})


def test_a_queue_object_and_the_json_serializer(connection: Redis) -> None:
    queue = Queue("json", connection=connection, serializer=JSONSerializer)
    job = sample_jobs.Plain.enqueue(queue, number=1)
    assert queue.fetch_job(job.id).kwargs == {"number": 1}


def test_scheduled_forms(connection: Redis) -> None:
    later = sample_jobs.Plain.enqueue_in(timedelta(hours=1), number=1, connection=connection)
    when = datetime(2100, 1, 1, tzinfo=timezone.utc)
    at = sample_jobs.Plain.enqueue_at(when, "other", number=2, connection=connection)
    assert later.get_status() == at.get_status() == JobStatus.SCHEDULED
    registry = Queue("other", connection=connection).scheduled_job_registry
    assert registry.get_scheduled_time(at) == when


@pytest.mark.parametrize(
    ("queue", "kwargs", "message"),
    [
        (None, {}, "missing a required argument: 'number'"),
        (None, {"number": 1, "nope": 2}, "it has no argument 'nope': it takes number"),
        (7, {"number": 1}, "7 is not a queue"),
        (" ", {"number": 1}, "' ' is not a queue"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_enqueued(
    connection: Redis, queue: Any, kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sample_jobs.Plain.enqueue(queue, connection=connection, **kwargs)
    assert connection.keys() == []


class WithoutHandle(MemoryAwareJob):
    queue = "plain"


def test_a_class_without_handle_is_refused(connection: Redis) -> None:
    with pytest.raises(ConfigError, match=r"test_mixin.WithoutHandle has no method handle: define handle\(self, "):
        WithoutHandle.enqueue(connection=connection)
    with pytest.raises(ConfigError, match=r"calls\[0\].*has no method handle"):
        WithoutHandle.enqueue_many([{}], connection=connection)
    assert connection.keys() == []


def test_an_argument_in_the_place_of_the_queue_is_named(connection: Redis) -> None:
    hint = "missing a required argument: 'number'; {}, the first one without a name, is the queue: give arguments by"
    for queue in ("orders.csv", 7):
        with pytest.raises(ConfigError, match=hint.format(repr(queue))):
            sample_jobs.Plain.enqueue(queue, connection=connection)
    with pytest.raises(ConfigError, match=r"it takes number, name$"):
        sample_jobs.Plain.enqueue("other", number=1, nope=2, connection=connection)


def test_a_class_that_no_worker_can_import_is_refused(connection: Redis) -> None:
    class Local(MemoryAwareJob):
        def handle(self) -> None: ...

    with pytest.raises(ConfigError, match="move the class to the top level of a module"):
        Local.enqueue(connection=connection)


def test_called_directly_it_runs_and_is_monitored(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_jobs.Plain, "memory_limit_mb", 4000)  # this process is not the job's alone
    caplog.set_level(logging.INFO, "rqmem")
    assert sample_jobs.Plain.run(3, name="y") == [3, "y", (3,), {"name": "y"}]
    assert "at begun" in caplog.text
    assert "ended ok" in caplog.text


def test_under_a_stock_worker_checkpoints_protect_it(connection: Redis) -> None:
    job = sample_jobs.Overweight.enqueue("stock", connection=connection)
    SimpleWorker(["stock"], connection=connection).work(burst=True)
    assert job.get_status() == JobStatus.FAILED
    assert "by checkpoint" in (job.latest_result().exc_string or "")


@pytest.fixture(autouse=True)
def generous(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of the tests is not the job's alone: others have left what they left in it."""
    monkeypatch.setenv("MEMORY_DEFAULT_LIMIT_MB", "4000")


class InHand(MemoryAwareJob):
    """A job whose methods the tests call by hand."""

    def handle(self) -> None: ...


def test_a_checkpoint_above_the_ceiling_raises_with_its_name() -> None:
    job = InHand()
    job.set_memory_limit(1)
    with pytest.raises(MemoryLimitExceeded, match="of 1 MB at 'loaded'") as caught:
        job.check_memory_usage("loaded")
    assert caught.value.breach.layer == "checkpoint"
    assert "test_mixin.py" in caught.value.breach.where


def test_near_the_ceiling_garbage_is_collected_first() -> None:
    job = InHand()
    usage = job.check_memory_usage("begin")
    gc.disable()
    try:
        for _ in range(60):
            cycle: list[Any] = [bytearray(2 * MB)]
            cycle.append(cycle)
        del cycle
        job.set_memory_limit(usage + 100)
        assert job.check_memory_usage("garbage") < usage + 50
    finally:
        gc.enable()


def test_collection_returns_what_it_freed() -> None:
    job = InHand()
    cycle: list[Any] = [bytearray(50 * MB)]
    cycle.append(cycle)
    del cycle
    assert job.force_garbage_collection() > 40


def test_disabled_monitoring_reads_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "rqmem")
    job = InHand()
    job.disable_memory_monitoring()
    caplog.clear()
    assert job.check_memory_usage("quiet") == 0.0
    assert caplog.text == ""


def test_monitoring_can_be_switched_off_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "rqmem")
    job = InHand()
    with job.disable_memory_monitoring():
        assert job.check_memory_usage("hot") == 0.0
        with job.disable_memory_monitoring():
            pass
        assert job.check_memory_usage("still hot") == 0.0
    assert job.check_memory_usage("cold") > 0
    assert "hot" not in caplog.text and "at cold" in caplog.text


def test_of_thousands_of_checkpoints_the_first_and_the_last_are_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rqmem")
    job = InHand()
    for number in range(1000):
        job.check_memory_usage(f"number {number}")
    job.finalize_memory_monitoring()
    told = [line for line in caplog.text.splitlines() if " at number " in line]
    assert told[0].endswith("at number 0") and told[-1].endswith("at number 999") and len(told) < 50


def test_a_warning_is_told_once_until_usage_is_below_it_again() -> None:
    told: list[events.Event] = []
    events.subscribe(told.append)
    try:
        job = InHand()
        usage = job.check_memory_usage("begin")
        for limit in (usage + 5, usage + 5, 100 * usage, usage + 5):
            job.set_memory_limit(limit)
            job.check_memory_usage("look")
    finally:
        events.unsubscribe(told.append)
    names = [type(event).__name__ for event in told]
    assert names.count("UsageWarning") == 2 and names[0] == "JobStarted"


def test_initialise_and_finalise_by_hand_are_harmless(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rqmem")
    job = InHand()
    job.initialize_memory_monitoring()
    job.initialize_memory_monitoring()
    job.check_memory_usage("between")
    job.finalize_memory_monitoring()
    job.finalize_memory_monitoring()
    assert caplog.text.count("ended ok") == 1
    job.check_memory_usage("after")


@pytest.mark.parametrize("limit", [0, -5, "many", None])
def test_set_memory_limit_takes_a_positive_number(limit: Any) -> None:
    job = InHand()
    if limit is None:
        job.set_memory_limit(limit)  # back to the worker's
    else:
        with pytest.raises(ConfigError, match="set_memory_limit is"):
            job.set_memory_limit(limit)


def test_chunks_and_what_is_returned() -> None:
    chunks: list[list[int]] = []

    def work(chunk: list[int]) -> Any:
        chunks.append(chunk)
        return [chunk, chunk[0], None, (chunk[-1], "x")][len(chunks) - 1]

    results = InHand().process_in_chunks(range(10), work, chunk_size=3)
    assert chunks == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert results == [0, 1, 2, 3, 9, "x"]


def test_a_processor_that_was_called_and_a_number_in_place_of_items() -> None:
    for result in ([1], None):
        with pytest.raises(ConfigError, match=r"a function that takes a chunk, not \w+: give self.send, for example"):
            InHand().process_in_chunks(range(3), result)
    with pytest.raises(SourceError, match=r"not int: give range\(20\)"):
        InHand().process_in_chunks(20, len)


def test_results_need_not_be_kept() -> None:
    seen: list[str] = []
    assert InHand().process_in_chunks(iter("abc"), seen.extend, chunk_size=2, collect=False) == []
    assert seen == ["a", "b", "c"]


def test_a_chunk_that_is_emptied_is_counted_all_the_same() -> None:
    job, seen = InHand(), []

    def work(chunk: list[int]) -> None:
        while chunk:
            seen.append(chunk.pop(0))

    job.process_in_chunks(range(7), work, chunk_size=3)
    for chunk in job.chunks(range(7, 10), chunk_size=2):
        work(chunk)
    assert seen == list(range(10))
    assert job._monitored().counts.items == 10


def test_only_the_cursor_after_a_chunk_is_kept() -> None:
    class Cursor:
        alive = 0

        def __init__(self) -> None:
            Cursor.alive += 1

        def __del__(self) -> None:
            Cursor.alive -= 1

    class Heavy:
        def items_after(self, cursor: Any) -> Any:
            return ((number, Cursor()) for number in range(100))

    job, alive = InHand(), []
    job.process_in_chunks(Heavy(), lambda _: alive.append(Cursor.alive), chunk_size=50)
    alive.extend(Cursor.alive for _ in job.chunks(Heavy(), chunk_size=50))
    assert max(alive) <= 4


@pytest.mark.parametrize("size", [0, -1, 2.0, "many"])
def test_a_chunk_size_is_a_whole_number_of_at_least_one(size: Any) -> None:
    with pytest.raises(ConfigError, match="chunk_size is"):
        InHand().process_in_chunks([1], len, chunk_size=size)


class Asynchronous(MemoryAwareJob):
    """``handle`` may be a coroutine, as RQ's functions may."""

    async def handle(self, number: int) -> int:
        return number + 1


def test_handle_may_be_a_coroutine() -> None:
    assert Asynchronous.run(1) == 2


class MapsAFile(MemoryAwareJob):
    """Just below its ceiling, and then reads a file that is no usage."""

    def handle(self, path: str) -> float:
        self.set_memory_limit(4096)  # of the tests themselves, and what they have started
        self.set_memory_limit(self.check_memory_usage("begun") + 60)
        block = b"x" * (53 * 2**20)
        self.check_memory_usage("filled")
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=flags) as mapped:
            usage = self.check_memory_usage("mapped")
            assert len(mapped) + len(block)
        return usage


def test_a_mapped_file_at_the_ceiling_is_no_breach(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(os.urandom(2**20) * 12)
    assert MapsAFile.run(str(path)) > 0


def test_items_of_a_call_count_while_another_call_is_open() -> None:
    job = InHand()
    for _ in zip(job.chunks(range(4), chunk_size=2), job.chunks(range(4), chunk_size=2), strict=False):
        pass
    assert job._monitored().counts.own_items == 4
