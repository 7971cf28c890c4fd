"""Leases: a warm horse takes short jobs by itself, and everything stays as if each had been ordered by itself."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
from redis import Redis
from rq import Callback, Queue
from rq.command import send_stop_job_command
from rq.job import Job, JobStatus
from rq.registry import StartedJobRegistry
from rq.suspension import resume, suspend
from rq.worker import Worker

from rqmem.measure.procfs import read_children
from rqmem.store import execution_reader, keys, pausing
from rqmem.store.history import history_reader
from rqmem.testing import wait_until
from tests import lease_jobs
from tests.conftest import StartCommand, StartWorker, WorkOff


@pytest.fixture
def start_worker(request: pytest.FixtureRequest, start_worker: StartWorker) -> StartWorker:
    """Workers with leases."""
    if request.config.getoption("--isolation") == "fork":
        pytest.skip("a horse for one job takes no lease")
    return lambda *options, **environ: start_worker(*options, **{"RQMEM_LEASE_MAX": "64", **environ})


def enqueue(queue: Queue, count: int, first: int = 0) -> list[Job]:
    return [queue.enqueue(lease_jobs.act, str(number)) for number in range(first, first + count)]


def ran(queue: Queue) -> list[str]:
    return [each.decode() for each in queue.connection.lrange("ran", 0, -1)]


def nothing_is_left(queue: Queue) -> None:
    """Of any lease or execution."""
    connection = queue.connection
    assert not queue.job_ids
    assert connection.llen(queue.intermediate_queue_key) == 0
    assert StartedJobRegistry(queue.name, connection=connection).get_job_and_execution_ids(cleanup=False) == []
    assert connection.hlen(keys.RUNNING) == 0
    assert connection.smembers(keys.LEASES) == set()
    assert list(connection.scan_iter("rqmem:taken:*")) + list(connection.scan_iter("rqmem:lease:*")) == []
    executions = connection.scan_iter("rq:execution:*")
    # A heartbeat of RQ that comes after the end writes its time, and nothing else, for some minutes.
    assert [key for key in executions if connection.hkeys(key) != [b"last_heartbeat"]] == []


def leased(log: str) -> int:
    """How many jobs ran under leases."""
    return sum(int(count) for count in re.findall(r"lease of (\d+) jobs", log))


def test_short_jobs_run_in_leases_in_their_order(queue: Queue, work_off: WorkOff) -> None:
    jobs = enqueue(queue, 100)
    log = work_off("jobs")
    assert ran(queue) == [str(number) for number in range(100)]
    assert [job.return_value() for job in jobs] == ran(queue)
    assert leased(log) > 0, log
    nothing_is_left(queue)


def test_lease_max_0_switches_them_off_and_1_takes_one_at_a_time(queue: Queue, work_off: WorkOff) -> None:
    enqueue(queue, 20)
    assert leased(work_off("jobs", "--lease-max", "0")) == 0
    enqueue(queue, 20)
    assert leased(work_off("jobs", "--lease-max", "1")) > 0
    assert len(ran(queue)) == 40
    nothing_is_left(queue)


def test_counts_are_exact(queue: Queue, work_off: WorkOff, connection: Redis) -> None:
    enqueue(queue, 150)
    queue.enqueue(lease_jobs.act, "bad", "raise")
    enqueue(queue, 20)
    log = work_off("jobs")
    totals = history_reader.totals(connection, ["tests.lease_jobs.act"])["tests.lease_jobs.act"]
    assert (totals.runs, totals.failed) == (171, 1), log


def test_peaks_of_short_jobs_are_known(queue: Queue, work_off: WorkOff, connection: Redis) -> None:
    """The worker reads nothing while they run, and what one has used is none of the next one's."""
    for _ in range(6):
        for number in range(10):
            queue.enqueue(lease_jobs.note, str(number))
        for number in range(10):
            queue.enqueue(lease_jobs.act, str(number), "burst", 8.0)
    log = work_off("jobs")
    rises = {
        name: [run.peak_mb - run.initial_mb for run in history_reader.runs(connection, job_type) if not run.job_id]
        for name, job_type in (("burst", "tests.lease_jobs.act"), ("small", "tests.lease_jobs.note"))
    }
    assert rises["burst"] and rises["small"], log
    assert all(6 <= rise < 14 for rise in rises["burst"]), (rises, log)
    assert all(rise < 4 for rise in rises["small"]), (rises, log)


