"""A job that leaves its process without descriptors, files or /proc is held to its ceiling all the same."""

from __future__ import annotations

import os

import pytest
from rq import Queue
from rq.job import JobStatus

from rqmem.store import execution_reader
from tests import sample_jobs
from tests.conftest import WorkOff

ROOTS = ("chroot", "proc")


@pytest.fixture(params=sample_jobs.CUT_OFF)
def how(request: pytest.FixtureRequest) -> str:
    if request.param in ROOTS and os.geteuid() != 0:
        pytest.skip("only root may")
    return str(request.param)


def test_the_breach_comes_and_no_other_error_in_its_place(queue: Queue, work_off: WorkOff, how: str) -> None:
    job = queue.enqueue(sample_jobs.be_cut_off_and_grow, how)
    after = queue.enqueue(sample_jobs.add, 2, 3)
    log = work_off("jobs", "--memory", "128", "--cgroup", "off")
    assert job.get_status() == JobStatus.FAILED, job.return_value()
    assert "MemoryLimitExceeded: tests.sample_jobs.be_cut_off_and_grow used" in job.latest_result().exc_string
    [breach] = execution_reader.breaches(queue.connection, job.id)
    assert breach.layer == "watch"
    assert [name for name, _, _ in breach.kinds] == ["bytearray"]
    assert after.return_value() == 5, log


@pytest.mark.parametrize("how", [each for each in sample_jobs.CUT_OFF if each != "chroot"], indirect=True)
def test_checkpoints_go_on_and_touch_no_file_of_the_jobs(queue: Queue, work_off: WorkOff, how: str) -> None:
    """Not after chroot: there a Redis on a Unix socket cannot be reached any more to save the run."""
    job = queue.enqueue("tests.sample_jobs.IsCutOff.run", how)
    log = work_off("jobs", "--memory", "256", "--cgroup", "off")
    assert job.get_status() == JobStatus.FINISHED, job.latest_result().exc_string
    read_mb, whole = job.return_value()
    assert all(40 < each < 90 for each in read_mb), log
    assert whole
