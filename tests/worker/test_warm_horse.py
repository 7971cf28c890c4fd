"""One horse for many jobs: kept while that is safe, replaced when it is not, and no job sees another's traces."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rq import Queue, Retry
from rq.job import Job, JobStatus

from rqmem import MemoryWorker
from rqmem.config.settings import Config
from rqmem.measure import process_tree, procfs
from rqmem.policy import recycling
from rqmem.policy.needs import Known
from rqmem.policy.recycling import AfterJob, HorseState
from rqmem.store import keys
from rqmem.testing import wait_until
from rqmem.units import MB
from tests import sample_jobs
from tests.conftest import OwnRedis, StartWorker, WorkOff


def results(jobs: list[Job]) -> list[object]:
    return [job.return_value() for job in jobs]


def test_jobs_share_a_horse(queue: Queue, work_off: WorkOff) -> None:
    jobs = [queue.enqueue(sample_jobs.own_pid) for _ in range(5)]
    work_off("jobs")
    assert len(set(results(jobs))) == 1


@pytest.mark.parametrize("how", [["--isolation", "fork"], ["--max-jobs-per-horse", "1"]])
def test_or_each_has_its_own(queue: Queue, work_off: WorkOff, how: list[str]) -> None:
    jobs = [queue.enqueue(sample_jobs.own_pid) for _ in range(3)]
    work_off("jobs", *how)
    assert len(set(results(jobs))) == 3


def test_after_a_breach_the_horse_is_a_new_one(queue: Queue, work_off: WorkOff) -> None:
    jobs = [queue.enqueue(work) for work in (sample_jobs.own_pid, sample_jobs.grow_lists, sample_jobs.own_pid)]
    work_off("jobs", "--memory", "128")
    before, _, after = results(jobs)
    assert before != after


def test_a_failure_is_no_reason_for_a_new_one(queue: Queue, work_off: WorkOff) -> None:
    jobs = [queue.enqueue(work) for work in (sample_jobs.own_pid, sample_jobs.raise_error, sample_jobs.own_pid)]
    work_off("jobs")
    before, _, after = results(jobs)
    assert before == after
    assert jobs[1].get_status() == JobStatus.FAILED


def test_garbage_of_one_job_is_not_charged_to_the_next(queue: Queue, work_off: WorkOff) -> None:
    jobs = [queue.enqueue(sample_jobs.keep_in_a_cycle, 60) for _ in range(6)]
    work_off("jobs", "--memory", "128")
    assert len(set(results(jobs))) == 1
    assert None not in results(jobs)


def test_a_leak_costs_the_horse_and_no_breach(queue: Queue, work_off: WorkOff) -> None:
    jobs = [queue.enqueue(sample_jobs.keep_in_a_global, 15) for _ in range(20)]
    log = work_off("jobs", "--memory", "128")
    pids = results(jobs)
    assert None not in pids
    assert 2 <= len(set(pids)) <= 10
    assert "MB more than after the first job of each type" in log
    assert not list(queue.connection.scan_iter("rqmem:breaches:*"))


def test_threads_left_at_first_stay_and_more_of_them_end_with_the_horse(queue: Queue, work_off: WorkOff) -> None:
    works = (sample_jobs.leave_a_thread, sample_jobs.leave_a_thread, sample_jobs.own_pid)
    jobs = [queue.enqueue(work) for work in works]
    log = work_off("jobs")
    first, second, after = results(jobs)
    assert first == second != after
    assert log.count("leave_a_thread left 1 threads running (Thread-") == 1
    assert "tests.sample_jobs.leave_a_thread left 1 more thread running than its runs before" in log


def test_a_horse_that_died_between_jobs_is_replaced(queue: Queue, start_worker: StartWorker) -> None:
    worker = start_worker("jobs", "--max-jobs", "2")
    first = queue.enqueue(sample_jobs.own_pid)
    wait_until(lambda: first.get_status() == JobStatus.FINISHED)
    os.kill(first.return_value(), signal.SIGKILL)
    second = queue.enqueue(sample_jobs.own_pid)
    log = worker.finish()
    assert second.return_value() not in (None, first.return_value()), log


def test_a_horse_that_dies_before_its_worker_looks_counts_as_died_idle(
    queue: Queue, start_worker: StartWorker, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    first = queue.enqueue(sample_jobs.wait_for_file, str(go))
    worker = start_worker("jobs", "--max-jobs", "3", RQMEM_HEARTBEAT="60")
    wait_until(lambda: Path(f"{go}.begun").exists())
    [horse] = procfs.read_children(worker.pid)
    os.kill(worker.pid, signal.SIGSTOP)
    go.touch()
    wait_until(lambda: first.get_status() == JobStatus.FINISHED and _waits_for_an_order(horse))
    os.kill(horse, signal.SIGKILL)
    wait_until(lambda: process_tree.is_zombie(horse))
    os.kill(worker.pid, signal.SIGCONT)
    others = [queue.enqueue(sample_jobs.add, 1), queue.enqueue(sample_jobs.own_pid)]
    log = worker.finish()
    assert worker.process.returncode == 0, log
    assert results(others)[0] == 2, log
    assert results(others)[1] != horse
    assert "unhandled" not in log


def _waits_for_an_order(horse: int) -> bool:
    """Whether it has sent its report: it sleeps in the receiving of a message."""
    return "recvfrom" in Path(f"/proc/{horse}/stack").read_text() or "unix_" in Path(f"/proc/{horse}/wchan").read_text()


def test_children_reaped_by_somebody_else_are_no_end_of_the_worker(queue: Queue, start_worker: StartWorker) -> None:
    jobs = [queue.enqueue(sample_jobs.exit_quietly), queue.enqueue(sample_jobs.add, 1)]
    worker = start_worker("jobs", "--max-jobs", "2", "--preload", "tests.ignores_children")
    log = worker.finish()
    assert worker.process.returncode == 0, log
    assert jobs[0].get_status() == JobStatus.FAILED
    assert jobs[1].return_value() == 2, log


def test_a_quiet_exit_is_told(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.exit_quietly)
    after = queue.enqueue(sample_jobs.own_pid)
    work_off("jobs")
    assert job.get_status() == JobStatus.FAILED
    assert "Work-horse terminated unexpectedly; waitpid returned 0" in (job.latest_result().exc_string or "")
    assert after.return_value()


def test_an_error_whose_text_is_no_unicode_is_the_jobs_own(queue: Queue, work_off: WorkOff) -> None:
    jobs = [queue.enqueue(work) for work in (sample_jobs.own_pid, sample_jobs.raise_undecodable, sample_jobs.own_pid)]
    work_off("jobs")
    assert "ValueError: caf\\udce9.csv" in (jobs[1].latest_result().exc_string or "")
    assert jobs[0].return_value() == jobs[2].return_value()


@pytest.mark.races
def test_signal_handlers_of_one_job_do_not_unprotect_the_next(queue: Queue, work_off: WorkOff) -> None:
    jobs = [queue.enqueue(work) for work in (sample_jobs.change_signal_handlers, sample_jobs.grow_lists)]
    work_off("jobs", "--memory", "128")
    assert "by watch" in (jobs[1].latest_result().exc_string or "")


@pytest.mark.parametrize("lease", ["0", "64"])
def test_what_a_job_changes_about_its_process_does_not_reach_the_next(
    queue: Queue, work_off: WorkOff, lease: str
) -> None:
    for _ in range(3):  # short successes: what follows may run under a lease
        at_first = queue.enqueue(sample_jobs.own_traces)
        queue.enqueue(sample_jobs.leave_changed, "nothing")
    kinds = ["working directory", "standard files", "umask", "process flags", "process group",
             "choice of the OOM killer", "priority", "processors", "signal handlers",
             "blocked signals", "timers", "resource limits", "number of open files", "garbage collection",
             "logging.disable"]  # fmt: skip
    if os.geteuid() == 0:
        kinds += ["namespaces", "groups and rights"]
    after = []
    for kind in kinds:
        queue.enqueue(sample_jobs.leave_changed, kind)
        after.append(queue.enqueue(sample_jobs.own_traces))
    log = work_off("jobs", RQMEM_LEASE_MAX=lease)
    assert results(after) == [at_first.return_value()] * len(kinds)
    found = re.findall(r"leave_changed left its process changed: ([\w. ]+)", log)
    assert found == [kind for kind in kinds if kind != "processors" or len(os.sched_getaffinity(0)) > 1]


@pytest.mark.parametrize("lease", ["0", "64"])
def test_a_job_that_can_open_no_file_any_more_has_its_outcome_kept(queue: Queue, work_off: WorkOff, lease: str) -> None:
    jobs = [queue.enqueue(sample_jobs.leave_files_open, without_redis=each > 2, job_timeout=20) for each in range(4)]
    after = queue.enqueue(sample_jobs.own_pid)
    log = work_off("jobs", RQMEM_LEASE_MAX=lease)
    assert [each.get_status() for each in (*jobs, after)] == [JobStatus.FINISHED] * 5, log
    assert "Too many open files" in log, "that it had to wait"


@pytest.mark.parametrize("lease", ["0", "64"])
def test_settings_that_a_job_makes_are_put_back_for_the_next(queue: Queue, work_off: WorkOff, lease: str) -> None:
    for _ in range(3):
        at_first = queue.enqueue(sample_jobs.own_settings)
        queue.enqueue(sample_jobs.leave_settings, "nothing")
    kinds = ["environment", "time zone", "sys.path", "warning filters", "locale", "socket timeout", "recursion limit",
             "switch interval", "trace function", "profile function", "sys.stdout"]  # fmt: skip
    after = []
    for kind in kinds:
        queue.enqueue(sample_jobs.leave_settings, kind)
        after.append(queue.enqueue(sample_jobs.own_settings))
    log = work_off("jobs", "--log-level", "debug", RQMEM_LEASE_MAX=lease, LC_ALL="C.UTF-8")
    assert results(after) == [at_first.return_value()] * len(kinds), "in the same horse"
    found = re.findall(r"put back what [\w.]+leave_settings had changed: ([\w. ]+)", log)
    assert found == [kind.replace("time zone", "environment") for kind in kinds]


def test_settings_that_an_imported_module_makes_stay(queue: Queue, work_off: WorkOff) -> None:
    """A module is imported once, and counts on them from then on."""
    first, second = queue.enqueue(sample_jobs.import_late), queue.enqueue(sample_jobs.import_late)
    work_off("jobs")
    assert results([first, second]) == ["set at import"] * 2


def test_a_job_that_configures_logging_does_not_hide_the_failures_of_others(
    queue: Queue, work_off: WorkOff, tmp_path: Path
) -> None:
    for work in (sample_jobs.configure_logging, sample_jobs.raise_error, sample_jobs.own_pid):
        queue.enqueue(work)
    file = tmp_path / "log"
    log = work_off("jobs", "--log-file", str(file)) + file.read_text()
    assert log.count("Job OK") == 2
    assert "exception raised while executing (tests.sample_jobs.raise_error)" in log


def test_a_forked_child_that_returns_commits_nothing(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.fork_and_return)
    after = queue.enqueue(sample_jobs.own_pid)
    work_off("jobs")
    assert job.return_value() == "parent"
    assert len(job.results()) == 1
    assert after.return_value()


def test_forked_children_that_leave_the_job_end_with_their_own_exit_codes(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.fork_children_that_end_in_three_ways)
    work_off("jobs")
    assert job.return_value() == [0, 3, 1]
    assert len(job.results()) == 1


def test_sigterm_ends_what_a_job_forks_at_once(queue: Queue, work_off: WorkOff) -> None:
    """A pool hung for ever where a handler of Python's missed it: its fork waited for a lock that nobody held."""
    job = queue.enqueue(sample_jobs.how_a_fork_takes_sigterm)
    work_off("jobs")
    assert job.return_value() is True


