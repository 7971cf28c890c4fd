"""The ceiling, end to end: real workers, real jobs, a real Redis."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from redis import Redis
from rq import Callback, Queue, Retry
from rq.command import send_stop_job_command
from rq.job import Job, JobStatus

from rqmem.measure import process_tree
from rqmem.store import execution_reader
from rqmem.testing import wait_until
from tests import forked, profile_jobs, sample_jobs
from tests.conftest import WorkOff


def result_of(job: Job) -> str:
    return job.latest_result().exc_string or ""


@pytest.mark.races
def test_a_job_above_the_ceiling_fails_with_the_reason_and_the_next_one_runs(queue: Queue, work_off: WorkOff) -> None:
    greedy = queue.enqueue(sample_jobs.grow_lists, on_failure=Callback(sample_jobs.remember_failure))
    honest = queue.enqueue(sample_jobs.add, 2, 3)
    log = work_off("jobs", "--memory", "128")
    assert greedy.get_status() == JobStatus.FAILED
    last_line = result_of(greedy).strip().splitlines()[-1]
    assert "MemoryLimitExceeded: tests.sample_jobs.grow_lists used" in last_line
    assert "of 128 MB" in last_line
    assert honest.return_value() == 5
    assert "waitpid" not in log
    [breach] = execution_reader.breaches(queue.connection, greedy.id)
    assert breach.layer == "watch"
    assert breach.limit_mb == 128
    assert 128 <= breach.used_mb < 128 + 32  # in MB to one digit
    assert "sample_jobs.py" in breach.where
    assert breach.next == "failed"
    assert int(queue.connection.get("finally")) > 1000, "the job unwinds through its own finally"
    [told] = queue.connection.lrange("failures", 0, -1)
    assert told.startswith(b"MemoryLimitExceeded: tests.sample_jobs.grow_lists")


@pytest.mark.races
def test_what_cannot_unwind_is_killed_and_told_in_the_same_words(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.grow_in_c, on_failure=Callback(sample_jobs.remember_failure))
    work_off("jobs", "--memory", "128")
    assert job.get_status() == JobStatus.FAILED
    assert "MemoryLimitExceeded: tests.sample_jobs.grow_in_c used" in result_of(job)
    [breach] = execution_reader.breaches(queue.connection, job.id)
    assert breach.layer in ("kill", "kernel")  # whoever was first
    assert f"by {breach.layer}" in result_of(job)
    [told] = queue.connection.lrange("failures", 0, -1)
    assert told.startswith(b"MemoryLimitExceeded: tests.sample_jobs.grow_in_c")


@pytest.mark.races
def test_a_job_that_swallows_everything_is_told_again_and_then_killed(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.grow_and_swallow)
    work_off("jobs", "--memory", "128", "--reserve", "256")  # room enough to be told before the kill
    assert "MemoryLimitExceeded" in result_of(job)
    assert "by kill" in result_of(job) or "by kernel" in result_of(job)
    assert int(queue.connection.get("swallowed")) >= 1


@pytest.mark.races
def test_memory_of_a_subprocess_counts_and_nothing_of_the_tree_stays(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.grow_in_a_child)
    work_off("jobs", "--memory", "128")
    assert "MemoryLimitExceeded" in result_of(job)
    [breach] = execution_reader.breaches(queue.connection, job.id)
    assert breach.processes == 2
    assert process_tree.is_zombie(int(queue.connection.get("child")))


@pytest.mark.races
def test_a_crowd_does_not_go_on_while_the_horse_unwinds(queue: Queue, work_off: WorkOff) -> None:
    """Of a fork bomb's children each goes on growing, and between two looks that is too much."""
    job = queue.enqueue(sample_jobs.grow_before_a_crowd)
    work_off("jobs", "--memory", "128")
    assert "MemoryLimitExceeded" in result_of(job)
    [breach] = execution_reader.breaches(queue.connection, job.id)
    assert (breach.layer, breach.processes) == ("watch", 21)
    assert queue.connection.get("crowd") == b"T" * 20


@pytest.mark.races
def test_a_result_that_is_large_when_serialised_counts(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.big_result, 90)
    work_off("jobs", "--memory", "128")
    assert job.get_status() == JobStatus.FAILED
    assert "MemoryLimitExceeded" in result_of(job)


