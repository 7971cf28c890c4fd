"""Processes that the worker may not examine, may not signal, or does not see: real users, capabilities and mounts."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.job import JobStatus

from rqmem.events import Breach
from rqmem.measure import cgroup_files, process_tree
from rqmem.store import execution_reader
from tests import sample_jobs
from tests.conftest import WorkOff

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv to become others"
)

NOBODY, USER = 65534, 12345
EXAMINES = "-sys_ptrace,-perfmon,-sys_admin,-checkpoint_restore"  # what Docker leaves out, as far as it matters here
ENDS = "-kill"


def without(*capabilities: str) -> list[str]:
    listed = ",".join(capabilities)
    return ["setpriv", f"--bounding-set={listed}", f"--inh-caps={listed}"]


def as_user() -> list[str]:
    """Not root, and without its rights but for reading this checkout and its interpreter."""
    reads = "+dac_read_search"
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", f"--inh-caps={reads}",
            f"--ambient-caps={reads}"]  # fmt: skip


def hiding_others() -> list[str]:
    """As a user who sees no processes but its own."""
    script = 'mount -t proc -o hidepid=2 proc /proc && exec "$@"'
    changes = "+dac_read_search,+setuid,+setgid"
    user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", f"--inh-caps={changes}",
            f"--ambient-caps={changes}"]  # fmt: skip
    return ["unshare", "--mount", "sh", "-c", script, "sh", *user]


@pytest.fixture
def queue(connection: Redis, redis_url: str) -> Queue:
    if redis_url.startswith("unix://"):
        socket = Path(redis_url.removeprefix("unix://").partition("?")[0])
        socket.chmod(0o777)
    return Queue("jobs", connection=connection)


def only_breach(queue: Queue, job_id: str) -> Breach:
    [breach] = execution_reader.breaches(queue.connection, job_id)
    return breach


@pytest.mark.parametrize("work", [sample_jobs.grow_in_tail, sample_jobs.grow_in_a_bare_fork], ids=["program", "fork"])
def test_a_child_of_another_user_counts_whole_where_it_may_not_be_examined(
    queue: Queue, work_off: WorkOff, work: Callable[..., None]
) -> None:
    job = queue.enqueue(work, 600, NOBODY)
    log = work_off("jobs", "--memory", "128", "--cgroup", "off", prefix=without(EXAMINES))
    assert job.get_status() == JobStatus.FAILED
    breach = only_breach(queue, job.id)
    assert breach.counted_whole == breach.processes - 1  # all but the horse
    assert breach.peak_mb < 128 + 100
    assert f"processes, {breach.counted_whole} of them counted whole)" in job.latest_result().exc_string
    assert f"counted whole: {breach.counted_whole} of its processes" in log


def test_it_is_measured_exactly_where_it_may_be_examined(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.grow_in_tail, 600, NOBODY)
    work_off("jobs", "--memory", "128", "--cgroup", "off")
    assert only_breach(queue, job.id).counted_whole == 0


def test_a_child_that_is_not_dumpable_counts_for_a_worker_that_is_not_root(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.grow_in_a_bare_fork, 600)
    work_off("jobs", "--memory", "128", "--cgroup", "off", prefix=as_user())
    assert job.get_status() == JobStatus.FAILED
    assert only_breach(queue, job.id).counted_whole == 1


@pytest.mark.parametrize(
    ("dumpable", "programs", "seconds"), [(True, 100, 0), (False, 100, 0), (True, 1, 0.8), (False, 1, 0.8)]
)
def test_programs_started_as_another_user_do_not_count_the_forks_copy_of_their_parent(
    queue: Queue, work_off: WorkOff, dumpable: bool, programs: int, seconds: float
) -> None:
    job = queue.enqueue(sample_jobs.start_as, NOBODY, 80, dumpable, programs, seconds)
    work_off("jobs", "--memory", "150", "--cgroup", "off", prefix=without(EXAMINES))
    assert job.return_value() == 0, job.latest_result().exc_string


def test_a_horse_that_is_not_dumpable_is_held_to_its_ceiling(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.be_unexaminable_and_grow)
    work_off("jobs", "--memory", "128", "--cgroup", "off", prefix=as_user())
    assert job.get_status() == JobStatus.FAILED
    assert only_breach(queue, job.id).counted_whole == 1


def test_what_the_worker_may_not_end_is_named_and_the_next_job_runs(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.grow_in_a_bare_fork, 200, NOBODY)
    after = queue.enqueue(sample_jobs.add, 2, 3)
    log = work_off("jobs", "--memory", "128", "--cgroup", "off", prefix=without(EXAMINES, ENDS))
    child = int(queue.connection.get("child"))
    try:
        assert not process_tree.is_zombie(child)
        assert job.get_status() == JobStatus.FAILED
        assert [pid for pid, _ in only_breach(queue, job.id).beyond_reach] == [child]
        assert re.search(rf"processes of job {job.id} go on, .* may not end them: \S+ \({child}\)", log)
        assert after.return_value() == 5
    finally:
        os.kill(child, signal.SIGKILL)


def test_what_the_worker_may_not_end_stays_in_its_cgroup_below_the_limit(queue: Queue, work_off: WorkOff) -> None:
    own = cgroup_files.read_own()
    if own is None or own.version != "v1":
        pytest.skip("v2 ends a group whosever its processes are")
    queue.enqueue(sample_jobs.grow_beside_another_user, NOBODY)
    work_off("jobs", "--memory", "128", "--cgroup", "require", prefix=without(EXAMINES, ENDS))
    child = int(queue.connection.get("child"))
    try:
        assert not process_tree.is_zombie(child)
        line = next(each for each in Path(f"/proc/{child}/cgroup").read_text().splitlines() if ":memory:" in each)
        group = own.top / line.rpartition(":")[2].lstrip("/")
        assert group.name.startswith("rqmem-")
        assert int((group / "memory.limit_in_bytes").read_text()) < 2**30
    finally:
        os.kill(child, signal.SIGKILL)


def test_what_proc_hides_is_named(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.grow_in_tail, 200, NOBODY)
    log = work_off("jobs", "--memory", "128", "--cgroup", "off", prefix=hiding_others())
    assert job.get_status() == JobStatus.FINISHED  # all that can be done is to say it
    assert f"processes of job {job.id} used did not count" in log


def test_the_ceiling_holds_for_all_others_beside_a_hidden_process(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.grow_beside_another_user, NOBODY)
    work_off("jobs", "--memory", "128", "--cgroup", "off", prefix=hiding_others())
    assert job.get_status() == JobStatus.FAILED
    assert only_breach(queue, job.id).hidden == 1


def test_the_child_of_a_hidden_process_is_found() -> None:
    """As seen by a process in a mount namespace whose /proc hides the one between."""
    code = (
        "import os, time\n"
        "from rqmem.measure import process_tree\n"
        "ready = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    grandchild = os.fork()\n"
        f"    os.setresuid(*[{USER} if grandchild == 0 else {NOBODY}] * 3)\n"
        "    os.write(ready[1], b'x')\n"
        "    time.sleep(60)\n"
        f"os.setresuid({USER}, {USER}, {USER})\n"
        "os.read(ready[0], 1); os.read(ready[0], 1)\n"
        "found = process_tree.descendants(os.getpid())\n"
        "print(len(found), flush=True)\n"
    )
    script = 'mount -t proc -o hidepid=2 proc /proc && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "--kill-child", "--pid", "--fork", "sh", "-c", script, "sh", sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "2\n", done.stderr