def test_a_failure_in_a_lease_is_one_like_any_other(queue: Queue, work_off: WorkOff) -> None:
    before = enqueue(queue, 30)
    bad = queue.enqueue(lease_jobs.act, "bad", "raise", on_failure=Callback(f"{__name__}.note_failure"))
    after = enqueue(queue, 30, 30)
    log = work_off("jobs")
    assert bad.get_status() == JobStatus.FAILED, log
    assert "ValueError: bad" in bad.latest_result().exc_string
    assert queue.connection.get("failed") == bad.id.encode()
    assert all(job.is_finished for job in before + after)
    assert ran(queue)[30] == "bad"
    nothing_is_left(queue)


def note_failure(job: Job, connection: Redis, *exc_info: object) -> None:
    connection.set("failed", job.id)


def test_jobs_that_need_more_than_a_lease_run_between_leases(queue: Queue, work_off: WorkOff) -> None:
    enqueue(queue, 20)
    called = queue.enqueue(lease_jobs.act, "called", on_success=Callback(f"{__name__}.note_success"))
    enqueue(queue, 20, 20)
    again = queue.enqueue(lease_jobs.act, "again", "retry")
    enqueue(queue, 20, 40)
    parent = queue.enqueue(lease_jobs.act, "parent")
    child = queue.enqueue(lease_jobs.act, "child", depends_on=parent)
    gone = queue.enqueue(lease_jobs.act, "gone", result_ttl=0)
    log = work_off("jobs")
    assert queue.connection.get("succeeded") == called.id.encode(), log
    assert again.get_status() == JobStatus.FINISHED
    assert ran(queue).count("again") == 2
    assert child.get_status() == JobStatus.FINISHED
    assert not queue.connection.exists(gone.key)
    assert sorted(set(ran(queue))) == sorted({*map(str, range(60)), "called", "again", "parent", "child", "gone"})
    nothing_is_left(queue)


def note_success(job: Job, connection: Redis, result: object) -> None:
    connection.set("succeeded", job.id)


def test_the_current_job_is_real(queue: Queue, work_off: WorkOff) -> None:
    enqueue(queue, 20)
    look = queue.enqueue(lease_jobs.act, "look", "look")
    saved = queue.enqueue(lease_jobs.act, "saved", "save meta")
    enqueue(queue, 20, 20)
    log = work_off("jobs")
    assert look.return_value() == "JobStatus.STARTED act look True", log
    assert saved.get_meta()["step"] == "saved"
    nothing_is_left(queue)


def test_jobs_that_look_at_themselves_one_after_another_all_end(queue: Queue, work_off: WorkOff) -> None:
    enqueue(queue, 10)
    looks = [queue.enqueue(lease_jobs.act, str(number), "look") for number in range(30)]
    log = work_off("jobs")
    assert [job.get_status() for job in looks] == [JobStatus.FINISHED] * 30, log
    nothing_is_left(queue)


def test_a_job_that_closes_all_connections_of_its_client_closes_none_of_the_lease(
    queue: Queue, work_off: WorkOff
) -> None:
    """The replies that the lease waited for were lost with them, and the horse hung until its job's time limit."""
    enqueue(queue, 10)
    jobs = [queue.enqueue(lease_jobs.act, str(number), "disconnect" if number % 5 == 3 else "") for number in range(60)]
    log = work_off("jobs")
    assert [job.get_status() for job in jobs] == [JobStatus.FINISHED] * 60, log
    nothing_is_left(queue)


def test_a_job_may_enqueue_into_its_own_queue(queue: Queue, work_off: WorkOff) -> None:
    enqueue(queue, 10)
    queue.enqueue(lease_jobs.act, "first", "enqueue")
    enqueue(queue, 10, 10)
    log = work_off("jobs")
    assert ran(queue)[-1] == "first follows", log
    nothing_is_left(queue)


def test_large_results_are_kept(queue: Queue, work_off: WorkOff) -> None:
    enqueue(queue, 5)
    large = [queue.enqueue(lease_jobs.act, "x", "big", 100_000) for _ in range(20)]
    enqueue(queue, 5, 5)
    work_off("jobs")
    assert all(job.return_value() == "x" * 100_000 for job in large)
    nothing_is_left(queue)


def test_a_time_limit_ends_a_job_of_a_lease(queue: Queue, work_off: WorkOff) -> None:
    enqueue(queue, 20)
    slow = queue.enqueue(lease_jobs.act, "slow", "sleep", 30.0, job_timeout=1)
    after = enqueue(queue, 20, 20)
    log = work_off("jobs")
    assert "Task exceeded maximum timeout value (1 seconds)" in slow.latest_result().exc_string, log
    assert all(job.is_finished for job in after)
    nothing_is_left(queue)