def test_a_dead_horse_is_noticed_while_its_child_holds_its_files_open(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.fork_a_daemon_and_die)
    after = queue.enqueue(sample_jobs.own_pid)
    work_off("jobs")
    assert "signal 9, SIGKILL" in (job.latest_result().exc_string or "")
    assert after.return_value()


def test_a_late_stop_command_does_not_hit_the_next_job(queue: Queue, start_worker: StartWorker) -> None:
    from rq.command import send_command

    done = queue.enqueue(sample_jobs.own_pid)
    worker = start_worker("jobs", "--name", "w", "--max-jobs", "2")
    wait_until(lambda: done.get_status() == JobStatus.FINISHED)
    running = queue.enqueue(sample_jobs.say_hello_and_sleep, 1)
    wait_until(lambda: queue.connection.exists("asleep"))
    send_command(queue.connection, "w", "stop-execution", execution_id="of-the-one-before")
    worker.finish()
    assert running.get_status() == JobStatus.FINISHED


def test_a_stopped_job_and_the_next(queue: Queue, start_worker: StartWorker) -> None:
    from rq.command import send_kill_horse_command, send_stop_job_command

    job = queue.enqueue(sample_jobs.say_hello_and_sleep, 60)
    worker = start_worker("jobs", "--name", "w", "--max-jobs", "2")
    wait_until(lambda: queue.connection.exists("asleep"))
    send_stop_job_command(queue.connection, job.id)
    wait_until(lambda: job.get_status() == JobStatus.STOPPED)
    send_kill_horse_command(queue.connection, "w")  # there is none now
    after = queue.enqueue(sample_jobs.own_pid)
    worker.finish()
    assert after.return_value()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_starts_hears_that_it_is_to_stop(
    connection: Redis, start_worker: StartWorker, tmp_path: Path, number: signal.Signals
) -> None:
    go = tmp_path / "go"
    worker = start_worker("jobs", "--preload", "tests.waits_in_its_import", TESTS_WAIT_FOR=str(go))
    wait_until(lambda: Path(f"{go}.begun").exists())
    worker.process.send_signal(number)
    log = worker.finish()
    assert worker.process.returncode == 0, log
    assert "told to stop while it started" in log
    assert not list(connection.scan_iter("rq:worker*"))


