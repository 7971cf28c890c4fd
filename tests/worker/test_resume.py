"""Going on after a breach, a lost horse, a lost worker: nothing finished is done again, nothing is lost."""

from __future__ import annotations

import dataclasses

import pytest
from redis import Redis
from rq import Callback, Queue, Repeat
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import StartedJobRegistry

from rqmem.errors import RqmemError
from rqmem.job import tree
from rqmem.store import codec, execution_reader, executions, keys
from rqmem.store.execution_records import Owner
from rqmem.store.history import history_reader
from rqmem.testing import wait_until
from tests import sample_jobs
from tests.conftest import StartWorker, WorkOff, wait_for_key

QUICK = {"RQMEM_HEARTBEAT": "0.5"}


def texts(connection: Redis, key: str) -> list[str]:
    return [raw.decode() for raw in connection.lrange(key, 0, -1)]


def test_a_breach_halves_the_chunk_and_goes_on_from_the_last_finished_one(connection: Redis, work_off: WorkOff) -> None:
    # 8 heavy items of 20 MB are too much for 128 MB, 4 are not; the first 16 items weigh nothing.
    job = sample_jobs.Squares.enqueue("jobs", count=32, item_mb=20, heavy_from=16, connection=connection)
    log = work_off("jobs", "--memory", "128", "--reserve", "256")  # it is told in time, and not killed
    assert job.return_value() == [number * number for number in range(32)], log
    assert texts(connection, "chunks") == ["0-7", "8-15", "16-19", "20-23", "24-27", "28-31"]
    run = execution_reader.run(connection, job.id)
    assert (run.resumes, run.breaches, run.chunks) == (1, 1, 6)
    [breach] = execution_reader.breaches(connection, job.id)
    assert breach.operation == "items 17-24"
    assert breach.next == "goes on from cursor 16 with chunk size 4 (resume 1, 1 of 30 spent)"
    assert breach.summary() in log


def test_a_resume_is_no_failure_for_rq(connection: Redis, work_off: WorkOff) -> None:
    job = sample_jobs.Squares.enqueue(
        "jobs",
        count=16,
        item_mb=20,
        on_failure=Callback(sample_jobs.remember_failure),
        connection=connection,
    )
    work_off("jobs", "--memory", "128")
    assert job.get_status() == JobStatus.FINISHED
    assert len(job.results()) == 1
    assert job.failed_job_registry.count == 0
    assert not connection.exists("failures")
    assert not connection.exists(keys.RUNNING)
    assert StartedJobRegistry("jobs", connection=connection).count == 0


def test_one_item_that_does_not_fit_alone_ends_it_with_its_position(connection: Redis, work_off: WorkOff) -> None:
    job = sample_jobs.Stubborn.enqueue("jobs", count=12, culprit=6, connection=connection)
    log = work_off("jobs", "--memory", "128")
    assert job.get_status() == JobStatus.FAILED
    assert "at 'item 7'" in (job.latest_result().exc_string or "")
    assert (
        "not resumed: a chunk of one item (item 7) does not fit alone below the ceiling: raise it, or use less" in log
    )
    assert texts(connection, "sizes") == ["4", "2", "1", "1", "1"][: len(texts(connection, "sizes"))]


def test_a_job_without_chunks_is_not_repeated(connection: Redis, work_off: WorkOff) -> None:
    job = sample_jobs.ResumesNothing.enqueue("jobs", connection=connection)
    log = work_off("jobs", "--memory", "128")
    assert job.get_status() == JobStatus.FAILED
    assert len(execution_reader.breaches(connection, job.id)) == 1
    assert "not resumed: it had not begun process_in_chunks" in log


def test_a_generator_is_refused_before_anything_is_done(connection: Redis, work_off: WorkOff) -> None:
    job = sample_jobs.FromGenerator.enqueue("jobs", connection=connection)
    log = work_off("jobs")
    assert job.get_status() == JobStatus.FAILED
    assert "SourceError: a generator can be read only once" in log
    assert "Traceback" not in log


