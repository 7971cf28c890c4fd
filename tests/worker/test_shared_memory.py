"""Shared memory without a cgroup: what no process's own figures tell of counts, once, and is named when it is left."""

from __future__ import annotations

import ctypes
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.job import JobStatus

from rqmem.measure import shared_objects
from rqmem.store import execution_reader
from tests import sample_jobs
from tests.conftest import WorkOff

MB = 2**20
CEILING_MB = 150
OPTIONS = ("jobs", "--memory", str(CEILING_MB), "--cgroup", "off")


def remove_segment(number: int) -> None:
    ctypes.CDLL(None).shmctl(number, 0, None)


@pytest.fixture
def queue(connection: Redis) -> Iterator[Queue]:
    yield Queue("jobs", connection=connection)
    for number in connection.lrange("segments", 0, -1):
        remove_segment(int(number))


@pytest.fixture
def file_in_shm() -> Iterator[Path]:
    path = Path("/dev/shm") / f"rqmem-test-{uuid.uuid4().hex}"
    yield path
    path.unlink(missing_ok=True)


FILLS = [
    sample_jobs.fill_memfds,
    sample_jobs.fill_memfds_in_children,
    sample_jobs.touch_shared_mapping_in_children,
    sample_jobs.fill_segments,
]


@pytest.mark.parametrize("fill", FILLS, ids=lambda each: each.__name__)
def test_it_counts_although_no_process_has_it_mapped(queue: Queue, work_off: WorkOff, fill: Callable) -> None:
    if fill is sample_jobs.touch_shared_mapping_in_children and os.geteuid() != 0:
        pytest.skip("map_files may not be followed")
    job = queue.enqueue(fill, 600)
    log = work_off(*OPTIONS)
    assert job.get_status() == JobStatus.FAILED
    assert "MemoryLimitExceeded" in job.latest_result().exc_string
    [breach] = execution_reader.breaches(queue.connection, job.id)
    assert breach.used_mb >= CEILING_MB  # rounded to a tenth
    assert breach.shared_mb is not None and breach.shared_mb > 50
    assert "of shared memory or files that none of its processes has mapped" in log


def test_what_is_left_in_segments_is_named(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.fill_segments, 600)
    log = work_off(*OPTIONS)
    numbers = [int(number) for number in queue.connection.lrange("segments", 0, -1)]
    assert all(f"SysV segment {number} (ipcrm -m {number}) (10 MB)" in log for number in numbers[:-1])
    assert job.get_status() == JobStatus.FAILED


def test_a_file_that_was_closed_and_is_left_is_named(queue: Queue, work_off: WorkOff, file_in_shm: Path) -> None:
    queue.enqueue(sample_jobs.leave_an_unmapped_file, 20, str(file_in_shm))
    log = work_off(*OPTIONS)
    assert f"left {file_in_shm} (20 MB)" in log


def test_files_of_others_do_not_count(queue: Queue, work_off: WorkOff, file_in_shm: Path) -> None:
    file_in_shm.write_bytes(bytes(300 * MB))
    job = queue.enqueue(sample_jobs.hold_a_file_of_others, str(file_in_shm), 50)
    work_off(*OPTIONS)
    assert job.return_value() == 51 * MB, job.latest_result().exc_string


def test_what_the_horse_held_before_a_job_does_not_count(queue: Queue, work_off: WorkOff) -> None:
    jobs = [queue.enqueue(sample_jobs.keep_a_memfd, 60) for _ in range(4)]
    work_off(*OPTIONS)
    assert all(job.get_status() == JobStatus.FINISHED for job in jobs)


def test_an_object_counts_once_whoever_holds_it() -> None:
    memfd = os.memfd_create("test")
    os.write(memfd, bytes(5 * MB))
    again = os.dup(memfd)
    child = os.fork()
    if child == 0:
        os.pause() if hasattr(os, "pause") else os.read(os.pipe()[0], 1)
        os._exit(0)
    try:
        held = shared_objects.held_by([os.getpid(), child])
        sizes = [each.size_bytes for each in held.values() if each.name.startswith("/memfd:test")]
        assert sizes == [5 * MB]
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(memfd)
        os.close(again)


MAPS = """\
7f00-7f01 rw-s 00000000 00:1a 5                          /dev/shm/psm 1
7f02-7f03 rw-s 00000000 00:01 6                          /memfd:x (deleted)
7f04-7f05 rw-s 00000000 00:01 32769                      /SYSV00000000 (deleted)
7f06-7f07 r-xp 00000000 08:01 7                          /usr/lib/x.so
7f08-7f09 rw-p 00000000 00:00 0                          [heap]
7f0a-7f0b rw-s 00000000 00:1a 8                          /dev/shm/a\x0bb 00: c 00:zz 9 d\x85\udcff
"""


def test_objects_are_read_from_maps() -> None:
    shm, internal = os.makedev(0, 0x1A), shared_objects.internal_device()
    minor = os.minor(internal)
    assert shared_objects.parse_mapped(MAPS.replace(" 00:01 ", f" 00:{minor:02x} ")) == {
        (shm, 5): ("7f00-7f01", "/dev/shm/psm 1"),
        (internal, 6): ("7f02-7f03", "/memfd:x (deleted)"),
        ("sysv", 32769): ("7f04-7f05", "/SYSV00000000 (deleted)"),
        (shm, 8): ("7f0a-7f0b", "/dev/shm/a\x0bb 00: c 00:zz 9 d\x85\udcff"),
    }


def test_segments_are_read() -> None:
    text = (
        "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime"
        "      dtime      ctime                   rss                  swap\n"
        "         0      32769   600              10485760   100   101      0     0     0     0     0 0 0 1700000000"
        "              10485760                  4096\n"
    )
    [segment] = shared_objects.parse_segments(text)
    assert (segment.number, segment.creator, segment.size_bytes) == (32769, 100, 10485760 + 4096)
