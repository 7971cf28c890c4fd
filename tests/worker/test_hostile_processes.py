"""Names that jobs give their processes, files and code harm neither the ceiling nor the worker."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.job import JobStatus

from rqmem.measure import procfs
from rqmem.testing import wait_until
from rqmem.worker.code_version import commit
from tests import hostile_jobs, sample_jobs
from tests.conftest import StartWorker, WorkOff

GROW = [
    hostile_jobs.named_like_a_size,
    hostile_jobs.named_like_another_line,
    hostile_jobs.in_a_program_named_like_a_size,
    hostile_jobs.maps_a_file_named_like_a_line,
    hostile_jobs.in_code_of_a_file_with_a_line_end,
    hostile_jobs.in_code_of_a_device,
    hostile_jobs.in_code_of_a_pipe,
    hostile_jobs.in_files_of_one_thread,
    hostile_jobs.in_files_of_a_process_without_its_main_thread,
    pytest.param(
        hostile_jobs.locks_a_file_into_memory,
        marks=pytest.mark.skipif(os.geteuid() != 0, reason="locking takes CAP_IPC_LOCK"),
    ),
    pytest.param(
        hostile_jobs.in_a_tmpfs_of_its_own,
        marks=pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes CAP_SYS_ADMIN"),
    ),
]


@pytest.mark.parametrize("grow", GROW, ids=lambda each: each.__name__)
def test_the_ceiling_holds_whatever_a_job_calls_itself(
    connection: Redis, work_off: WorkOff, grow: Callable[[], None]
) -> None:
    job = Queue("jobs", connection=connection).enqueue(grow, job_timeout=60)
    log = work_off("jobs", "--memory", "128", "--cgroup", "off")
    assert job.get_status() == JobStatus.FAILED, log
    assert "MemoryLimitExceeded: " in job.latest_result().exc_string
    assert "unhandled exception" not in log and "part of the heartbeat failed" not in log


def test_an_honest_job_is_let_be_and_a_snapshot_of_it_taken(
    connection: Redis, start_worker: StartWorker, tmp_path: Path
) -> None:
    job = Queue("jobs", connection=connection).enqueue(hostile_jobs.honest_with_such_names)
    options = ("jobs", "--memory", "128", "--cgroup", "off")
    worker = start_worker(*options, RQMEM_PROFILE_DIR=str(tmp_path / "profiles"))
    wait_until(lambda: connection.exists("named"))
    os.kill(worker.pid, signal.SIGUSR2)
    wait_until(lambda: list((tmp_path / "profiles").glob("snapshot-*.txt")))
    connection.set("go on", 1)
    wait_until(lambda: job.get_status() not in (JobStatus.QUEUED, JobStatus.STARTED))
    log = worker.stop()
    assert job.return_value() == "well", log
    assert worker.process.returncode == 0 and "Traceback" not in log


def test_a_job_that_lowers_its_limit_of_files_ends_well(connection: Redis, work_off: WorkOff) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    job = Queue("jobs", connection=connection).enqueue(hostile_jobs.may_open_no_files, most)
    log = work_off("jobs", "--memory", "128")
    assert job.return_value() == "well", log


def test_a_horse_that_may_open_no_files_does_not_wait_for_redis(connection: Redis, work_off: WorkOff) -> None:
    """It waited until a minute after the job's time limit, and for ever where it has none."""
    job = Queue("jobs", connection=connection).enqueue(hostile_jobs.grows_and_may_open_no_files, job_timeout=-1)
    log = work_off("jobs", "--memory", "128", "--cgroup", "off")
    assert job.get_status() == JobStatus.FAILED, log
    assert "MemoryLimitExceeded: " in job.latest_result().exc_string


@pytest.mark.skipif(os.geteuid() != 0, reason="leaving the network takes CAP_SYS_ADMIN")
@pytest.mark.parametrize("lease", ["0", "64"])
def test_a_horse_that_cannot_reach_redis_any_more_ends(
    connection: Redis, work_off: WorkOff, tmp_path: Path, lease: str
) -> None:
    """It waited for a Redis that was there all the time, and SIGTERM waited with it."""
    queue = Queue("jobs", connection=connection)
    job = queue.enqueue(hostile_jobs.leave_the_network_for_good, str(tmp_path), job_timeout=-1)
    after = queue.enqueue(sample_jobs.own_pid)
    log = work_off("jobs", RQMEM_LEASE_MAX=lease)
    assert [job.get_status(), after.get_status()] == [JobStatus.FAILED, JobStatus.FINISHED], log
    assert log.count("its horse ends, and its job with it: code of users has changed the network") == 1
    assert "Traceback" not in log


@pytest.mark.skipif(os.geteuid() != 0, reason="another root directory takes CAP_SYS_CHROOT")
def test_a_horse_in_another_root_directory_is_replaced(connection: Redis, work_off: WorkOff, tmp_path: Path) -> None:
    queue = Queue("jobs", connection=connection)
    jobs = [queue.enqueue(hostile_jobs.change_root, str(tmp_path)) for _ in range(2)]
    log = work_off("jobs")
    assert [each.return_value() for each in jobs] == ["well"] * 2, log
    assert log.count("left its process changed: ") == 2


@pytest.mark.parametrize("kind", ["pipe", "pipe on sys.path", "device"])
def test_a_traceback_waits_for_no_pipe(connection: Redis, work_off: WorkOff, tmp_path: Path, kind: str) -> None:
    """The horse waited for a writer, and for ever where the job has no time limit."""
    os.mkfifo(tmp_path / "pipe.py")
    path = {"pipe": str(tmp_path / "pipe.py"), "device": "/dev/zero"}.get(kind, "pipe.py")
    job = Queue("jobs", connection=connection).enqueue(hostile_jobs.raises_in_code_of, path, job_timeout=-1)
    log = work_off("jobs", PYTHONPATH=f"{tmp_path}:{Path.cwd()}")
    assert job.latest_result().exc_string.rstrip().endswith("ValueError: on purpose"), log


def test_a_mount_whose_name_is_no_utf8_changes_nothing(tmp_path: Path) -> None:
    """A stick whose label is in Latin-1, say."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes CAP_SYS_ADMIN")
    code = "from rqmem.measure import cgroup_files; print(cgroup_files.read_own())"
    script = f'd="{tmp_path}/$(printf "Schl\\374ssel")"; mkdir "$d"; mount -t tmpfs none "$d" && exec "$@"'
    command = [sys.executable, "-c", code]
    plain = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, plain.stdout), done.stderr


@pytest.mark.parametrize("name", ["x kB", "RssAnon: 1 kB", "7 kB", "a\x0bVmRSS: 1 kB", " kB"])
def test_sizes_are_read_beside_any_name(name: str) -> None:
    kb = procfs.parse_kb(f"Name:\t{name}\nVmRSS:\t     12 kB\nRssAnon:\t      9 kB\n")
    assert (kb["VmRSS"], kb["RssAnon"]) == (12, 9)


def test_a_branch_whose_name_is_no_utf8_does_not_hide_the_commit(tmp_path: Path) -> None:
    git = tmp_path / ".git"
    git.mkdir()
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_bytes(b"a" * 40 + b" refs/heads/Schl\xfcssel\n" + b"b" * 40 + b" refs/heads/main\n")
    assert commit(tmp_path) == "b" * 40
