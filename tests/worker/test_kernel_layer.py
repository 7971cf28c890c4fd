"""The kernel's layer: what it adds to the watcher, and five ends that RQ tells alike."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus

from rqmem.breach_words import explanation
from rqmem.errors import ConfigError
from rqmem.measure import cgroup, cgroup_places, process_tree, procfs
from rqmem.measure.cgroup import Group, Place
from rqmem.store import execution_reader
from rqmem.testing import wait_until
from rqmem.worker.exit_reason import Circumstances, how_horse_ended
from rqmem.worker.kernel import kernel_layer
from tests import forked, kernel_jobs, sample_jobs
from tests.conftest import ROOT, StartWorker, WorkOff, wait_for_key

pytestmark = pytest.mark.alone  # the kernel kills for them, and elsewhere it must not
MB = 2**20


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    taken = cgroup_places.take()
    if isinstance(taken, str):
        pytest.skip(f"no memory group can be made: {taken}")
    yield taken.place
    cgroup_places.leave(taken)


@pytest.fixture(autouse=True)
def nothing_left(place: Place) -> Iterator[None]:
    yield
    cgroup.remove_stale(place)  # those of workers that a test has killed
    groups = {path.name: cgroup.parse_worker(path.name) for path in place.path.iterdir()}
    assert not [name for name, worker in groups.items() if worker and process_tree.is_gone(*worker)]


def result_of(job: Job) -> str:
    return (job.latest_result().exc_string or "").strip().splitlines()[-1]


def test_data_in_tmpfs_that_nobody_maps_is_a_breach_by_the_kernel(queue: Queue, work_off: WorkOff) -> None:
    job, after = queue.enqueue(sample_jobs.fill_tmpfs), queue.enqueue(sample_jobs.add, 1)
    path = Path(f"/dev/shm/rqmem-test-{job.id}")
    try:
        log = work_off("jobs", "--memory", "128", "--cgroup", "require")
        assert result_of(job).endswith("by kernel, 1 process)"), log
        [breach] = execution_reader.breaches(queue.connection, job.id)
        assert 128 < breach.used_mb <= 160
        assert breach.shared_mb is not None
        assert breach.shared_mb > 100
        assert "in tmpfs:" in log
        assert after.return_value() == 2
        assert path.stat().st_blocks * 512 < 200 * MB
    finally:
        path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def hidden(place: Place, redis_url: str) -> dict[tuple[str, int, bool], Job]:
    """All jobs that hide memory, under one worker."""
    with Redis.from_url(redis_url) as connection:
        connection.flushall()
        queue = Queue("jobs", connection=connection)
        jobs = {
            key: queue.enqueue(kernel_jobs.hide, key[0], 400, key[1], cache_stays=key[2], job_timeout=600)
            for key in HIDDEN
        }
        options = ["--burst", "--memory", "128", "--cgroup", "require"]
        done = forked.run_module("rqmem", "worker", "jobs", *options, timeout=600, RQMEM_REDIS_URL=redis_url)
        assert done.returncode == 0, done.stderr
        for (how, *_), job in jobs.items():
            assert job.get_status() == JobStatus.FAILED, job.return_value()
            [breach] = execution_reader.breaches(connection, job.id)
            assert breach.used_mb > 128
            seen = how == "in_locked_file" and breach.layer != "kernel"  # the watcher counts that, too
            assert seen or "by kernel" in result_of(job)
            job.meta["explained"] = "in the kernel:" if seen else "\n".join(explanation(breach))
        return jobs


HIDDEN = [
    (how.__name__, cache_mb, stays)
    for how in kernel_jobs.HIDERS
    for cache_mb, stays in ((0, True), (200, True), (200, False))
]


@pytest.mark.parametrize("key", HIDDEN, ids=lambda key: f"{key[0]}-{key[1]}-{'stays' if key[2] else 'gone'}")
def test_memory_of_no_process_is_the_jobs_whatever_page_cache_it_has(
    hidden: dict[tuple[str, int, bool], Job], key: tuple[str, int, bool]
) -> None:
    label = "in the kernel:" if key[0] not in ("in_memfd", "in_system_v_segment") else "in tmpfs:"
    assert label in hidden[key].meta["explained"]


@pytest.mark.parametrize(
    ("job", "arguments", "result"),
    [
        (kernel_jobs.write_and_read, [1000], 1000),
        (kernel_jobs.map_and_change, [500], 500),
        (kernel_jobs.many_names, [200_000, 300], 200_000),
    ],
    ids=["files", "a mapped file", "names"],
)
def test_what_the_kernel_keeps_of_files_is_no_breach(
    queue: Queue, work_off: WorkOff, job: Callable[..., int], arguments: list[int], result: int
) -> None:
    done = queue.enqueue(job, *arguments, job_timeout=900)
    log = work_off("jobs", "--memory", "64", "--cgroup", "require")
    assert done.return_value() == result, log


def test_the_kernel_kills_the_largest_process_and_the_job_is_told_all_the_same(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.have_a_child_killed_at_the_limit)
    work_off("jobs", "--memory", "128", "--cgroup", "require", RQMEM_GROWTH_RATE="1")  # a watcher that looks too late
    assert "MemoryLimitExceeded" in result_of(job)
    assert execution_reader.breaches(queue.connection, job.id)[0].layer in ("kernel", "watch")
    assert process_tree.is_zombie(int(queue.connection.get("child")))


@pytest.mark.parametrize("isolation", ["warm", "fork"])
def test_a_ceiling_that_a_job_raises_is_raised_for_the_kernel_too(
    queue: Queue, work_off: WorkOff, isolation: str
) -> None:
    big = sample_jobs.DeclaresMuch.enqueue(queue, megabytes=350)
    small = queue.enqueue(sample_jobs.grow_in_c)
    work_off("jobs", "--cgroup", "require", "--isolation", isolation, MEMORY_DEFAULT_LIMIT_MB="128")
    assert big.return_value() == 350
    assert "of 128 MB" in result_of(small)
    [breach] = execution_reader.breaches(queue.connection, small.id)
    assert breach.peak_mb <= 161, "ceiling and reserve, and what the reading of a process may be ahead of its group"


def test_a_daemon_that_a_job_left_is_nobodys_memory(queue: Queue, work_off: WorkOff) -> None:
    first = queue.enqueue(sample_jobs.leave_a_growing_daemon, 200)
    after = queue.enqueue(sample_jobs.hold, 90)
    work_off("jobs", "--memory", "128", "--cgroup", "require")
    daemon = first.return_value()
    try:
        assert after.return_value() == 90 * MB
        wait_until(lambda: (rollup := procfs.read_usage(daemon)) and rollup.usage_bytes > 200 * MB)
    finally:
        os.kill(daemon, signal.SIGKILL)
        wait_until(lambda: process_tree.is_zombie(daemon))


def test_what_a_job_left_in_tmpfs_is_not_the_next_ones(queue: Queue, work_off: WorkOff) -> None:
    first = queue.enqueue(kernel_jobs.leave_in_tmpfs, 100)
    after = queue.enqueue(sample_jobs.hold, 90)
    try:
        log = work_off("jobs", "--memory", "128", "--cgroup", "require")
        assert after.return_value() == 90 * MB, result_of(after)
        assert "MB for tmpfs and the kernel's memory" in log
    finally:
        Path(first.return_value()).unlink(missing_ok=True)


def test_without_a_group_it_works_as_before(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.grow_in_c)
    log = work_off("jobs", "--memory", "128", "--cgroup", "off")
    assert "by kill" in result_of(job)
    assert "kept by watcher\n" in log


def test_one_that_is_required_and_not_to_be_had_is_bad_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup_places, "take", lambda: "/sys/fs/cgroup is not writable: Permission denied")
    assert kernel_layer("auto", 32 * MB, 0) is None
    with pytest.raises(
        ConfigError, match="--cgroup require: /sys/fs/cgroup is not writable: Permission denied; 'rqmem"
    ):
        kernel_layer("require", 32 * MB, 0)


def test_survivors_of_a_killed_workers_horse_are_found_by_its_group(
    queue: Queue, start_worker: StartWorker, work_off: WorkOff
) -> None:
    job = sample_jobs.ForksOnce.enqueue(queue)
    worker = start_worker("jobs", "--cgroup", "require")
    wait_until(lambda: queue.connection.exists("child"))
    child = int(queue.connection.get("child"))
    worker.process.kill()
    worker.process.wait()
    assert not process_tree.is_zombie(child), "a plain fork has no mark and no parent that takes it along"
    another = start_worker("jobs", "--cgroup", "require", RQMEM_HEARTBEAT="0.3")
    wait_until(lambda: job.get_status() == JobStatus.FINISHED, 120)
    another.stop()
    assert process_tree.is_zombie(child)


# Five ends


def test_a_segfault_is_told(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.crash)
    work_off("jobs")
    assert re.search(
        r"waitpid returned \d+ \(signal 11, SIGSEGV\): it crashed in native code; the job ", result_of(job)
    )


def test_an_exit_is_told(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.exit_quietly)
    work_off("jobs")
    assert "(exit code 0): it left in the middle of the job, by os._exit" in result_of(job)


def test_a_kill_by_somebody_is_told(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.killed_by_somebody)
    work_off("jobs")
    assert "its memory was below the ceiling): somebody killed it, and not for memory" in result_of(job)


@pytest.mark.parametrize("how", ["auto", "off"])
def test_a_kill_for_the_containers_limit_is_told(queue: Queue, place: Place, redis_url: str, how: str) -> None:
    """A group around a worker is what a container's limit is."""
    job = queue.enqueue(sample_jobs.grow_in_c)
    container = Group.make(place, f"rqmem test container {os.getpid()}", 150 * MB)
    try:
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "RQMEM_REDIS_URL": redis_url}
        command = [sys.executable, "-m", "rqmem", "worker", "jobs", "--burst", "--memory", "1000", "--cgroup", how]
        done = subprocess.run(
            command, env=environ, cwd=ROOT, capture_output=True, text=True, preexec_fn=container.enter, timeout=60
        )
        if done.returncode == -signal.SIGKILL:
            pytest.skip("the kernel chose the worker and not its horse")
        last = result_of(job)
    finally:
        container.kill()
        wait_until(container.remove)
    assert "the kernel killed it for want of memory; the container or service it runs in may use 150 MB" in last
    assert "MemoryLimitExceeded" not in last
    assert "a reserve of 32 MB are more than the 150 MB that this container may use" in done.stderr