def test_results_that_cannot_be_saved_are_a_clear_error(connection: Redis, work_off: WorkOff) -> None:
    job = sample_jobs.UnsavableResults.enqueue("jobs", connection=connection)
    log = work_off("jobs")
    assert job.get_status() == JobStatus.FAILED
    assert "SourceError: what the processor returned cannot be saved for a resume" in log
    assert "collect=False" in log


@pytest.mark.parametrize("times", [1, 3])
def test_a_killed_worker_is_replaced_and_every_item_is_done(
    connection: Redis, start_worker: StartWorker, times: int
) -> None:
    job = sample_jobs.Slow.enqueue("jobs", count=24, seconds=0.05, connection=connection)
    for kill in range(1, times + 1):
        worker = start_worker("jobs", **QUICK)
        wait_until(lambda: connection.llen("done") >= 4 * kill)  # noqa: B023
        worker.kill()
    last = start_worker("jobs", **QUICK)
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    log = last.stop()
    done = [int(number) for number in connection.lrange("done", 0, -1)]
    assert sorted(set(done)) == list(range(24))
    assert len(done) <= 24 + 2 * times, "only the chunk in flight may be done again"
    assert job.return_value() == 24
    assert "is lost; it was running tests.sample_jobs.Slow" in log
    assert 1 <= execution_reader.run(connection, job.id).resumes <= times, "one may be killed before it took the job"


def test_what_is_cancelled_while_its_worker_is_dead_is_not_resumed(
    connection: Redis, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "_STOP_SECONDS", 0.2)
    job = sample_jobs.Slow.enqueue("jobs", count=24, seconds=0.05, connection=connection)
    worker = start_worker("jobs", **QUICK)
    wait_until(lambda: connection.llen("done") >= 4)
    worker.kill()
    done = connection.llen("done")
    assert tree.cancel(connection, job.id) == tree.Cancelled(taken_back=1)
    start_worker("jobs", **QUICK)
    wait_until(lambda: execution_reader.owner(connection, job.id) is None)
    after = sample_jobs.Slow.enqueue("jobs", count=1, seconds=0, connection=connection)
    wait_until(lambda: after.get_status() == JobStatus.FINISHED)
    assert job.get_status() == JobStatus.CANCELED
    assert connection.llen("done") == done + 1
    with pytest.raises(RqmemError, match="is canceled already"):
        tree.cancel(connection, job.id)


def test_a_living_survivor_takes_over(connection: Redis, start_worker: StartWorker) -> None:
    survivor = start_worker("other", "jobs", **QUICK)
    wait_until(lambda: connection.smembers("rq:workers"))
    victim = start_worker("jobs", "--name", "victim", **QUICK)
    wait_until(lambda: connection.scard("rq:workers") == 2)
    busy = sample_jobs.Slow.enqueue("other", count=2, seconds=3, connection=connection)
    wait_until(lambda: busy.get_status() == JobStatus.STARTED)
    job = sample_jobs.Slow.enqueue("jobs", count=40, seconds=0.1, connection=connection)
    wait_until(lambda: connection.llen("done") >= 4)
    assert connection.hget(job.key, "worker_name") == b"victim"
    victim.kill()
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    done = [int(number) for number in connection.lrange("done", 0, -1)]
    assert set(done) == set(range(40))
    assert "worker victim is lost" in survivor.stop()


def test_a_run_that_rqs_maintenance_failed_as_abandoned_goes_on(connection: Redis, start_worker: StartWorker) -> None:
    job = sample_jobs.Slow.enqueue("jobs", count=12, seconds=0.05, connection=connection)
    worker = start_worker("jobs", **QUICK)
    wait_until(lambda: connection.llen("done") >= 2)
    worker.kill()
    registry = StartedJobRegistry("jobs", connection=connection)
    for member, _ in connection.zscan_iter(registry.key):
        connection.zadd(registry.key, {member: 1})  # its time is over
    registry.cleanup()
    assert job.get_status() == JobStatus.FAILED
    last = start_worker("jobs", **QUICK)
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    last.kill()
    assert job.failed_job_registry.count == 0
    assert set(connection.lrange("done", 0, -1)) == {str(n).encode() for n in range(12)}


