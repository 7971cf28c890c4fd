"""A Redis that stops answering, or is gone for a while, costs neither a job nor a worker."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import TimeoutError as RedisTimeout
from rq import Queue, Retry
from rq.executions import Execution
from rq.job import Job, JobStatus

from rqmem import MemoryWorker
from rqmem.config.settings import Config
from rqmem.errors import RunTakenOver
from rqmem.store import execution_reader, executions, keys
from rqmem.store.retrying import until_redis_answers
from rqmem.testing import wait_until
from tests import sample_jobs
from tests.conftest import OwnRedis, StartCommand, StartWorker

QUICK = {"RQMEM_HEARTBEAT": "0.3"}


@pytest.fixture
def start(start_worker: StartWorker, own_redis: OwnRedis) -> StartCommand:
    return lambda *options: start_worker("jobs", *options, RQMEM_REDIS_URL=own_redis.server.url, **QUICK)


def test_a_wait_is_told_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    answers = iter([LostConnection("refused"), RedisTimeout("slow"), 7])

    def step() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert until_redis_answers(step, "commit job x") == 7
    first, last = caplog.messages
    assert first == "Redis does not answer (refused): waiting for it to commit job x"
    assert last.startswith("Redis answers again after 0.")


def outcome(own: OwnRedis, job: Job) -> Job:
    return Job.fetch(job.id, connection=own.connection)


def begin(path: Path) -> str:
    wait_until(lambda: Path(f"{path}.begun").exists())
    return str(path)


def test_a_job_that_ends_while_redis_is_gone_is_committed_when_it_is_back(
    own_redis: OwnRedis, start: Callable, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    job = own_redis.queue.enqueue(sample_jobs.wait_for_file, str(go))
    worker = start("--max-jobs", "2")
    begin(go)
    own_redis.kill()
    go.touch()
    own_redis.start_again()
    after = own_redis.queue.enqueue(sample_jobs.add, 1)
    log = worker.finish()
    assert outcome(own_redis, job).return_value() == "done", log
    assert len(outcome(own_redis, job).results()) == 1
    assert outcome(own_redis, after).return_value() == 2
    assert "unhandled exception" not in log


def test_a_failure_while_redis_is_gone_is_recorded_when_it_is_back(
    own_redis: OwnRedis, start: Callable, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    job = own_redis.queue.enqueue(sample_jobs.wait_for_file_and_fail, str(go), retry=Retry(max=1))
    worker = start("--burst")
    begin(go)
    own_redis.kill()
    go.touch()
    own_redis.start_again()
    log = worker.finish()
    done = outcome(own_redis, job)
    assert done.get_status() == JobStatus.FAILED, log
    assert "an ordinary failure" in (done.latest_result().exc_string or "")
    assert done.retries_left == 0
    assert worker.process.returncode == 0


@pytest.mark.parametrize("how", ["stopped", "gone"])
def test_the_ceiling_holds_without_redis_and_sigterm_does_not_blind_the_watcher(
    own_redis: OwnRedis, start: Callable, tmp_path: Path, how: str
) -> None:
    go = tmp_path / "go"
    job = own_redis.queue.enqueue(sample_jobs.wait_for_file_and_grow, str(go))
    worker = start("--memory", "128", "--with-scheduler")
    begin(go)
    if how == "stopped":
        os.kill(own_redis.server.pid, signal.SIGSTOP)
    else:
        own_redis.kill()
    worker.process.terminate()
    go.touch()
    try:
        wait_until(lambda: Path(f"{go}.begun").exists() and _has_no_large_child(worker.pid))
    finally:
        if how == "stopped":
            os.kill(own_redis.server.pid, signal.SIGCONT)
        else:
            own_redis.start_again()
    log = worker.finish()
    assert worker.process.returncode == 0, log
    assert outcome(own_redis, job).get_status() == JobStatus.FAILED, log
    [breach] = execution_reader.breaches(own_redis.connection, job.id)
    assert breach.peak_mb < 128 + 40
    assert breach.layer in ("watch", "kernel"), "no kill by a watcher that came too late"
    assert own_redis.connection.hget(f"rq:worker:{breach.worker}", "shutdown_requested_date")


def _has_no_large_child(pid: int) -> bool:
    """Whether what grew has been freed: the job has unwound."""
    from rqmem.measure import process_tree, procfs

    rollups = [procfs.read_usage(child) for child in process_tree.descendants(pid)]
    return bool(rollups) and all(rollup is None or rollup.usage_bytes < 100 * 2**20 for rollup in rollups)


def test_chunks_that_finish_without_redis_are_saved_once(own_redis: OwnRedis, start: Callable, tmp_path: Path) -> None:
    go = tmp_path / "go"
    job = sample_jobs.WaitsInItsChunks.enqueue(own_redis.queue, path=str(go))
    worker = start("--burst")
    begin(go)
    own_redis.kill()
    go.touch()
    own_redis.start_again()
    log = worker.finish()
    assert outcome(own_redis, job).return_value() == list(range(6)), log
    assert Path(f"{go}.done").read_text().split() == [str(number) for number in range(6)]
    assert execution_reader.run(own_redis.connection, job.id).resumes == 0


def test_an_idle_worker_outlives_a_redis_that_goes(own_redis: OwnRedis, start: Callable) -> None:
    first = own_redis.queue.enqueue(sample_jobs.add, 1)
    worker = start("--max-jobs", "2")
    wait_until(lambda: outcome(own_redis, first).get_status() == JobStatus.FINISHED)
    own_redis.kill()  # wherever the worker is in its loop by now
    own_redis.start_again()
    second = own_redis.queue.enqueue(sample_jobs.add, 2)
    log = worker.finish()
    assert outcome(own_redis, second).return_value() == 3, log


def test_a_worker_whose_redis_is_gone_leaves_quietly(own_redis: OwnRedis, start: Callable) -> None:
    first = own_redis.queue.enqueue(sample_jobs.add, 1)
    worker = start()
    wait_until(lambda: outcome(own_redis, first).get_status() == JobStatus.FINISHED)
    own_redis.kill()
    log = worker.stop()
    assert worker.process.returncode == 0, log
    assert "Traceback" not in log


@pytest.fixture
def taken(connection: Redis) -> tuple[MemoryWorker, Queue, Job, Execution]:
    """A job that a worker in this process has begun."""
    queue = Queue("jobs", connection=connection)
    worker = MemoryWorker([queue], connection=connection, config=Config())
    job = queue.enqueue(sample_jobs.add, 1)
    queue.dequeue_any([queue], None, connection=connection)
    execution = worker.prepare_execution(job)
    worker.prepare_job_execution(job)
    return worker, queue, job, execution


def test_who_was_taken_over_commits_nothing(taken: tuple[MemoryWorker, Queue, Job, Execution]) -> None:
    worker, queue, job, execution = taken
    assert executions.requeue(job, queue, execution, None, 0, cost=0)
    another = MemoryWorker([queue], connection=queue.connection, config=Config(), name="another")
    theirs = another.prepare_execution(job)
    another.prepare_job_execution(job)
    with pytest.raises(RunTakenOver, match="somebody else took this run over"):
        worker._finalize_success(job, queue, execution, 1)
    worker.handle_job_failure(job, queue, exc_string="late", execution=execution)
    assert job.get_status() == JobStatus.STARTED
    assert not job.results()
    another._finalize_success(job, queue, theirs, 2)
    assert job.return_value(refresh=True) == 2


def test_taken_over_between_the_look_and_the_commit(taken: tuple[MemoryWorker, Queue, Job, Execution]) -> None:
    worker, queue, job, execution = taken
    increment = worker.increment_successful_job_count

    def taken_over_now(pipeline: object = None) -> None:
        executions.requeue(job, queue, execution, None, 0, cost=0)
        increment(pipeline)

    worker.increment_successful_job_count = taken_over_now  # type: ignore[method-assign]
    with pytest.raises(RunTakenOver):
        worker._finalize_success(job, queue, execution, 1)
    assert job.get_status() == JobStatus.QUEUED
    assert not job.results()


def test_a_job_that_maintenance_gave_up_too_soon_is_finished_and_no_failure(
    taken: tuple[MemoryWorker, Queue, Job, Execution],
) -> None:
    worker, queue, job, execution = taken
    queue.connection.zadd(queue.started_job_registry.key, {execution.composite_key: 1})
    queue.started_job_registry.cleanup()
    assert job.get_status() == JobStatus.FAILED
    worker._finalize_success(job, queue, execution, 5)
    assert job.get_status() == JobStatus.FINISHED
    assert job.id not in queue.failed_job_registry
    assert job.id in queue.finished_job_registry
    assert not queue.connection.exists(keys.RUNNING)


@pytest.mark.parametrize("plain", [True, False], ids=["by our script", "by RQ's method"])
def test_a_commit_whose_reply_was_lost_is_done_once(
    taken: tuple[MemoryWorker, Queue, Job, Execution], monkeypatch: pytest.MonkeyPatch, plain: bool
) -> None:
    from rqmem.store.guarded import GuardedPipeline
    from rqmem.worker import successes

    worker, queue, job, execution = taken
    execute, commit, lost = GuardedPipeline.execute, successes.commit, []
    if not plain:
        job.result_ttl = -1

    def lose() -> None:
        lost.append(plain)
        raise LostConnection("the reply was lost")

    def done_by_rq(self: GuardedPipeline, raise_on_error: bool = True) -> list[object]:
        commits = self.explicit_transaction and len(self.command_stack) > 5
        results = execute(self, raise_on_error)
        if commits and not lost:
            lose()
        return results

    def done_by_script(*arguments: Any) -> None:
        commit(*arguments)
        if not lost:
            lose()

    monkeypatch.setattr(GuardedPipeline, "execute", done_by_rq)
    monkeypatch.setattr(successes, "commit", done_by_script)
    worker._finalize_success(job, queue, execution, 5)
    assert lost == [plain]
    assert job.return_value(refresh=True) == 5
    assert len(job.results()) == 1
    assert int(queue.connection.hget(worker.key, "successful_job_count")) == 1


def test_a_chunk_whose_reply_was_lost_is_saved_once(taken: tuple[MemoryWorker, Queue, Job, Execution]) -> None:
    _, queue, job, execution = taken
    runs = executions.RunWriter(queue.connection, job.id, execution.id)
    for _ in range(2):
        runs.save_chunks(0, 9, 10, 1, b"results", 10, "{}")
    record = execution_reader.run(queue.connection, job.id)
    assert (record.items, record.chunks, record.cursors) == ({0: 10}, 1, {0: 9})
    assert execution_reader.results(queue.connection, job.id, 0) == [b"results"]


class SwallowsOnce(logging.Handler):
    """What `logging` does with an exception that a signal handler raises while a line is written."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.pid = pid

    def emit(self, record: logging.LogRecord) -> None:
        if "Redis does not answer" in record.getMessage() and self.pid != 0:
            pid, self.pid = self.pid, 0
            with contextlib.suppress(Exception):
                os.kill(pid, signal.SIGTERM)
                time.sleep(0.05)


