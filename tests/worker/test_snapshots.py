"""SIGUSR2 to a worker: a snapshot that names the job's line and its objects, and harms nothing, at whatever time."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import time
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.results import Result

from rqmem.measure import procfs
from rqmem.profiling import snapshots
from rqmem.profiling.snapshots import Process, WorkerSnapshot
from rqmem.store.history import history_reader
from rqmem.testing import wait_until
from tests import profile_jobs
from tests.conftest import StartCommand, StartWorker, WorkerProcess, wait_for_key


@pytest.fixture
def start(start_worker: StartWorker, tmp_path: Path) -> StartCommand:
    """Start a worker named ada that writes its snapshots below the test's own directory."""
    return lambda *options, **environ: start_worker(
        "--name", "ada", "--memory", "256", *options, RQMEM_PROFILE_DIR=str(tmp_path / "profiles"), **environ
    )


def taken(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "profiles").glob("snapshot-*.txt"))


def snapshot(worker: WorkerProcess, tmp_path: Path) -> str:
    """Ask for one and wait until it is there."""
    before = taken(tmp_path)
    os.kill(worker.pid, signal.SIGUSR2)
    wait_until(lambda: len(taken(tmp_path)) > len(before))
    return taken(tmp_path)[-1].read_text()


def snapshot_with_the_horse(worker: WorkerProcess, tmp_path: Path) -> str:
    """The same, with what the horse says: on a busy machine it may come later."""
    snapshot(worker, tmp_path)
    wait_until(lambda: "the horse is in " in taken(tmp_path)[-1].read_text())
    return taken(tmp_path)[-1].read_text()


def wait_until_it_catches(worker: WorkerProcess) -> None:
    wait_until(lambda: procfs.catches(worker.pid, signal.SIGUSR2))


def test_a_running_job_is_told_by_line_and_type_and_ends_well(
    connection: Redis, start: StartCommand, tmp_path: Path
) -> None:
    job = Queue(connection=connection).enqueue(profile_jobs.hold_rows, str(tmp_path / "go"))
    worker = start("--burst")
    wait_for_key(connection, "ready")
    text = snapshot_with_the_horse(worker, tmp_path)
    (tmp_path / "go").touch()
    log = worker.finish()
    assert worker.process.returncode == 0, log
    assert job.get_status(refresh=True) == "finished"
    assert job.return_value() == 60_000
    assert f"tests.profile_jobs.hold_rows ({job.id}), queue default, for " in text
    assert "the horse is in the job's code, innermost line first" in text
    assert "in wait_for: " in text and 'in hold_rows: wait_for(path, "ready")' in text
    row = next(line for line in text.splitlines() if line.endswith("tests.profile_jobs.Row"))
    assert 50_000 < int(row.split()[2].replace(",", "")) < 70_000
    for role in ("worker", "horse"):
        [line] = [line for line in text.splitlines() if line.endswith(f"({role})")]
        assert float(line.split()[0]) > 5
    [path] = taken(tmp_path)
    assert f"worker ada: snapshot: {path}" in log
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_idle_worker_tells_of_itself_and_goes_on(connection: Redis, start: StartCommand, tmp_path: Path) -> None:
    worker = start("--max-jobs", "1")
    wait_until(lambda: history_reader.workers(connection, ["ada"]))
    text = snapshot(worker, tmp_path)
    assert "none: the worker is idle" in text
    assert "(worker)" in text
    assert "the worker waits, innermost line first" in text
    job = Queue(connection=connection).enqueue(profile_jobs.fit_with, 1)
    assert "snapshot: " in worker.finish()
    assert job.get_status(refresh=True) == "finished"


def test_twenty_in_a_row_harm_nothing(connection: Redis, start: StartCommand, tmp_path: Path) -> None:
    queue = Queue(connection=connection)
    jobs = [queue.enqueue(profile_jobs.fit_slowly, str(tmp_path / "go")), queue.enqueue(profile_jobs.fit_with, 40)]
    worker = start("--burst")
    wait_until_it_catches(worker)
    for number in range(20):
        os.kill(worker.pid, signal.SIGUSR2)
        time.sleep(0.01 * (number % 3))
    wait_until(lambda: taken(tmp_path))
    (tmp_path / "go").touch()
    for _ in range(20):
        os.kill(worker.pid, signal.SIGUSR2)
    log = worker.finish()
    assert [job.get_status(refresh=True) for job in jobs] == ["finished", "finished"], log
    assert worker.process.returncode == 0
    assert 1 <= len(taken(tmp_path)) <= snapshots.KEPT
    assert "no snapshot" not in log


