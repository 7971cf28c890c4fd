"""Outcomes are committed once, if they are still ours: a worker's committer over a real Redis, without a process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from redis import Redis
from redis.client import Pipeline
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Queue, Retry
from rq.executions import Execution
from rq.job import Dependency, Job
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry

from rqmem import MemoryWorker
from rqmem.config.settings import Config
from rqmem.errors import RunTakenOver
from rqmem.rq_names import now
from rqmem.store import execution_reader, executions, keys
from rqmem.worker import commit
from tests import sample_jobs


@dataclass
class Begun:
    """A job that a worker of this process has claimed and begun, as a horse does."""

    worker: MemoryWorker
    queue: Queue
    job: Job
    execution: Execution

    @classmethod
    def of(cls, connection: Redis, **options: Any) -> Begun:
        queue = Queue("jobs", connection=connection)
        worker = MemoryWorker([queue], connection=connection, config=Config())
        job = queue.enqueue(sample_jobs.add, 1, **options)
        queue.pop_job_id()
        execution = worker.prepare_execution(job)
        worker.prepare_job_execution(job, remove_from_intermediate_queue=True)
        return cls(worker, queue, job, execution)

    def succeeds(self) -> None:
        self.job._result, self.job.ended_at = 2, now()
        self.worker.handle_job_success(self.job, self.queue, self.job.started_job_registry, self.execution)

    def fails(self, text: str = "ValueError: wrong") -> None:
        self.worker.handle_job_failure(self.job, self.queue, exc_string=text, execution=self.execution)

    def has_ended_in(self, registry: type[StartedJobRegistry] | type[FailedJobRegistry] | None) -> None:
        """The job is in this registry of the three, and nothing of the execution is left."""
        for each in (StartedJobRegistry, FinishedJobRegistry, FailedJobRegistry):
            ids = each(queue=self.queue).get_job_ids(cleanup=False)
            assert ids == ([self.job.id] if each is registry else []), each
        assert execution_reader.owner(self.queue.connection, self.job.id) is None
        assert not self.queue.connection.exists(self.execution.key)


class LostReply(Pipeline):
    """A pipeline whose transaction Redis takes, and whose reply is lost, once."""

    lost = False

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        watches_or_writes = bool(self.command_stack)
        result = super().execute(*args, **kwargs)
        if watches_or_writes and not LostReply.lost:
            LostReply.lost = True
            raise RedisConnectionError("the reply was lost")
        return result


def lose_next_reply(begun: Begun, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = begun.worker.connection
    monkeypatch.setattr(LostReply, "lost", False)

    def pipeline(transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        return LostReply(connection.connection_pool, connection.response_callbacks, transaction, shard_hint)

    monkeypatch.setattr(connection, "pipeline", pipeline)


def test_a_success_leaves_nothing_of_the_execution(connection: Redis) -> None:
    begun = Begun.of(connection)
    begun.succeeds()
    begun.has_ended_in(FinishedJobRegistry)
    assert begun.job.return_value(refresh=True) == 2


def test_a_failure_leaves_nothing_of_the_execution(connection: Redis) -> None:
    begun = Begun.of(connection)
    begun.fails()
    begun.has_ended_in(FailedJobRegistry)
    assert begun.job.latest_result().exc_string == "ValueError: wrong"


def test_a_failure_with_retries_left_queues_the_job_once(connection: Redis) -> None:
    begun = Begun.of(connection, retry=Retry(max=2))
    begun.fails()
    assert begun.queue.job_ids == [begun.job.id]
    begun.has_ended_in(None)
    assert begun.worker._pool.page.again


@pytest.mark.parametrize("taken", ["put back", "taken again"])
def test_a_job_that_was_taken_over_before_it_began_does_not_begin(connection: Redis, taken: str) -> None:
    """The worker stood still after its claim, and was taken for dead."""
    queue = Queue("jobs", connection=connection)
    job = queue.enqueue(sample_jobs.add, 1)
    queue.pop_job_id()
    late, other = (MemoryWorker([queue], connection=connection, config=Config()) for _ in range(2))
    execution = late.prepare_execution(job)
    assert executions.requeue(job, queue, execution, stage=None, chunk_size=0, cost=0)
    if taken == "taken again":
        queue.pop_job_id()
        other.prepare_execution(job)
    with pytest.raises(RunTakenOver):
        late.prepare_job_execution(job, remove_from_intermediate_queue=True)
    assert job.get_status() == "queued"
    assert queue.job_ids == ([job.id] if taken == "put back" else [])


def test_a_job_that_was_cancelled_before_it_began_does_not_begin(connection: Redis) -> None:
    queue = Queue("jobs", connection=connection)
    job = queue.enqueue(sample_jobs.add, 1)
    queue.pop_job_id()
    worker = MemoryWorker([queue], connection=connection, config=Config())
    worker.prepare_execution(job)
    job.cancel()
    with pytest.raises(RunTakenOver):
        worker.prepare_job_execution(job, remove_from_intermediate_queue=True)
    assert (job.get_status(), queue.canceled_job_registry.get_job_ids()) == ("canceled", [job.id])


@pytest.mark.parametrize("ends", [Begun.succeeds, Begun.fails], ids=["success", "failure"])
def test_a_run_that_somebody_took_over_gets_no_outcome_of_ours(connection: Redis, ends: Any) -> None:
    begun = Begun.of(connection)
    owner = execution_reader.owner(connection, begun.job.id)
    assert owner is not None
    theirs = replace(owner, worker="another", execution="theirs")
    with connection.pipeline() as pipeline:
        executions.claim(pipeline, begun.job.id, theirs)
        pipeline.execute()
    if ends is Begun.succeeds:
        with pytest.raises(RunTakenOver, match="somebody else took this run over"):
            ends(begun)
    else:
        ends(begun)
    assert execution_reader.owner(connection, begun.job.id) == theirs
    assert not FinishedJobRegistry(queue=begun.queue).get_job_ids(cleanup=False)
    assert not FailedJobRegistry(queue=begun.queue).get_job_ids(cleanup=False)


def test_a_job_that_was_deleted_while_it_ran_gets_no_outcome(connection: Redis) -> None:
    begun = Begun.of(connection)
    begun.job.delete()
    with pytest.raises(RunTakenOver, match="it was deleted while it ran"):
        begun.succeeds()
    assert not connection.exists(begun.job.key)


def test_an_outcome_is_committed_where_redis_has_lost_all_else(connection: Redis) -> None:
    begun = Begun.of(connection)
    begun.worker._committer.began_in = executions.epoch(connection)
    connection.flushall()
    assert executions.epoch(connection) != begun.worker._committer.began_in
    begun.succeeds()
    assert begun.job.id in FinishedJobRegistry(queue=begun.queue).get_job_ids(cleanup=False)


@pytest.mark.parametrize("ends", [Begun.succeeds, Begun.fails], ids=["success", "failure"])
def test_an_outcome_whose_reply_was_lost_is_recorded_once(
    connection: Redis, ends: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = Begun.of(connection)
    dependent = begun.queue.enqueue(sample_jobs.add, 2, depends_on=Dependency(begun.job, allow_failure=True))
    lose_next_reply(begun, monkeypatch)
    ends(begun)
    assert LostReply.lost, "no reply was lost"
    begun.has_ended_in(FinishedJobRegistry if ends is Begun.succeeds else FailedJobRegistry)
    assert len(begun.job.results()) == 1
    assert begun.queue.job_ids == [dependent.id]


def test_an_error_that_no_encoding_has_is_recorded(connection: Redis) -> None:
    begun = Begun.of(connection)
    begun.fails("OSError: no file \udcff")
    begun.has_ended_in(FailedJobRegistry)
    assert begun.job.latest_result().exc_string == "OSError: no file \\udcff"


def test_a_failure_that_rqs_maintenance_recorded_first_stays_one(connection: Redis) -> None:
    begun = Begun.of(connection)
    connection.zadd(begun.job.started_job_registry.key, {begun.execution.composite_key: 1})
    StartedJobRegistry(queue=begun.queue).cleanup()
    assert FailedJobRegistry(queue=begun.queue).get_job_ids(cleanup=False) == [begun.job.id]
    begun.fails()
    begun.has_ended_in(FailedJobRegistry)
    assert not connection.exists(keys.RUNNING)


def test_a_redis_that_refuses_after_a_lost_reply_fails_no_job(
    connection: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was our own commit is looked up; that look waits for Redis too."""
    begun = Begun.of(connection)
    connection.hdel(keys.RUNNING, begun.job.id)  # so the guarded commit is refused
    tries: list[int] = []

    def looks(connection: Redis, job_id: str, execution: str) -> bool:
        tries.append(1)
        if len(tries) == 1:
            raise BusyLoadingError("Redis is loading")
        return False

    monkeypatch.setattr(commit, "was_committed", looks)
    begun.succeeds()
    assert len(tries) == 2
    begun.has_ended_in(FinishedJobRegistry)
