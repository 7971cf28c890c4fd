"""What the jobs of these tests do. Each writes its id to the list ``tests:order``."""

from __future__ import annotations

import time
from typing import Any

from rq import Queue, Retry, get_current_job
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry

ORDER = "tests:order"


def _note() -> Job:
    job = get_current_job()
    assert job is not None
    job.connection.rpush(ORDER, job.id)
    return job


def returns(value: Any = None) -> Any:
    _note()
    return value


def returns_what_no_serializer_takes() -> Any:
    _note()
    return (each for each in ())


def returns_a_function() -> Any:
    _note()
    return lambda: None


def compares_itself() -> list[bool]:
    job = get_current_job()
    read = Job.fetch(_note().id, connection=_note().connection)
    return [job == read, read == job, job in [read], hash(job) == hash(read)]


def asks_itself_for_more() -> Any:
    return getattr(_note(), "more")  # noqa: B009  no job has it


def sets_its_status(status: str) -> None:
    _note().set_status(JobStatus(status))


def fails(text: str = "as told") -> None:
    _note()
    raise ValueError(text)


def fails_once() -> str:
    job = _note()
    if job.connection.incr(f"tests:tries:{job.id}") == 1:
        raise ValueError("the first time")
    return "at last"


def asks_for_another_try(times: int, interval: int = 0) -> Any:
    job = _note()
    if job.connection.incr(f"tests:tries:{job.id}") <= times:
        return Retry(max=times, interval=interval)
    return "at last"


def saves_meta() -> None:
    job = _note()
    job.meta["seen"] = {"rows": 3}
    job.save_meta()


def sleeps(seconds: float) -> None:
    _note()
    time.sleep(seconds)


def enqueues(job_id: str, queue: str, at_front: bool = False) -> None:
    job = _note()
    Queue(queue, connection=job.connection).enqueue(returns, job_id, job_id=job_id, at_front=at_front)


def adds_a_dependent(job_id: str) -> None:
    job = _note()
    Queue(job.origin, connection=job.connection).enqueue(returns, job_id, job_id=job_id, depends_on=job)


def cancels(job_id: str) -> None:
    Job.fetch(job_id, connection=_note().connection).cancel()


def deletes(job_id: str) -> None:
    Job.fetch(job_id, connection=_note().connection).delete()


def requeues(job_id: str) -> None:
    job = Job.fetch(job_id, connection=_note().connection)
    FailedJobRegistry(job.origin, connection=job.connection).requeue(job)


async def is_a_coroutine() -> str:
    _note()
    return "awaited"


class Counter:
    """Its method is a job, with the instance in the arguments."""

    def __init__(self, start: int) -> None:
        self.start = start

    def count(self, by: int) -> int:
        _note()
        return self.start + by


def saves_itself(**changed: Any) -> str:
    job = _note()
    for name, value in changed.items():
        setattr(job, name, value)
    job.save()
    return "saved"


def sets_its_ttl(seconds: int) -> None:
    job = get_current_job()
    assert job is not None
    job.result_ttl = seconds


def stays(seconds: int) -> None:
    """Redis forgets it after this time."""
    job = _note()
    job.connection.expire(job.key, seconds)


def does(what: str, *arguments: Any, **named: Any) -> Any:
    """Any of the others: of one type for all of them, so that the unusual ones come under leases too."""
    return globals()[what](*arguments, **named)


def on_success(job: Job, connection: Any, result: Any) -> None:
    connection.rpush("tests:callbacks", f"{job.id} {result!r}")


def on_failure(job: Job, connection: Any, kind: Any, value: Any, traceback: Any) -> None:
    connection.rpush("tests:callbacks", f"{job.id} {kind.__name__} {value}")


class OwnJob(Job):
    """Of a user's own class: it leaves a trace of each execution."""

    def perform(self) -> Any:
        self.connection.rpush("tests:own class", self.id)
        return super().perform()


class OwnQueue(Queue):
    """Of a user's own class."""

    job_class = OwnJob


def note_exception(job: Job, kind: Any, value: Any, traceback: Any) -> bool:
    job.connection.rpush("tests:handled", f"{job.id} {kind.__name__} {value}")
    return True
