"""Workers that die: what they ran goes on or is ended, before others say that there is nothing to do."""

from __future__ import annotations

import time

import pytest
from redis import Redis
from rq import Callback, Queue, Retry
from rq.command import send_shutdown_command
from rq.executions import Execution
from rq.job import Dependency, Job, JobStatus
from rq.worker import Worker

from rqmem.observe.job_read import read_case
from rqmem.observe.next_step import outlook
from rqmem.store import codec, execution_reader, executions, keys
from rqmem.testing import wait_until
from rqmem.worker.memory_worker import MemoryWorker
from rqmem.worker.takeover import Recovery
from tests import sample_jobs, takeover_jobs
from tests.conftest import StartWorker, WorkerProcess, WorkOff
from tests.lease.driver import Lease, ids
from tests.worker.test_resume import run_owned_elsewhere

QUICK = {"RQMEM_HEARTBEAT": "0.5"}
CALLBACK = Callback(takeover_jobs.remember_abandoned)


def killed_in(connection: Redis, start_worker: StartWorker, *options: str, began: int = 1) -> WorkerProcess:
    """A worker that was killed while it ran a job which says that it has begun."""
    worker = start_worker("jobs", *options)
    wait_until(lambda: connection.llen("began") >= began)
    worker.kill()
    return worker


def no_trace_of_a_run(connection: Redis, job: Job, worker: str) -> bool:
    started = connection.zcard("rq:wip:jobs") + connection.exists(f"rq:executions:{job.id}")
    return not (
        started or connection.hexists(keys.RUNNING, job.id) or connection.exists(f"rq:worker:{worker}:executions")
    )


# A worker that ends when there is nothing to do


def test_a_burst_worker_finishes_what_a_killed_one_left(connection: Redis, start_worker: StartWorker) -> None:
    job = sample_jobs.Slow.enqueue("jobs", count=12, seconds=0.05, connection=connection)
    worker = start_worker("jobs")
    wait_until(lambda: connection.llen("done") >= 2)
    worker.kill()
    start_worker("jobs", "--burst").finish()
    assert job.get_status() == JobStatus.FINISHED
    assert connection.llen("done") <= 14


def test_a_burst_worker_runs_what_a_killed_one_had_taken_and_not_begun(connection: Redis, work_off: WorkOff) -> None:
    queue = Queue("jobs", connection=connection)
    job = queue.enqueue("time.time")
    connection.lmove(queue.key, queue.intermediate_queue_key)  # and its worker died
    work_off("jobs", **QUICK)
    assert job.get_status() == JobStatus.FINISHED


def test_what_a_living_worker_has_just_taken_is_not_put_back_since_a_lease_had_it_before(connection: Redis) -> None:
    queue, worker = Queue("jobs", connection=connection), MemoryWorker(["jobs"], connection=connection)
    queue.enqueue("time.time", job_id="a")
    recovery = Recovery(worker, connection, worker.config, worker._heart._settler)
    lease = Lease(connection)
    assert ids(lease.take(queues=["jobs"])) == ["a"]
    recovery.scan(0.0)
    assert lease.give_back() == 1
    connection.lmove(queue.key, queue.intermediate_queue_key)
    recovery.scan(1000.0)
    assert (queue.job_ids, recovery.due_back) == ([], 1)
    recovery.taken_here = "a"  # by the worker that scans: it has not to wait for itself
    recovery.scan(1000.0)
    assert (queue.job_ids, recovery.due_back) == ([], 0)
    recovery.scan(2000.0)
    assert (queue.job_ids, recovery.due_back) == (["a"], 0)
    lease.link.close()


@pytest.mark.parametrize("ending", [["--burst"], ["--max-idle-time", "1"]], ids=["burst", "max idle time"])
def test_a_run_that_may_be_lost_is_waited_for(connection: Redis, start_worker: StartWorker, ending: list[str]) -> None:
    job, _ = run_owned_elsewhere(connection)
    worker = start_worker("jobs", *ending, RQMEM_HEARTBEAT="1.5")
    worker.finish()
    assert (job.get_status(), worker.process.returncode) == (JobStatus.FINISHED, 0)