def test_a_job_under_its_ceiling_is_not_touched(queue: Queue, work_off: WorkOff) -> None:
    jobs = [queue.enqueue(sample_jobs.hold, megabytes) for megabytes in (10, 60, 90)]
    work_off("jobs", "--memory", "128")
    assert [job.return_value() for job in jobs] == [n * 2**20 for n in (10, 60, 90)]
    assert not list(queue.connection.scan_iter("rqmem:breaches:*"))


def test_a_child_that_has_no_memory_of_its_own_yet_is_not_counted(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.share_all_memory_with_a_child, 60)
    work_off("jobs", "--memory", "128")
    assert job.return_value() == 60, result_of(job)


def test_processes_of_a_successful_job_are_let_be(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.leave_a_daemon)
    after = queue.enqueue(sample_jobs.grow_lists)
    log = work_off("jobs", "--memory", "128")
    daemon = job.return_value()
    try:
        assert f"left processes behind: [{daemon}]" in log
        assert after.get_status() == JobStatus.FAILED
        assert not process_tree.is_zombie(daemon), "the next job's breach must not kill it"
    finally:
        os.kill(daemon, 9)


@pytest.mark.races
def test_retry_counts_for_a_breach_that_fails(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.grow_lists, retry=Retry(max=1))
    work_off("jobs", "--memory", "128")
    assert job.get_status() == JobStatus.FAILED
    assert len(execution_reader.breaches(queue.connection, job.id)) == 2


@pytest.mark.races
def test_a_horse_killed_by_somebody_else_is_told_apart(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.killed_by_somebody)
    log = work_off("jobs", "--memory", "128")
    assert "MemoryLimitExceeded" not in result_of(job)
    assert "signal 9, SIGKILL; its memory was below the ceiling" in result_of(job)
    assert "job " + job.id + " failed" in log


def test_a_declared_ceiling_above_the_workers_is_cut_and_told_once(connection: Redis, work_off: WorkOff) -> None:
    for number in range(3):
        sample_jobs.Plain.enqueue(number=number, connection=connection)
    log = work_off("plain", "--memory", "100")
    assert log.count("declares 200 MB of memory; this worker allows 100 MB") == 1
    assert "of 100 (" in log