# A long job


def test_a_long_job_is_shown_and_what_was_taken_besides_goes_back_in_order(
    queue: Queue, start_worker: StartWorker, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    enqueue(queue, 30)
    long = queue.enqueue(lease_jobs.act, str(go), "wait")
    after = enqueue(queue, 30, 30)
    worker = start_worker("jobs", "--burst")
    wait_until(lambda: Path(f"{go}.begun").exists())
    wait_until(lambda: queue.job_ids == [job.id for job in after])
    wait_until(lambda: long.get_status() == JobStatus.STARTED)
    [rqs] = Worker.all(connection=queue.connection)
    assert rqs.get_state() == "busy"
    assert (
        [execution.job_id for execution in rqs.get_current_executions()] == [long.id]
        if hasattr(rqs, "get_current_executions")
        else rqs.get_current_job_id() == long.id
    )
    assert queue.connection.llen(queue.intermediate_queue_key) == 0
    go.touch()
    log = worker.finish()
    assert [name for name in ran(queue) if name != str(go)] == [str(number) for number in range(60)], log
    assert long.is_finished
    nothing_is_left(queue)


def test_a_long_job_can_be_stopped_and_only_it(queue: Queue, start_worker: StartWorker, tmp_path: Path) -> None:
    enqueue(queue, 30)
    long = queue.enqueue(lease_jobs.act, str(tmp_path / "never"), "wait")
    after = enqueue(queue, 30, 30)
    worker = start_worker("jobs", "--burst")
    wait_until(lambda: long.get_status() == JobStatus.STARTED)
    wait_until(lambda: queue.count == 30)
    send_stop_job_command(queue.connection, long.id)
    log = worker.finish()
    assert long.get_status() == JobStatus.STOPPED, log
    assert all(job.is_finished for job in after)
    assert len(ran(queue)) == 61
    nothing_is_left(queue)


def test_a_better_queue_has_its_turn(connection: Redis, start_worker: StartWorker) -> None:
    low, high = Queue("low", connection=connection), Queue("jobs", connection=connection)
    for number in range(2000):
        low.enqueue(lease_jobs.act, f"low {number}", "sleep", 0.002)
    worker = start_worker("jobs", "low", "--burst")
    wait_until(lambda: connection.llen("ran") > 100)
    job = high.enqueue(lease_jobs.act, "high")
    before = connection.llen("ran")
    wait_until(lambda: job.is_finished)
    names = [each.decode() for each in connection.lrange("ran", 0, -1)]
    worker.kill()
    assert names.index("high") - before < 70  # those that had been taken, at most


# Ends


def test_a_breach_in_a_lease_fails_the_right_job(queue: Queue, work_off: WorkOff) -> None:
    before = enqueue(queue, 40)
    greedy = queue.enqueue(lease_jobs.act, "greedy", "grow")
    after = enqueue(queue, 40, 40)
    log = work_off("jobs", "--memory", "128")
    assert greedy.get_status() == JobStatus.FAILED, log
    assert "MemoryLimitExceeded: tests.lease_jobs.act used" in greedy.latest_result().exc_string
    [breach] = execution_reader.breaches(queue.connection, greedy.id)
    assert breach.job_id == greedy.id
    assert 128 <= breach.used_mb < 128 + 32
    assert "lease_jobs.py" in breach.where
    assert all(job.is_finished for job in before + after)
    assert len(list(queue.connection.scan_iter("rqmem:breaches:*"))) == 1
    assert ran(queue) == [*map(str, range(40)), "greedy", *map(str, range(40, 80))]
    nothing_is_left(queue)


def test_a_horse_that_dies_in_a_job_fails_that_job_alone(queue: Queue, work_off: WorkOff) -> None:
    before = enqueue(queue, 40)
    deadly = queue.enqueue(lease_jobs.act, "deadly", "die")
    after = enqueue(queue, 40, 40)
    log = work_off("jobs")
    assert deadly.get_status() == JobStatus.FAILED, log
    assert "HorseLost" in deadly.latest_result().exc_string
    assert all(job.is_finished for job in before + after)
    assert ran(queue) == [*map(str, range(40)), "deadly", *map(str, range(40, 80))]
    nothing_is_left(queue)


def test_memory_that_jobs_leave_ends_the_lease(queue: Queue, work_off: WorkOff) -> None:
    enqueue(queue, 5)
    jobs = [queue.enqueue(lease_jobs.act, str(number), "hold", 12.0) for number in range(30)]
    log = work_off("jobs", "--memory", "128")
    assert all(job.is_finished for job in jobs), log
    assert "new horse with fresh memory" in log
    nothing_is_left(queue)


def test_a_killed_worker_loses_no_job_and_fails_one(queue: Queue, start_worker: StartWorker) -> None:
    """The last one that its horse has named to Redis. At most a commit's worth of others run once more."""
    enqueue(queue, 40)
    queue.enqueue(lease_jobs.act, "deadly", "kill worker once")
    enqueue(queue, 40, 40)
    start_worker("jobs", "--burst", RQMEM_HEARTBEAT="0.5").finish()
    log = start_worker("jobs", "--burst", RQMEM_HEARTBEAT="0.5").finish()
    [failed] = queue.failed_job_registry.get_job_ids()
    assert "AbandonedJobError" in Job.fetch(failed, connection=queue.connection).latest_result().exc_string, log
    assert queue.finished_job_registry.count == 80
    names = ran(queue)
    assert set(names) == {*map(str, range(80)), "deadly"}
    assert len(names) <= 81 + 8, "more than one commit's worth ran again"
    nothing_is_left(queue)


@pytest.mark.parametrize("who", ["horse", "worker"])
def test_kills_at_any_moment_lose_nothing(queue: Queue, start_worker: StartWorker, who: str) -> None:
    """Each job is finished or failed as lost; one that has finished does not run again for a horse's death."""
    enqueue(queue, 3000)
    for kill in range(4):
        worker = start_worker("jobs", "--burst", RQMEM_HEARTBEAT="0.5")
        wait_until(lambda: len(ran(queue)) > 500 * (kill + 1) or worker.process.poll() is not None)  # noqa: B023
        children = read_children(worker.pid)
        for pid in children if who == "horse" else [worker.pid]:
            os.kill(pid, signal.SIGKILL)
        if who == "worker":
            worker.finish()
        else:
            wait_until(lambda: len(ran(queue)) > 500 * (kill + 1) + 20)  # noqa: B023
            os.kill(worker.pid, signal.SIGTERM)
            worker.finish()
    log = start_worker("jobs", "--burst", RQMEM_HEARTBEAT="0.5").finish()
    names = ran(queue)
    failed = queue.failed_job_registry.get_job_ids()
    assert len(queue.finished_job_registry.get_job_ids()) + len(failed) == 3000, log
    assert len(failed) <= 4
    assert len(set(names)) >= 3000 - len(failed)
    if who == "horse":
        assert len(names) == len(set(names)), "a job ran twice"
    nothing_is_left(queue)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_warm_shutdown_gives_back_what_has_not_begun(
    queue: Queue, start_worker: StartWorker, number: signal.Signals
) -> None:
    enqueue(queue, 3000)
    worker = start_worker("jobs")
    wait_until(lambda: len(ran(queue)) > 200)
    os.kill(worker.pid, number)
    log = worker.finish()
    done = ran(queue)
    assert len(done) < 3000, log
    assert queue.count == 3000 - len(done)
    nothing_but_the_queue_is_left(queue)
    start_worker("jobs", "--burst").finish()
    assert ran(queue) == list(map(str, range(3000)))


def nothing_but_the_queue_is_left(queue: Queue) -> None:
    left = queue.job_ids
    queue.connection.rename(queue.key, "aside")
    nothing_is_left(queue)
    queue.connection.rename("aside", queue.key)
    assert left


def test_a_cold_shutdown_leaves_the_job_in_hand_to_others(
    queue: Queue, start_worker: StartWorker, tmp_path: Path
) -> None:
    enqueue(queue, 30)
    long = queue.enqueue(lease_jobs.act, str(tmp_path / "never"), "wait")
    enqueue(queue, 30, 30)
    worker = start_worker("jobs", RQMEM_HEARTBEAT="0.5")
    wait_until(lambda: long.get_status() == JobStatus.STARTED)
    os.kill(worker.pid, signal.SIGTERM)
    time.sleep(1.1)  # RQ takes a second signal within a second for the same one
    os.kill(worker.pid, signal.SIGTERM)
    worker.finish()
    log = start_worker("jobs", "--burst", RQMEM_HEARTBEAT="0.5").finish()
    assert long.get_status() == JobStatus.FAILED, log
    assert [name for name in ran(queue) if name.isdigit()] == list(map(str, range(60)))
    nothing_is_left(queue)


def test_suspended_workers_take_no_more(queue: Queue, start_worker: StartWorker) -> None:
    for number in range(2000):
        queue.enqueue(lease_jobs.act, str(number), "sleep", 0.001)
    worker = start_worker("jobs")
    wait_until(lambda: len(ran(queue)) > 50)
    suspend(queue.connection)
    wait_until(lambda: queue.connection.smembers(keys.LEASES) == set())
    so_far = len(ran(queue))
    time.sleep(0.3)
    assert len(ran(queue)) == so_far < 2000
    resume(queue.connection)
    wait_until(lambda: len(ran(queue)) > so_far)
    worker.kill()


def test_a_paused_queue_gives_no_more_jobs(queue: Queue, start_worker: StartWorker) -> None:
    for number in range(2000):
        queue.enqueue(lease_jobs.act, str(number), "sleep", 0.001)
    worker = start_worker("jobs")
    wait_until(lambda: len(ran(queue)) > 50)
    pausing.pause(queue.connection, "jobs")
    wait_until(lambda: queue.connection.smembers(keys.LEASES) == set())
    so_far = len(ran(queue))
    time.sleep(0.3)
    assert len(ran(queue)) == so_far < 2000
    assert queue.count + so_far == 2000, "what it had taken and not begun is back in the queue"
    pausing.resume(queue.connection, "jobs")
    wait_until(lambda: len(ran(queue)) > so_far)
    worker.kill()


def test_a_horse_runs_no_more_jobs_than_it_may(queue: Queue, work_off: WorkOff) -> None:
    jobs = [queue.enqueue(lease_jobs.pid) for _ in range(30)]
    work_off("jobs", "--max-jobs-per-horse", "10")
    pids = [job.return_value() for job in jobs]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [10, 10, 10]


def test_max_jobs_counts_each_job(queue: Queue, work_off: WorkOff) -> None:
    enqueue(queue, 30)
    work_off("jobs", "--max-jobs", "12")
    assert len(ran(queue)) == 12
    assert queue.count == 18


def test_cancelled_and_deleted_jobs_do_not_run(queue: Queue, start_worker: StartWorker, tmp_path: Path) -> None:
    """Those that a lease had taken, and gave back or not."""
    go = tmp_path / "go"
    enqueue(queue, 10)
    queue.enqueue(lease_jobs.act, str(go), "wait")
    after = enqueue(queue, 20, 10)
    worker = start_worker("jobs", "--burst")
    wait_until(lambda: Path(f"{go}.begun").exists())
    after[3].cancel()
    after[5].delete()
    time.sleep(0.05)  # what was taken 20 ms ago is looked at again before it begins
    go.touch()
    log = worker.finish()
    assert {"13", "15"}.isdisjoint(ran(queue)), log
    assert len(ran(queue)) == 29
    assert after[3].get_status() == JobStatus.CANCELED
    nothing_is_left(queue)


def test_two_workers_with_leases_and_a_stock_one_share_a_queue(
    queue: Queue, redis_url: str, start_command: StartCommand, start_worker: StartWorker
) -> None:
    names = [str(number) for number in range(600)]
    for name in names:
        queue.enqueue(lease_jobs.act, name, "sleep", 0.001)
    stock = start_command("worker", "--burst", "-u", redis_url, "--quiet", "jobs", module="rq.cli")
    ours = [start_worker("jobs", "--burst") for _ in range(2)]
    logs = [worker.finish() for worker in ours]
    assert stock.process.wait(300) == 0
    assert any(leased(log) > 0 for log in logs), logs
    assert sorted(ran(queue)) == sorted(names), "a job was lost, or ran twice"
    assert queue.finished_job_registry.count == len(names)
    nothing_is_left(queue)


def test_a_job_that_failed_in_a_lease_is_requeued_and_runs_once_more(queue: Queue, work_off: WorkOff) -> None:
    enqueue(queue, 10)
    bad = queue.enqueue(lease_jobs.act, "bad", "raise")
    enqueue(queue, 10, 10)
    work_off("jobs")
    assert queue.failed_job_registry.requeue(bad.id).id == bad.id
    enqueue(queue, 10, 20)
    log = work_off("jobs")
    assert ran(queue).count("bad") == 2, log
    assert [each.type.name for each in bad.results()] == ["FAILED", "FAILED"]
    assert queue.failed_job_registry.get_job_ids() == [bad.id]
    nothing_is_left(queue)