@pytest.mark.parametrize("how", ["auto", "off"])
def test_a_kill_for_the_memory_of_another_group_is_not_taken_for_this_jobs(
    queue: Queue, place: Place, start_worker: StartWorker, how: str
) -> None:
    """As when another worker's job reaches its ceiling, in the second in which somebody kills this one's horse."""
    job = queue.enqueue(sample_jobs.say_hello_and_sleep, 600)
    worker = start_worker("jobs", "--burst", "--cgroup", how)
    wait_for_key(queue.connection, "asleep")
    other = Group.make(place, "rqmem test other", 40 * MB)
    try:
        fill = [sys.executable, "-c", "b'x' * (200 * 2**20)"]
        assert subprocess.run(fill, preexec_fn=other.enter, check=False).returncode == -signal.SIGKILL
        assert other.kernel_kills() > 0
    finally:
        other.kill()
        wait_until(other.remove)
    os.kill(int(queue.connection.get("asleep")), signal.SIGKILL)
    log = worker.finish()
    assert "its memory was below the ceiling): somebody killed it, and not for memory" in result_of(job), log


def test_each_end_has_its_own_words() -> None:
    below = Circumstances(80.0, 256.0, "rows 1-9", in_job=True, memory_ran_out=None, container_mb=None)
    short = Circumstances(80.0, 256.0, "", in_job=True, memory_ran_out="group", container_mb=None)
    somewhere = Circumstances(80.0, 256.0, "", in_job=True, memory_ran_out="machine", container_mb=None)
    boxed = Circumstances(80.0, 256.0, "", in_job=True, memory_ran_out="group", container_mb=512.0)
    after = Circumstances(80.0, 256.0, "", in_job=False, memory_ran_out=None, container_mb=None)
    cases = [
        (9, below),
        (9, short),
        (9, boxed),
        (9, somewhere),
        (11, below),
        (15, below),
        (3 << 8, below),
        (3 << 8, after),
        (None, below),
    ]
    lines = [how_horse_ended(status, seen) for status, seen in cases]
    assert len(set(lines)) == len(lines)
    assert all(line.startswith("Work-horse terminated unexpectedly; waitpid returned") for line in lines)
    assert lines[0].endswith("; the job used 80 MB of 256 at 'rows 1-9'")
    assert "OOM killer" in lines[1]
    assert "may use 512 MB" in lines[2]
    assert "the kernel killed somebody on this machine" in lines[3]
    assert "(exit code 3): it left outside the job's code (in a callback, an exception handler)" in lines[7]