def test_preloaded_modules_are_there_before_the_fork(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue("tests.preloaded.imported_by")
    work_off("jobs", "--preload", "tests.preloaded")
    importer, horse = job.return_value()
    assert importer != horse


def test_a_worker_that_preloads_jobs_loads_what_they_need_before_the_fork(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue("tests.preloaded.parts_of_jobs")
    work_off("jobs", "--preload", "tests.preloaded")
    assert job.return_value() is True


@pytest.mark.parametrize(
    ("module", "error", "place"),
    [("tests.broken_module", "RuntimeError", 3), ("tests.quits_at_import", "SystemExit: 0", 5)],
)
def test_a_module_that_cannot_be_preloaded_is_bad_usage(
    start_worker: StartWorker, module: str, error: str, place: int
) -> None:
    worker = start_worker("--burst", "--preload", module)
    [line] = worker.finish().splitlines()
    assert line.startswith(f"rqmem: --preload {module} cannot be imported: {error}")
    assert line.endswith(f"({module.rpartition('.')[2]}.py:{place})")
    assert worker.process.returncode == 2


afters = st.builds(AfterJob, st.sampled_from("abc"), st.integers(0, 200 * MB), st.just(0))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20 * MB)), max_size=50))
def test_a_horse_that_keeps_little_is_kept(jobs: list[tuple[str, int]]) -> None:
    state = HorseState()
    for job, held in jobs:
        reason, state = recycling.decide(state, AfterJob(job, held), 256 * MB, max_jobs=0)
        assert reason == ""
    assert state.jobs == len(jobs)