def test_a_stop_request_that_logging_swallowed_is_not_lost(own_redis: OwnRedis) -> None:
    worker = MemoryWorker(["jobs"], connection=own_redis.connection, config=Config())
    handler = SwallowsOnce(os.getpid())
    logger = logging.getLogger("rqmem.redis")
    logger.addHandler(handler)

    def kill_while_it_waits_for_a_job() -> None:
        beside = own_redis.connection
        wait_until(lambda: any(each["cmd"].startswith("bl") for each in beside.client_list()))
        os.kill(own_redis.server.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_while_it_waits_for_a_job)
    killer.start()
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        worker.work()
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
        logger.removeHandler(handler)
        killer.join()
    assert handler.pid == 0


def test_a_worker_told_to_stop_does_not_wait_for_a_redis_that_hangs(own_redis: OwnRedis, start: Callable) -> None:
    worker = start()
    wait_until(lambda: any(b"idle" in (own_redis.connection.hget(key, "state") or b"")
                           for key in own_redis.connection.scan_iter("rq:worker:*")))  # fmt: skip
    os.kill(own_redis.server.pid, signal.SIGSTOP)
    try:
        worker.process.send_signal(signal.SIGTERM)
        log = worker.finish(120)  # it was seven minutes
    finally:
        os.kill(own_redis.server.pid, signal.SIGCONT)
    assert worker.process.returncode == 0, log
    assert "could not sign off" in log
