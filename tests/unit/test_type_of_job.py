"""The type of a job: from its data, without running what they hold."""

from __future__ import annotations

import json
import pickle
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from rqmem.type_of_job import UNKNOWN, job_type, type_of_path
from tests import sample_jobs


class Trap:
    """Deserialised, it would be seen."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('user code ran')",)


class Compressing:
    """A team's own serializer."""

    @staticmethod
    def dumps(value: Any) -> bytes:
        return zlib.compress(pickle.dumps(value))

    @staticmethod
    def loads(data: bytes) -> Any:
        return pickle.loads(zlib.decompress(data))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("jobs.mail.Send.run", "jobs.mail.Send"),
        ("time.sleep", "time.sleep"),
        ("my-jobs.send_it", "my-jobs.send_it"),
        ("jobs.make.<locals>.<lambda>", "jobs.make.<locals>.<lambda>"),
        ("jobs.größe", "jobs.größe"),
        ("time.sleep('hunter2')", UNKNOWN),
        ("jobs mail", UNKNOWN),
        ("jobs.mail\n12:00:00 ERROR", UNKNOWN),
        ("jobs..mail", UNKNOWN),
        ("a" * 1000, UNKNOWN),
        ("", UNKNOWN),
        (None, UNKNOWN),
    ],
)
def test_a_path_is_a_type_and_nothing_else_is(path: str | None, expected: str) -> None:
    assert type_of_path(path) == expected


@pytest.mark.parametrize("serializer", ["pickle", JSONSerializer])
def test_the_type_of_a_job_that_waits(connection: Redis, serializer: Any) -> None:
    queue = Queue(connection=connection, serializer=serializer)
    job = queue.enqueue("jobs.größe.add", "hunter2", description="hunter2 (hunter2)")
    assert job_type(queue.fetch_job(job.id)) == "jobs.größe.add"
    squares = sample_jobs.Squares.enqueue(count=5, connection=connection, serializer=serializer)
    assert job_type(squares) == job_type(queue.fetch_job(squares.id)) == "tests.sample_jobs.Squares"


def test_nothing_is_deserialised(connection: Redis) -> None:
    job = Queue(connection=connection).enqueue("time.sleep", Trap())
    assert job_type(Queue(connection=connection).fetch_job(job.id)) == "time.sleep"


def test_data_that_only_their_serializer_reads_tell_no_type(connection: Redis) -> None:
    queue = Queue(connection=connection, serializer=Compressing)
    assert job_type(queue.enqueue("time.sleep", 0, description="hunter2(1)")) == UNKNOWN


class Bare:
    def __init__(self, data: bytes) -> None:
        self.data = data


@given(st.text(max_size=300), st.lists(st.text()), st.integers(1, pickle.HIGHEST_PROTOCOL))
def test_every_protocol_of_pickle_and_json_is_read(path: str, args: list[str], protocol: int) -> None:
    path = path.encode(errors="replace").decode()
    assert job_type(Bare(pickle.dumps((path, None, args, {}), protocol))) == type_of_path(path)  # type: ignore[arg-type]
    assert job_type(Bare(json.dumps([path, None, args, {}]).encode())) == type_of_path(path)  # type: ignore[arg-type]


@given(st.binary())
def test_any_data_have_some_type(data: bytes) -> None:
    assert isinstance(job_type(Bare(data)), str)  # type: ignore[arg-type]