def test_a_job_taken_and_never_begun_is_put_back(connection: Redis, start_worker: StartWorker) -> None:
    job = sample_jobs.Plain.enqueue(number=1, connection=connection)
    connection.lmove("rq:queue:plain", "rq:queue:plain:intermediate")  # and its worker died
    worker = start_worker("plain", **QUICK)
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    worker.kill()
    assert connection.llen("rq:queue:plain:intermediate") == 0


def test_an_execution_that_lost_its_job_writes_nothing_more(connection: Redis, start_worker: StartWorker) -> None:
    job = sample_jobs.Slow.enqueue("jobs", count=40, seconds=0.1, connection=connection)
    worker = start_worker("jobs", "--burst")
    wait_until(lambda: connection.llen("done") >= 2)
    connection.hset(keys.RUNNING, job.id, '{"execution": "another"}')
    log = worker.finish()
    assert "another worker took this run over" in log
    assert job.get_status() == JobStatus.STARTED, "the verdict is the new owner's"
    assert connection.llen("done") < 40
    assert not connection.exists("rq:wip:jobs"), "or RQ's maintenance takes the new owner's run for abandoned"


@pytest.mark.parametrize("job_timeout", [60, 1], ids=["ends well", "fails"])
def test_an_execution_that_lost_a_plain_job_is_not_started_any_more(
    connection: Redis, start_worker: StartWorker, job_timeout: int
) -> None:
    job = Queue("jobs", connection=connection).enqueue(sample_jobs.say_hello_and_sleep, 2, job_timeout=job_timeout)
    worker = start_worker("jobs", "--burst")
    wait_for_key(connection, "asleep")
    other = Owner("another", worker="elsewhere", queue="jobs", host="elsewhere", pid=1, start_time=1)
    connection.hset(keys.RUNNING, job.id, codec.to_json(other))  # as a second job of this id, begun there, would
    worker.finish()
    assert job.get_status() == JobStatus.STARTED
    assert not connection.keys("rq:wip:jobs") + connection.keys("rq:execution*")


def test_a_crash_loop_ends_after_its_budget_with_its_history(connection: Redis, start_worker: StartWorker) -> None:
    job = sample_jobs.Crashes.enqueue("jobs", count=16, connection=connection)
    worker = start_worker("jobs", RQMEM_MAX_RESUMES="4", **QUICK)
    wait_until(lambda: job.get_status() == JobStatus.FAILED)
    log = worker.stop()
    assert texts(connection, "sizes") == ["8", "4", "2"]
    assert "goes on from the beginning with chunk size 4 (resume 1, 2 of 4 spent) after horse lost" in log
    assert "goes on in 1 s from the beginning with chunk size 2 (resume 2, 4 of 4 spent) after horse lost" in log
    error = job.latest_result().exc_string or ""
    assert "HorseLost: " in error and "not resumed: its budget of 4 resumes is spent" in error
    assert (
        "earlier runs ended with horse lost at items 1-8, chunk size 8; horse lost at items 1-4, chunk size 4" in error
    )
    assert not connection.exists(keys.DELAYED, "rq:scheduled:jobs", keys.RUNNING)
    assert execution_reader.run(connection, job.id).resumes_spent == 0, "who requeues it by hand gives it a new budget"


@pytest.mark.parametrize("meanwhile", ["nothing", "canceled", "deleted", "moved by RQ's scheduler", "moved twice"])
def test_a_delayed_resume_is_put_into_its_queue_once_when_it_is_due(connection: Redis, meanwhile: str) -> None:
    job, owner = run_owned_elsewhere(connection)
    execution = Execution(owner.execution, job.id, connection, owner.worker)
    queue = Queue("jobs", connection=connection)
    assert executions.requeue(job, queue, execution, 0, 1, cost=2, history=["a", "b"], delay_seconds=100)
    assert (job.get_status(), queue.job_ids, queue.scheduled_job_registry.get_job_ids()) == ("scheduled", [], [job.id])
    assert execution_reader.run(connection, job.id).history == ("a", "b")
    executions.release_due(connection, Job, Queue)
    assert queue.job_ids == [], "not yet due"
    if meanwhile == "canceled":
        job.cancel()
    elif meanwhile == "deleted":
        job.delete()
    elif meanwhile == "moved by RQ's scheduler":
        queue.scheduled_job_registry.remove(job)
        queue.enqueue_job(job)
    connection.zadd(keys.DELAYED, {job.id: 1})
    executions.release_due(connection, Job, Queue)
    if meanwhile == "moved twice":
        connection.zadd(keys.DELAYED, {job.id: 1})
        executions.release_due(connection, Job, Queue)
    assert queue.job_ids == ([] if meanwhile in ("canceled", "deleted") else [job.id])
    assert not connection.exists(keys.DELAYED)
    assert queue.scheduled_job_registry.count == 0