@given(st.sampled_from("abc"), st.integers(0, 10 * MB), st.integers(1, 200))
def test_a_steady_leak_is_found_before_it_costs_a_breach(job: str, base: int, leak_mb: int) -> None:
    ceiling, state, held = 256 * MB, HorseState(), base
    for _ in range(1000):
        held += leak_mb * MB
        reason, state = recycling.decide(state, AfterJob(job, held), ceiling, max_jobs=0)
        if reason:
            break
    assert held - state.baseline_bytes < 0.2 * ceiling + leak_mb * MB


def test_imports_of_a_first_run_are_no_leak() -> None:
    reason, state = recycling.decide(HorseState(), AfterJob("a", 100 * MB), 128 * MB, 0)
    assert reason == ""
    assert recycling.decide(state, AfterJob("a", 101 * MB), 128 * MB, 0)[0] == ""
    assert "40.0 MB more" in recycling.decide(state, AfterJob("a", 140 * MB), 128 * MB, 0)[0]


def test_a_job_deleted_after_it_was_taken_leaves_no_records(queue: Queue) -> None:
    worker = MemoryWorker([queue], connection=queue.connection, config=Config())
    job = queue.enqueue(sample_jobs.own_pid)
    execution = worker.prepare_execution(job)
    assert queue.started_job_registry.count == 1
    queue.connection.delete(job.key)
    worker._committer.forget(queue, execution)
    assert queue.started_job_registry.count == 0
    assert not queue.connection.exists(keys.RUNNING, execution.key, job.key)