@pytest.mark.races
def test_a_declared_ceiling_below_the_workers_holds(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue("tests.sample_jobs.Modest.run")
    work_off("jobs", "--memory", "512")
    assert "of 100 MB" in result_of(job)


def rq_worker(worker_class: str, redis_url: str, **environ: str) -> str:
    """Run RQ's own command with this worker class; its output."""
    done = forked.run_module("rq.cli", "worker", "-w", worker_class, "-u", redis_url, "-b", "jobs", **environ)
    return done.stdout + done.stderr


@pytest.mark.races
def test_also_as_a_worker_class_of_rq(queue: Queue, redis_url: str) -> None:
    job = queue.enqueue(sample_jobs.grow_lists)
    output = rq_worker("rqmem.MemoryWorker", redis_url, RQMEM_MEMORY="128")
    assert "of 128 MB" in result_of(job), output


def test_sigterm_finishes_the_job_first(queue: Queue, start_worker: Callable) -> None:
    job = queue.enqueue(sample_jobs.say_hello_and_sleep, 1)
    worker = start_worker("jobs")
    wait_until(lambda: queue.connection.exists("asleep"))
    worker.process.terminate()
    os.kill(int(queue.connection.get("asleep")), 15)  # systemd sends it to the whole group
    log = worker.finish()
    assert worker.process.returncode == 0
    assert job.get_status() == JobStatus.FINISHED, log


def test_the_horse_dies_with_its_worker(queue: Queue, start_worker: Callable) -> None:
    queue.enqueue(sample_jobs.say_hello_and_sleep, 60)
    worker = start_worker("jobs")
    wait_until(lambda: queue.connection.exists("asleep"))
    horse = int(queue.connection.get("asleep"))
    worker.kill()
    wait_until(lambda: process_tree.is_zombie(horse))


def test_a_stop_command_ends_the_job(queue: Queue, start_worker: Callable) -> None:
    job = queue.enqueue(sample_jobs.say_hello_and_sleep, 60)
    worker = start_worker("jobs", "--burst")
    wait_until(lambda: queue.connection.exists("asleep"))
    send_stop_job_command(queue.connection, job.id)
    worker.finish()
    assert job.get_status() == JobStatus.STOPPED


@pytest.mark.races
@pytest.mark.parametrize("how", ["leave", "fill"])
def test_a_stopped_callback_neither_ends_nor_fills_the_worker(queue: Queue, start_worker: Callable, how: str) -> None:
    callback = Callback(sample_jobs.leave if how == "leave" else sample_jobs.fill)
    job = queue.enqueue(sample_jobs.say_hello_and_sleep, 60, on_stopped=callback)
    after = queue.enqueue(sample_jobs.add, 1)
    worker = start_worker("jobs", "--burst", "--memory", "128")
    wait_until(lambda: queue.connection.exists("asleep"))
    send_stop_job_command(queue.connection, job.id)
    log = worker.finish()
    assert worker.process.returncode == 0, log
    assert job.get_status() == JobStatus.STOPPED
    assert after.return_value() == 2
    if how == "fill":
        assert "at 'the stopped callback'" in log and "MemoryLimitExceeded" in log


@pytest.mark.parametrize(("own", "cap"), [(60, "1"), (1, "60"), (-1, "1")])
def test_timeout_is_a_cap_on_the_jobs_own_limit(queue: Queue, work_off: WorkOff, own: int, cap: str) -> None:
    job = queue.enqueue(sample_jobs.say_hello_and_sleep, 30, job_timeout=own)
    work_off("jobs", "--timeout", cap)
    assert "JobTimeoutException: Task exceeded maximum timeout value (1 seconds)" in result_of(job)
    job.refresh()
    assert job.timeout == own


@pytest.mark.races
def test_a_breach_that_the_job_caught_by_name_is_told_all_the_same(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.swallow_once_and_finish)
    log = work_off("jobs", "--memory", "128", "--reserve", "256")  # room enough to be told before the kill
    assert job.return_value() == "all is well"
    [breach] = execution_reader.breaches(queue.connection, job.id)
    assert breach.next == "nothing: the job caught it (except MemoryLimitExceeded) and went on to its end"
    assert breach.summary() in log


@pytest.mark.races
def test_a_breach_stays_one_when_the_clean_up_raises_something_else(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.raise_another)
    work_off("jobs", "--memory", "128")
    assert result_of(job).strip().splitlines()[-1].startswith("rqmem.errors.MemoryLimitExceeded: ")
    assert len(execution_reader.breaches(queue.connection, job.id)) == 1


def test_a_job_that_ignores_its_time_limit_is_killed_with_its_children(queue: Queue, redis_url: str) -> None:
    job = queue.enqueue(sample_jobs.ignore_the_time_limit, job_timeout=1)
    done = rq_worker("tests.workers.ImpatientWorker", redis_url)
    assert "JobTimeoutException: killed: it went on for 1 s after its time limit" in result_of(job), done
    assert int(queue.connection.get("ignored")) >= 1


def test_a_cold_shutdown_takes_what_the_job_started_with_it(queue: Queue, start_worker: Callable) -> None:
    queue.enqueue(sample_jobs.start_a_child_and_wait)
    worker = start_worker("jobs")
    wait_until(lambda: queue.connection.exists("child"))
    wait_until(lambda: worker.process.poll() is not None or worker.process.terminate())
    wait_until(lambda: process_tree.is_zombie(int(queue.connection.get("child"))))


@pytest.mark.races
def test_the_breach_names_the_lines_that_used_the_memory(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(profile_jobs.grow_at_three_lines)
    log = work_off("jobs", "--memory", "256")
    [breach] = execution_reader.breaches(queue.connection, job.id)
    by_line = {line.partition(": ")[2].partition(" = ")[0]: grown_mb for grown_mb, line in breach.grew}
    assert set(by_line) == {"first", "second", "third"}, breach.grew
    # 61 and 92 MB; the next line gets what grew before the sample that found it.
    assert 16 <= by_line["first"] <= 61 + 32
    assert 48 <= by_line["second"] <= 92 + 32
    assert "where it grew:" in log


@pytest.mark.parametrize("isolation", ["warm", "fork"])
def test_a_growing_job_without_our_handlers_is_not_ended_by_our_questions(
    queue: Queue, work_off: WorkOff, isolation: str
) -> None:
    changed = queue.enqueue(sample_jobs.drop_all_handlers_and_grow)
    another = queue.enqueue(sample_jobs.become_another_program)
    log = work_off("jobs", "--memory", "128", "--isolation", isolation)
    assert changed.return_value() == 70
    assert "(signal " not in log
    assert "MemoryLimitExceeded" not in log
    assert not list(queue.connection.scan_iter("rqmem:breaches:*")), another.get_status()