def run_owned_elsewhere(connection: Redis) -> tuple[Job, Owner]:
    """A run of a worker on another machine, as its Redis records look in the middle of the job."""
    job = sample_jobs.Slow.enqueue("jobs", count=4, seconds=0, connection=connection)
    connection.lpop("rq:queue:jobs")
    owner = Owner("abcd", "far-away", "jobs", host="another machine", pid=1, start_time=1)
    connection.hset(job.key, "status", "started")
    connection.zadd("rq:wip:jobs", {f"{job.id}:abcd": 2**40})
    connection.hset(keys.RUNNING, job.id, codec.to_json(owner))
    connection.hset(
        keys.run(job.id), mapping={"on_breach": "resume", "stage": 0, "cursor:0": 2, "items:0": 2, "chunk_size:0": 2}
    )
    return job, owner


def test_a_run_of_a_dead_worker_elsewhere_is_taken_over_from_its_cursor(
    connection: Redis, start_worker: StartWorker
) -> None:
    job, _ = run_owned_elsewhere(connection)
    worker = start_worker("jobs", **QUICK)
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    worker.kill()
    assert texts(connection, "done") == ["2", "3"]


def test_a_run_of_a_living_worker_elsewhere_is_left_alone(connection: Redis, start_worker: StartWorker) -> None:
    job, owner = run_owned_elsewhere(connection)
    connection.set(keys.alive(owner.worker), "1", ex=60)
    other = sample_jobs.Slow.enqueue("jobs", count=10, seconds=0.5, connection=connection)
    worker = start_worker("jobs", "--burst", **QUICK)
    worker.finish()
    assert other.get_status() == JobStatus.FINISHED
    assert job.get_status() == JobStatus.STARTED
    assert execution_reader.owner(connection, job.id) == owner


def test_two_survivors_take_a_run_over_once(connection: Redis) -> None:
    job, owner = run_owned_elsewhere(connection)
    execution = Execution(owner.execution, job.id, connection, owner.worker)
    queue = Queue("jobs", connection=connection)
    assert [executions.requeue(job, queue, execution, 0, 1, cost=1) for _ in range(2)] == [True, False]
    assert queue.job_ids == [job.id]
    assert execution_reader.run(connection, job.id).resumes == 1


def test_a_dead_owner_is_not_forgotten_over_a_new_one(connection: Redis) -> None:
    job, dead = run_owned_elsewhere(connection)
    new = dataclasses.replace(dead, execution="new", worker="another")
    connection.hset(keys.RUNNING, job.id, codec.to_json(new))
    assert not executions.release_if(connection, job.id, dead)
    assert execution_reader.owner(connection, job.id) == new
    assert executions.release_if(connection, job.id, new)


@pytest.mark.parametrize("status", ["finished", "canceled", "stopped"])
def test_a_run_that_somebody_ended_meanwhile_is_not_revived(connection: Redis, status: str) -> None:
    job, owner = run_owned_elsewhere(connection)
    connection.hset(job.key, "status", status)
    execution = Execution(owner.execution, job.id, connection, owner.worker)
    queue = Queue("jobs", connection=connection)
    assert not executions.requeue(job, queue, execution, 0, 1, cost=1)
    assert queue.job_ids == []
    assert job.get_status() == status