def test_what_names_a_job_in_the_environment_leaves_nothing_behind(queue: Queue, work_off: WorkOff) -> None:
    """glibc keeps each value that setenv was given: a string of each job, for as long as the horse lives."""
    jobs = [queue.enqueue(sample_jobs.own_variables, job_id=f"job-{number}") for number in range(3)]
    work_off("jobs")
    found: list[Any] = results(jobs)
    for number, (own, started, _) in enumerate(found):
        assert own["RQ_JOB_ID"] == f"job-{number}"
        assert own == started
    assert len({own["RQMEM_EXECUTION"] for own, _, _ in found}) == 3
    assert found[0][2] == found[1][2] == found[2][2]


def test_small_garbage_of_many_jobs_does_not_add_up(queue: Queue, work_off: WorkOff) -> None:
    jobs = [queue.enqueue(sample_jobs.keep_in_a_cycle, 2) for _ in range(60)]
    log = work_off("jobs", "--memory", "64")
    assert len(set(results(jobs))) == 1, log
    assert not list(queue.connection.scan_iter("rqmem:breaches:*"))


def test_a_redis_that_was_restarted_between_jobs_is_no_loss(own_redis: OwnRedis, start_worker: StartWorker) -> None:
    worker = start_worker("jobs", "--max-jobs", "2", RQMEM_REDIS_URL=own_redis.server.url)
    first = own_redis.queue.enqueue(sample_jobs.own_pid)
    wait_until(lambda: first.get_status() == JobStatus.FINISHED)
    # RQ's worker takes a lost connection only while it waits for a job; see the blocked client.
    wait_until(lambda: own_redis.connection.info("clients")["blocked_clients"] == 1)
    own_redis.kill()
    own_redis.start_again()
    second = own_redis.queue.enqueue(sample_jobs.own_pid)
    log = worker.finish()
    assert second.return_value(), log


def test_jobs_leave_no_descriptors_open_in_their_horse(queue: Queue, work_off: WorkOff) -> None:
    jobs = [sample_jobs.CountsDescriptors.enqueue(queue) for _ in range(10)]
    work_off("jobs")
    counts = results(jobs)
    assert counts[0] is not None
    assert len(set(counts[3:])) == 1, f"the same again and again, from the first lease on: {counts}"


def test_a_job_does_not_pay_for_what_another_imported(queue: Queue, work_off: WorkOff) -> None:
    heavy = queue.enqueue(sample_jobs.keep_in_a_global, 80)
    light = [queue.enqueue(sample_jobs.use_and_tell_pid, 60) for _ in range(2)]
    log = work_off("jobs", "--memory", "128")
    assert len({heavy.return_value(), *results(light)}) == 2, log
    assert re.search(r"others had left (79|8\d)", log)
    assert "--preload shares them" in log
    assert not list(queue.connection.scan_iter("rqmem:breaches:*"))


def test_a_horse_above_a_jobs_own_ceiling_is_replaced_before_it_begins(queue: Queue, work_off: WorkOff) -> None:
    heavy = queue.enqueue(sample_jobs.keep_in_a_global, 10)
    modest = sample_jobs.Small.enqueue(queue)
    log = work_off("jobs", "--memory", "256")
    assert modest.return_value() not in (None, heavy.return_value()), log
    assert re.search(r"others had left (9|1\d)[\d.]* MB in it, and what such a job needs is not known yet", log), log
    assert queue.connection.get("begun") == b"1"


def test_a_ceiling_below_a_new_horse_is_one_clear_error_and_no_loop(queue: Queue, work_off: WorkOff) -> None:
    job = sample_jobs.Overweight.enqueue(queue, retry=Retry(max=3))
    work_off("jobs")
    [result] = job.results()
    last = (result.exc_string or "").strip().splitlines()[-1]
    assert "ConfigError: a ceiling of 5 MB cannot hold for tests.sample_jobs.Overweight: a new horse uses" in last


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40 * MB)), max_size=30))
def test_no_job_begins_in_a_horse_half_filled_by_others(jobs: list[tuple[str, int]]) -> None:
    ceiling, state, kept = 128 * MB, HorseState(), {}
    for job, grows in jobs:
        before = recycling.fit(state, job, Known(first_bytes=0, again_bytes=0), 0)
        if recycling.crowded(before, ceiling):
            state, kept = HorseState(), {}
        assert sum(size for name, size in kept.items() if name != job) <= ceiling / 2
        if job not in kept:
            kept[job] = grows
        _, state = recycling.decide(state, AfterJob(job, sum(kept.values())), ceiling, max_jobs=0)