def test_a_run_that_goes_on_after_a_while_is_waited_for(connection: Redis, work_off: WorkOff) -> None:
    job, owner = run_owned_elsewhere(connection)
    elsewhere = sample_jobs.Slow.enqueue("another", count=1, seconds=0, connection=connection)
    connection.zadd(keys.DELAYED, {elsewhere.id: time.time() + 3600})
    execution = Execution(owner.execution, job.id, connection, owner.worker)
    assert executions.requeue(job, Queue("jobs", connection=connection), execution, 0, 1, cost=2, delay_seconds=2.5)
    work_off("jobs", **QUICK)
    assert job.get_status() == JobStatus.FINISHED


def test_a_retry_that_waits_is_left_to_the_scheduler_as_in_rq(connection: Redis, work_off: WorkOff) -> None:
    queue = Queue("jobs", connection=connection)
    job = queue.enqueue("tests.sample_jobs.raise_error", retry=Retry(1, interval=3600))
    work_off("jobs", **QUICK)
    assert job.get_status() == JobStatus.SCHEDULED


def test_what_a_dead_worker_left_is_the_first_job_of_the_next(connection: Redis, start_worker: StartWorker) -> None:
    job, _ = run_owned_elsewhere(connection)
    owner = execution_reader.owner(connection, job.id)
    assert owner is not None
    dead = WorkerProcess(["true"], {}, None)  # type: ignore[arg-type]
    dead.finish()
    connection.hset(keys.RUNNING, job.id, dead_here(dead.pid, owner.execution))
    waiting = sample_jobs.Plain.enqueue("jobs", number=1, connection=connection)
    log = start_worker("jobs", "--max-jobs", "1").finish()
    assert (job.get_status(), waiting.get_status()) == (JobStatus.FINISHED, JobStatus.QUEUED), log


def test_a_burst_worker_that_is_told_to_stop_does_not_wait(connection: Redis, start_worker: StartWorker) -> None:
    run_owned_elsewhere(connection)
    worker = start_worker("jobs", "--burst", RQMEM_HEARTBEAT="300")
    wait_until(lambda: Worker.count(connection) == 1)
    [name] = [key.rpartition(":")[2] for key in Worker.all_keys(connection)]
    wait_until(lambda: connection.pubsub_numsub(f"rq:pubsub:{name}")[0][1] == 1)
    send_shutdown_command(connection, name)
    worker.finish()


def test_a_job_that_waits_does_not_run_too(connection: Redis, start_worker: StartWorker) -> None:
    """The worker's own word is up to two heartbeats old."""
    job = sample_jobs.Slow.enqueue("jobs", count=12, seconds=0.2, connection=connection)
    worker = start_worker("jobs", "--name", "dead", RQMEM_HEARTBEAT="30")
    wait_until(lambda: (case := read_case(connection, job.id, time.time())).live is not None and case.running)
    worker.kill()
    owner = execution_reader.owner(connection, job.id)
    assert owner is not None
    execution = Execution(owner.execution, job.id, connection, "dead")
    executions.requeue(job, Queue("jobs", connection=connection), execution, 0, 1, cost=1)
    case = read_case(connection, job.id, time.time())
    assert (case.status, case.running) == ("queued", False)
    assert "runs on" not in outlook(case)


# A job that cannot go on


@pytest.mark.parametrize("busy", [False, True], ids=["idle survivor", "busy survivor"])
def test_a_job_that_cannot_go_on_is_ended_at_once(connection: Redis, start_worker: StartWorker, busy: bool) -> None:
    queue = Queue("jobs", connection=connection)
    victim = start_worker("jobs", "--name", "victim", RQMEM_HEARTBEAT="300")  # nobody hears of it by its silence
    job = queue.enqueue(takeover_jobs.wait_for, "never", on_failure=CALLBACK)
    wait_until(lambda: connection.llen("began") == 1)
    other = Queue("other", connection=connection).enqueue(takeover_jobs.wait_for, "end of the other")
    if not busy:
        connection.set("end of the other", 1)
    start_worker("other", "jobs", "--name", "survivor")
    wait_until(lambda: connection.llen("began") == 2)
    after = queue.enqueue(sample_jobs.add, 1, depends_on=Dependency([job], allow_failure=True))
    victim.kill()
    wait_until(lambda: job.get_status() == JobStatus.FAILED)
    assert [text.decode() for text in connection.lrange("failures", 0, -1)] == [
        "AbandonedJobError: worker victim died while it ran the job, which is not run again by itself"
    ]
    wait_until(lambda: no_trace_of_a_run(connection, job, "victim"))
    assert [result.type.name for result in job.results()] == ["FAILED"]
    assert "AbandonedJobError" in (job.latest_result().exc_string or "")
    assert queue.failed_job_registry.get_job_ids() == [job.id]
    if busy:
        assert other.get_status() == JobStatus.STARTED
        connection.set("end of the other", 1)
    wait_until(lambda: other.get_status() == JobStatus.FINISHED)
    wait_until(lambda: after.get_status() == JobStatus.FINISHED)