def test_stages_are_resumed_each_on_its_own(connection: Redis, work_off: WorkOff) -> None:
    job = sample_jobs.Twice.enqueue("jobs", connection=connection)
    work_off("jobs")
    assert job.return_value() == [[0, 1, 2, 3], [10, 11, 12, 13, 14, 15]]
    assert texts(connection, "first") == ["0", "1", "2", "3"]
    assert texts(connection, "second") == ["10", "11", "12", "13", "14", "15"]


def test_chunks_within_a_chunk_are_no_stages_of_their_own(connection: Redis, work_off: WorkOff) -> None:
    job = sample_jobs.Nested.enqueue("jobs", tables=3, rows=5, connection=connection)
    work_off("jobs")
    assert job.return_value() == [f"{table}.{row}" for table in range(3) for row in range(5)]


def test_a_new_job_with_an_old_id_begins_anew(connection: Redis, work_off: WorkOff) -> None:
    for _ in range(2):
        job = sample_jobs.Squares.enqueue("jobs", count=16, job_id="nightly", connection=connection)
        work_off("jobs")
        assert job.return_value() == [number * number for number in range(16)]
    assert texts(connection, "chunks") == ["0-7", "8-15"] * 2
    assert execution_reader.run(connection, "nightly").chunks == 2


def test_what_a_run_kept_goes_with_its_result(connection: Redis, work_off: WorkOff) -> None:
    job = sample_jobs.Squares.enqueue("jobs", count=16, result_ttl=60, connection=connection)
    gone = sample_jobs.Squares.enqueue("jobs", count=16, result_ttl=0, connection=connection)
    work_off("jobs")
    assert not connection.exists(keys.results(job.id), keys.results(gone.id), keys.run(gone.id))
    assert 0 < connection.ttl(keys.run(job.id)) <= 60


def test_a_failed_job_that_somebody_requeues_goes_on_from_its_cursor(connection: Redis, work_off: WorkOff) -> None:
    job = sample_jobs.Squares.enqueue("jobs", count=16, item_mb=300, heavy_from=8, connection=connection)
    work_off("jobs", "--memory", "128")
    assert job.get_status() == JobStatus.FAILED
    job.requeue()
    work_off("jobs", "--memory", "700")
    assert job.return_value() == [number * number for number in range(16)]
    assert texts(connection, "chunks")[0] == "0-7"
    assert texts(connection, "chunks").count("0-7") == 1


def test_a_cold_shutdown_leaves_nothing_and_the_job_goes_on_elsewhere(
    connection: Redis, start_worker: StartWorker
) -> None:
    job = sample_jobs.Slow.enqueue("jobs", count=4, seconds=3, connection=connection)
    worker = start_worker("jobs", **QUICK)
    wait_until(lambda: job.get_status() == JobStatus.STARTED)
    worker.process.terminate()
    wait_until(lambda: connection.hexists(f"rq:worker:{worker_name(connection)}", "shutdown_requested_date"))
    wait_until(lambda: worker.process.poll() is not None or worker.process.terminate())  # RQ ignores one within 1 s
    assert "cold shut down" in worker.finish()
    start_worker("jobs", **QUICK)
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    assert {int(number) for number in texts(connection, "done")} == set(range(4))


def test_a_worker_that_is_asked_to_stop_hands_its_job_over(connection: Redis, start_worker: StartWorker) -> None:
    job = sample_jobs.Slow.enqueue("jobs", count=40, seconds=0.1, connection=connection)
    waiting = sample_jobs.Plain.enqueue("jobs", number=1, connection=connection)
    worker = start_worker("jobs", **QUICK)
    wait_until(lambda: connection.llen("done") >= 4)
    log = worker.stop()
    assert worker.process.returncode == 0, log
    done = connection.llen("done")
    assert 4 <= done < 40 and "after planned stop" in log
    assert job.get_status() == JobStatus.QUEUED
    assert Queue("jobs", connection=connection).job_ids == [job.id, waiting.id], "it goes on first"
    assert connection.hlen(keys.RUNNING) == 0 and job.get_executions() == []
    kept = keys.run(job.id), keys.results(job.id)
    assert min(map(connection.ttl, kept)) > keys.KEEP_SECONDS, "it may wait longer than a run is kept"
    start_worker("jobs", "--burst", **QUICK).finish()
    assert job.get_status() == JobStatus.FINISHED
    assert texts(connection, "done") == [str(number) for number in range(40)], "nothing is done twice"
    assert execution_reader.run(connection, job.id).resumes == 0, "it costs nothing"
    runs = history_reader.runs(connection, "tests.sample_jobs.Slow")
    assert [(run.outcome, run.resumed) for run in runs] == [("ok", False), ("PlannedStop", True)]


