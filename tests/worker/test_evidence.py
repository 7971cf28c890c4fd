"""What a breach tells: where, what, how fast, which processes, and that it is kept with the job."""

from __future__ import annotations

from pathlib import Path

import pytest
from rq import Queue

from rqmem.events import Breach
from rqmem.store import codec, execution_reader
from tests import sample_jobs
from tests.conftest import WorkOff

pytestmark = pytest.mark.races


def only_breach(queue: Queue, job_id: str) -> Breach:
    [breach] = execution_reader.breaches(queue.connection, job_id)
    return breach


def test_the_kinds_of_objects_that_grew_are_told(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.collect_rows)
    log = work_off("jobs", "--memory", "128")
    breach = only_breach(queue, job.id)
    kinds = {name: (count, used_mb) for name, count, used_mb in breach.kinds}
    assert kinds["dict"][0] > 100_000
    assert sum(used_mb for _, used_mb in kinds.values()) > 0.6 * breach.used_mb
    assert f"what grew:     dict +{kinds['dict'][0]:,} (" in log
    assert breach.peak_mb < breach.used_mb + 8, "looking at them takes little memory, and no time to take more"


def test_what_an_earlier_job_left_in_the_horse_did_not_grow(queue: Queue, work_off: WorkOff) -> None:
    queue.enqueue(sample_jobs.keep_small_objects, 300_000)
    job = queue.enqueue(sample_jobs.grow_blocks)
    work_off("jobs", "--memory", "512")  # of which it left less than a twentieth, so the horse stays
    breach = only_breach(queue, job.id)
    assert [name for name, _, _ in breach.kinds] == ["bytearray"]
    assert breach.baseline_mb is not None
    assert breach.baseline_mb > 25


def test_a_breach_at_a_checkpoint_tells_as_much(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue("tests.sample_jobs.GrowsBelowTheWatch.run")
    work_off("jobs", "--memory", "512")
    breach = only_breach(queue, job.id)
    assert breach.layer == "checkpoint"
    assert breach.checkpoints[-1][0] == "the end"
    assert len(breach.checkpoints) == 5
    assert breach.kinds[0][0] == "bytearray"
    assert "sample_jobs.py" in breach.grew[0][1]


def test_the_tree_is_told_by_process_and_arguments_stay_secret(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.grow_in_a_child)
    log = work_off("jobs", "--memory", "128")
    breach = only_breach(queue, job.id)
    (child, command, used_mb), (_, _, horse_mb) = breach.tree
    assert child == int(queue.connection.get("child"))
    assert used_mb > horse_mb
    assert f"processes:     {used_mb:.0f} MB {command} ({child}), " in log
    assert "bytearray(2**20)" not in codec.to_json(breach)


def test_segments_that_dead_processes_leave_are_reported(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.share_and_grow_in_c)
    log = work_off("jobs", "--memory", "128")
    name = Path("/dev/shm") / queue.connection.get("segment").decode()
    try:
        assert only_breach(queue, job.id).segments_left == [(str(name), 20.0)]
        assert f"left {name} (20 MB)" in log
    finally:
        name.unlink()


def test_the_breach_is_kept_with_the_job_and_the_jobs_own_meta_stays(queue: Queue, work_off: WorkOff) -> None:
    for work in (sample_jobs.save_meta_and_grow, sample_jobs.save_meta_and_grow_in_c):
        job = queue.enqueue(work, meta={"given": 1})
        work_off("jobs", "--memory", "128")
        job.refresh()
        assert job.meta["given"] == 1
        assert job.meta["saved"] == "by the job"
        told = job.meta["rqmem"]
        assert told["breach"] == only_breach(queue, job.id).summary()
        assert told["next"] == "failed"


def test_no_unfinished_curve_and_no_growth_before_time(queue: Queue, work_off: WorkOff) -> None:
    job = queue.enqueue(sample_jobs.collect_rows)
    work_off("jobs", "--memory", "128")
    breach = only_breach(queue, job.id)
    seconds = [before for before, _ in breach.curve]
    assert seconds == sorted(seconds, reverse=True)
    assert 1 <= len(seconds) <= 30
    assert breach.curve[-1][1] <= breach.peak_mb