def test_rqs_retry_applies_and_a_burst_worker_runs_it(connection: Redis, start_worker: StartWorker) -> None:
    queue = Queue("jobs", connection=connection)
    job = queue.enqueue(takeover_jobs.wait_for, "go on", retry=Retry(1))
    killed_in(connection, start_worker)
    connection.set("go on", 1)
    start_worker("jobs", "--burst").finish()
    assert job.get_status() == JobStatus.FINISHED
    assert connection.llen("began") == 2


@pytest.mark.parametrize("survivors", [1, 2])
def test_a_parent_gathers_when_a_childs_worker_was_killed(
    connection: Redis, start_worker: StartWorker, survivors: int
) -> None:
    parent = takeover_jobs.Waits.enqueue(connection=connection)
    killed_in(connection, start_worker)
    connection.set("go on", 1)
    others = [start_worker("jobs", "--burst") for _ in range(survivors)]
    for each in others:
        each.finish()
    wait_until(lambda: parent.get_status() == JobStatus.FINISHED)
    [error], results = parent.return_value()
    assert "AbandonedJobError: worker" in error
    assert results == ["go on"]


def test_two_survivors_end_a_job_once(connection: Redis, start_worker: StartWorker) -> None:
    queue = Queue("jobs", connection=connection)
    job = queue.enqueue(takeover_jobs.wait_for, "never", on_failure=CALLBACK)
    killed_in(connection, start_worker)
    for worker in [start_worker("jobs", "--burst") for _ in range(3)]:
        worker.finish()
    wait_until(lambda: job.get_status() == JobStatus.FAILED)
    assert connection.llen("failures") == 1
    assert len(job.results()) == 1


def test_what_is_ended_is_ended_again_where_that_was_cut_short(connection: Redis, start_worker: StartWorker) -> None:
    queue = Queue("jobs", connection=connection)
    job = queue.enqueue(takeover_jobs.wait_for, "never", on_failure=Callback(takeover_jobs.kill_who_settles))
    killed_in(connection, start_worker)
    start_worker("jobs", "--burst").finish()
    assert job.get_status() == JobStatus.FAILED
    assert connection.llen("failures") == 2
    assert connection.hlen(keys.RUNNING) == 0


def test_a_job_elsewhere_that_cannot_go_on_is_ended_after_two_heartbeats(connection: Redis, work_off: WorkOff) -> None:
    job, owner = run_owned_elsewhere(connection)
    connection.hset(keys.run(job.id), mapping={"on_breach": "fail", "job_created_at": job.created_at.isoformat()})
    work_off("jobs", **QUICK)
    assert job.get_status() == JobStatus.FAILED
    assert f"worker {owner.worker} died" in (job.latest_result().exc_string or "")


def test_a_cancelled_job_of_a_dead_worker_stays_cancelled(connection: Redis, start_worker: StartWorker) -> None:
    job = Queue("jobs", connection=connection).enqueue(takeover_jobs.wait_for, "never", on_failure=CALLBACK)
    killed_in(connection, start_worker, "--name", "victim")
    job.cancel()
    start_worker("jobs", "--burst").finish()
    assert job.get_status() == JobStatus.CANCELED
    assert no_trace_of_a_run(connection, job, "victim") and not connection.exists("failures")


def dead_here(pid: int, execution: str) -> str:
    from rqmem.measure.procfs import host_identity
    from rqmem.store.execution_records import Owner

    return codec.to_json(Owner(execution, "dead", "jobs", host_identity(), pid, 1))