def test_a_job_that_cannot_go_on_is_waited_for(connection: Redis, start_worker: StartWorker) -> None:
    job = Queue("jobs", connection=connection).enqueue("tests.sample_jobs.say_hello_and_sleep", 1.5)
    worker = start_worker("jobs", **QUICK)
    wait_for_key(connection, "asleep")
    worker.stop()
    assert job.get_status() == JobStatus.FINISHED


def test_the_generator_form_goes_on_where_it_was(connection: Redis, work_off: WorkOff) -> None:
    job = sample_jobs.Generated.enqueue("jobs", count=30, killed_at=11, connection=connection)
    work_off("jobs", **QUICK)
    assert job.get_status() == JobStatus.FINISHED
    numbers = [int(text) for text in texts(connection, "done")]
    assert sorted(set(numbers)) == list(range(30))
    assert execution_reader.run(connection, job.id).resumes == 1
    repeated = [number for number in set(numbers) if numbers.count(number) > 1]
    assert len(repeated) <= 3 * 4, "the chunk in flight, and what was finished within 20 ms"


def test_chunks_grow_while_there_is_room_and_shrink_before_the_ceiling(connection: Redis, work_off: WorkOff) -> None:
    job = sample_jobs.Growing.enqueue("jobs", count=3000, connection=connection)
    work_off("jobs", "--memory", "256")
    sizes = job.return_value()
    assert sum(sizes) == 3000
    assert sizes[0] == 10 and max(sizes) >= 80, "light items: larger chunks"
    heavy = sizes[-3:]
    assert max(heavy) < max(sizes), "heavy ones: smaller again"
    assert execution_reader.run(connection, job.id).breaches <= 1


def worker_name(connection: Redis) -> str:
    [key] = connection.smembers("rq:workers")
    return key.decode().removeprefix("rq:worker:")


def test_a_job_called_by_anothers_code_is_part_of_it(connection: Redis, work_off: WorkOff) -> None:
    job = sample_jobs.CallsAnother.enqueue("jobs", connection=connection)
    log = work_off("jobs", "--memory", "512")
    sums = [sum(n * n for n in range(3 + number)) for number in range(4)]
    assert job.return_value() == [value for total in sums for value in (total, 200.0)], log
    assert execution_reader.run(connection, job.id).job == "tests.sample_jobs.CallsAnother"
    assert execution_reader.run(connection, job.id).resumes == 1


def test_a_new_job_with_the_id_of_a_failed_one_begins_anew(connection: Redis, work_off: WorkOff) -> None:
    failed = sample_jobs.Squares.enqueue(
        "jobs", count=16, item_mb=300, heavy_from=8, job_id="nightly", connection=connection
    )
    work_off("jobs", "--memory", "128")
    assert failed.get_status() == JobStatus.FAILED
    again = sample_jobs.Squares.enqueue("jobs", count=16, job_id="nightly", connection=connection)
    work_off("jobs", "--memory", "128")
    assert again.return_value() == [number * number for number in range(16)]
    assert texts(connection, "chunks")[-2:] == ["0-7", "8-15"]
    assert execution_reader.run(connection, "nightly").resumes == 0


def test_a_job_that_repeats_begins_anew_each_time(connection: Redis, work_off: WorkOff) -> None:
    job = sample_jobs.Squares.enqueue("jobs", count=16, repeat=Repeat(times=1), connection=connection)
    log = work_off("jobs")
    assert texts(connection, "chunks") == 2 * ["0-7", "8-15"], log
    assert [result.return_value for result in job.results()] == 2 * [[number * number for number in range(16)]]
    assert execution_reader.run(connection, job.id).chunks == 2
