"""Peaks far below the ceiling, where readings are seldom: by the kernel's own mark."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from redis import Redis
from rq import Queue

from rqmem.events import Breach
from rqmem.measure import procfs
from rqmem.store import codec
from rqmem.store.history import history_reader
from rqmem.store.history.history_records import Run
from tests import forked, sample_jobs
from tests.conftest import WorkOff

pytestmark = pytest.mark.races
SAMPLE = "tests.sample_jobs."


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    with forked.starting_anew():
        yield


@pytest.fixture
def queue(connection: Redis, request: pytest.FixtureRequest) -> Queue:
    if request.config.getoption("--isolation") == "fork":
        pytest.skip("a horse that has ended has no mark any more: then peaks are samples")
    return Queue("jobs", connection=connection)


def runs(queue: Queue, name: str) -> list[Run]:
    """The oldest first."""
    return history_reader.runs(queue.connection, SAMPLE + name)[::-1]


def test_a_burst_between_two_readings_is_in_the_peak(queue: Queue, work_off: WorkOff) -> None:
    for mb in (1, 150, 5, 30):  # the first one imports its module, which stays
        queue.enqueue(sample_jobs.burst, mb)
    work_off("jobs", "--memory", "1024")
    _, first, second, third = runs(queue, "burst")
    assert 149 <= first.peak_mb - first.initial_mb < 150 + 8
    assert 4 <= second.peak_mb - second.initial_mb < 5 + 8, "the mark of the job before is set back"
    assert 29 <= third.peak_mb - third.initial_mb < 30 + 8
    assert not any(run.peak_sampled for run in (first, second, third))


def test_with_children_the_peak_is_marked_as_a_sample(queue: Queue, work_off: WorkOff) -> None:
    queue.enqueue(sample_jobs.burst_in_a_child, 200)
    work_off("jobs", "--memory", "1024")
    [run] = runs(queue, "burst_in_a_child")
    assert run.peak_sampled


def test_used_is_never_above_the_peak() -> None:
    whose = {"job": "j", "job_id": "1", "queue": "q", "worker": "w"}
    breach = Breach(used_mb=179.7, limit_mb=150, peak_mb=166.1, layer="kernel", processes=1, operation="", **whose)
    assert breach.peak_mb == 179.7
    assert codec.from_json(Breach, codec.to_json(breach)) == breach


def test_the_mark_of_another_process_can_be_set_back() -> None:
    block = bytearray(60 * 2**20)
    del block
    procfs.set_mark_back(os.getpid())
    kb = procfs.parse_kb(procfs.read_status(os.getpid()))
    assert kb["VmHWM"] - kb["VmRSS"] < 2048