def test_in_the_middle_of_the_commit(connection: Redis, start: StartCommand, tmp_path: Path) -> None:
    queue = Queue(connection=connection)
    job = queue.enqueue(profile_jobs.slow_to_commit, str(tmp_path / "go"))
    worker = start("--burst")
    wait_until((tmp_path / "go-ready").exists)
    texts = [snapshot_with_the_horse(worker, tmp_path) for _ in range(3)]
    (tmp_path / "go").touch()
    log = worker.finish()
    for text in texts:
        assert "the horse is in RQ's code around a job, innermost line first" in text
        assert "in __getstate__: wait_for(self.path)" in text
    assert job.get_status(refresh=True) == "finished", log
    assert len(Result.all(job)) == 1
    assert len(queue.failed_job_registry) == len(queue.started_job_registry) == 0


def test_through_many_commits(connection: Redis, start: StartCommand, tmp_path: Path) -> None:
    """The horse is asked all the time, so also while RQ commits: each job has ended once, and well.

    Nobody reads what the worker prints meanwhile, so it prints little.
    """
    queue = Queue(connection=connection)
    jobs = [queue.enqueue(profile_jobs.fit_with, 1) for _ in range(40)]
    worker = start("--burst", "--log-level", "warning", PYTHONFAULTHANDLER="1")
    wait_until_it_catches(worker)
    while worker.process.poll() is None:
        os.kill(worker.pid, signal.SIGUSR2)
        time.sleep(0.002)
    log = worker.finish()
    assert worker.process.returncode == 0, log
    bad = [job.latest_result().exc_string for job in jobs if job.get_status(refresh=True) != "finished"]
    assert bad == [], log
    assert {len(Result.all(job)) for job in jobs} == {1}
    assert len(queue.failed_job_registry) == len(queue.started_job_registry) == 0
    assert taken(tmp_path)


def test_a_horse_in_c_answers_late_and_that_is_said(connection: Redis, start: StartCommand, tmp_path: Path) -> None:
    held = tmp_path / "held"
    job = Queue(connection=connection).enqueue(profile_jobs.lock_in_c, str(held))
    with held.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        worker = start("--burst")
        wait_until(lambda: waited_for(held))
        text = snapshot(worker, tmp_path)
        assert "has not answered within 2 s: it is in C code" in text
        assert "tests.profile_jobs.lock_in_c" in text and "(horse)" in text
    wait_until(lambda: "it was asked: until then it was in C code." in taken(tmp_path)[-1].read_text())
    assert "in lock_in_c: " in taken(tmp_path)[-1].read_text()
    worker.finish()
    assert job.return_value(refresh=True) == "locked"


def waited_for(path: Path) -> bool:
    """Whether a process waits for the lock of that file."""
    locks = Path("/proc/locks").read_text().splitlines()
    return any(" -> FLOCK " in line and f":{path.stat().st_ino} " in line for line in locks)


def test_a_directory_that_is_not_ours_costs_the_snapshot_only(
    connection: Redis, start_worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open").chmod(0o755)
    job = Queue(connection=connection).enqueue(profile_jobs.hold_rows, str(tmp_path / "go"), 10)
    worker = start_worker("--burst", "--memory", "256", RQMEM_PROFILE_DIR=str(tmp_path / "open"))
    wait_for_key(connection, "ready")
    os.kill(worker.pid, signal.SIGUSR2)
    time.sleep(0.5)
    (tmp_path / "go").touch()
    log = worker.finish()
    assert f"no snapshot: {tmp_path / 'open'} is open to other users: 'chmod 700' it" in log
    assert job.get_status(refresh=True) == "finished"
    assert list((tmp_path / "open").iterdir()) == []


def test_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    for second in range(snapshots.KEPT + 5):
        each = WorkerSnapshot("a/b", 1e9 + second, [("job", "none")], [Process(1, "init", 3.0, "worker")])
        snapshots.save(snapshots.path_for(tmp_path / "profiles", each.worker, each.at), each)
    assert len(taken(tmp_path)) == snapshots.KEPT
    assert taken(tmp_path)[0].name == "snapshot-20010909T014645.000-a-b.txt"
