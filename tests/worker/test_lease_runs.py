"""Memory-aware jobs and children under leases: as cheap as plain ones, and everything stays as without leases."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus

from rqmem.child_ids import child_id
from rqmem.store import execution_reader, keys
from rqmem.store.execution_records import RunRecord
from rqmem.store.history import history_reader
from rqmem.testing import wait_until
from tests.conftest import StartWorker
from tests.lease_run_jobs import Add, Chunks, Failing, Nothing
from tests.worker.test_lease import leased, nothing_is_left

WorkOff = Callable[..., str]
NUMBERS = 240  # of 40 children


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A line for each chunk that was begun."""
    return tmp_path / "notes"


@pytest.fixture
def start_worker(request: pytest.FixtureRequest, start_worker: StartWorker, notes: Path) -> StartWorker:
    """Workers with leases."""
    if request.config.getoption("--isolation") == "fork":
        pytest.skip("a horse for one job takes no lease")
    own = {"RQMEM_LEASE_MAX": "64", "TESTS_NOTES": str(notes)}
    return lambda *options, **environ: start_worker(*options, **{**own, **environ})


def children(parent: Job, count: int = NUMBERS // 6) -> list[str]:
    return [child_id(parent.id, number) for number in range(count)]


def chunks(notes: Path) -> list[str]:
    return notes.read_text().splitlines()


def added(parent: Job, log: str, numbers: int = NUMBERS) -> None:
    """Each child has ended well and counts once."""
    assert parent.return_value(refresh=True) == [numbers // 6, sum(range(numbers))], log
    split = execution_reader.run(parent.connection, parent.id).split
    assert split is not None and (split.ended, split.failed, split.items) == (numbers // 6, 0, numbers), (split, log)
    nothing_is_left(Queue("jobs", connection=parent.connection))


def record(connection: Redis, job_id: str) -> dict[str, Any]:
    """The record of a run, without what differs from run to run."""
    raw = {name.decode(): value.decode() for name, value in connection.hgetall(keys.run(job_id)).items()}
    varies = ("job_created_at", "run_id", "seconds", "held", "split_started_at", "split_ended_at")
    own = {name: value for name, value in raw.items() if name not in varies and not name.endswith("peak_mb")}
    return {name: "" if name.startswith("chunk_state") else value for name, value in own.items()}


# The same as without leases


@pytest.mark.parametrize("result_ttl", [None, -1])
def test_what_children_leave_is_what_they_leave_without_leases(
    connection: Redis, work_off: WorkOff, result_ttl: int | None, notes: Path
) -> None:
    left = []
    for lease_max in ("0", "64"):
        parent = Add.enqueue(numbers=60, connection=connection, job_id="adds", result_ttl=result_ttl)
        log = work_off("jobs", "--lease-max", lease_max)
        assert (leased(log) > 0) == (lease_max == "64"), log
        assert notes.exists(), log
        runs = {job_id: record(connection, job_id) for job_id in children(parent, 10)}
        live = {
            key: (connection.type(key), round(connection.ttl(key), -2))
            for key in sorted(connection.scan_iter("rq*:adds*"))
            if b":story:" not in key  # short runs that end well tell none
            and key != keys.parent_told(parent.id).encode()  # for a second
        }
        own = record(connection, parent.id), connection.hgetall(keys.gathered(parent.id))
        left.append((runs, live, own, sorted(chunks(notes)), connection.lrange(keys.ENDED_SPLITS, 0, -1) != []))
        connection.flushall()
        notes.unlink()
    for without, under in zip(*left, strict=True):
        assert under == without


def test_a_run_of_three_chunks_has_its_record(connection: Redis, queue: Queue, work_off: WorkOff) -> None:
    jobs = [Chunks.enqueue(name=str(number), connection=connection) for number in range(40)]
    log = work_off("jobs")
    assert leased(log) > 0, log
    for number, job in enumerate(jobs):
        assert job.return_value() == [0, 1, 2]
        run = execution_reader.run(connection, job.id)
        assert (run.items, run.chunks, run.finished, run.on_breach) == ({0: 3}, 3, True, "resume"), (number, run)
        assert run.is_over(job.created_at.isoformat()) and run.run_id and run.peak_mb > 0
        assert not connection.exists(keys.results(job.id))
    totals = history_reader.totals(connection, ["tests.lease_run_jobs.Chunks"])["tests.lease_run_jobs.Chunks"]
    assert (totals.runs, totals.jobs, totals.chunks, totals.items) == (40, 40, 120, 120), log
    nothing_is_left(queue)


def test_history_counts_children_exactly(connection: Redis, work_off: WorkOff) -> None:
    parent = Add.enqueue(numbers=NUMBERS, connection=connection)
    log = work_off("jobs")
    added(parent, log)
    job_type = "tests.lease_run_jobs.Add"
    totals = history_reader.totals(connection, [job_type])[job_type]
    # The parent that split, its children and the gather; one of them was enqueued by somebody.
    assert (totals.runs, totals.jobs, totals.splits, totals.items) == (42, 1, 1, NUMBERS), log


def test_a_job_that_does_nothing_costs_about_as_much_as_a_plain_one(
    connection: Redis, queue: Queue, work_off: WorkOff
) -> None:
    jobs = 300
    for number in range(jobs):
        Nothing.enqueue(name=str(number), connection=connection)
    connection.config_resetstat()
    log = work_off("jobs")
    stats: Any = connection.info("commandstats")
    commands = sum(each["calls"] for each in stats.values())
    by_itself = jobs - leased(log)
    # On a machine that is busy, jobs are shown as running; each that ran by itself costs some 80.
    assert commands - 90 * by_itself < 45 * jobs, (commands / jobs, by_itself, log)


# Whatever happens to one of them


@pytest.mark.parametrize("where", ["100", "result 96"], ids=["in a chunk", "after its code"])
@pytest.mark.parametrize("act", ["die", "grow", "sleep"])
def test_one_child_disturbs_no_other(connection: Redis, work_off: WorkOff, act: str, where: str, notes: Path) -> None:
    if act == "grow" and where.startswith("result"):
        pytest.skip("nothing is raised in what is not the code of the job")
    parent = Add.enqueue(numbers=NUMBERS, acts={where: act}, connection=connection)
    log = work_off("jobs")
    added(parent, log)
    assert leased(log) > 0, log
    assert set(chunks(notes)) >= {f"{first} 2" for first in range(0, 96, 2)}, log
    if act == "grow":
        [breach] = execution_reader.breaches(connection, child_id(parent.id, 16))
        assert breach.limit_mb == 160 and "lease_run_jobs.py" in breach.where, breach
        assert all(not execution_reader.breaches(connection, each) for each in children(parent) if "-16" not in each)
        assert "100 1" in chunks(notes), "the chunk is halved"
        assert chunks(notes).count("96 2") + chunks(notes).count("96 1") <= 2
    if (act, where) == ("die", "100"):
        run = execution_reader.run(connection, child_id(parent.id, 16))
        assert (run.resumes, run.items) == (1, {0: 6}), (run, log)
        assert chunks(notes).count("96 2") == 1, "its record was on the page"


@pytest.mark.parametrize("act", ["die", "grow", "raise"])
def test_a_child_that_may_not_go_on_fails_alone(connection: Redis, work_off: WorkOff, act: str, notes: Path) -> None:
    parent = Failing.enqueue(numbers=NUMBERS, acts={"100": act}, connection=connection)
    log = work_off("jobs")
    assert parent.get_status() == JobStatus.FAILED, log
    error = {"die": "HorseLost", "grow": "MemoryLimitExceeded", "raise": "ValueError"}[act]
    assert error in parent.latest_result().exc_string, log
    split = execution_reader.run(connection, parent.id).split
    assert split is not None and (split.ended, split.failed, split.total) == (40, 1, 40), (split, log)
    assert chunks(notes).count("100 2") == 1, "it was not run again"
    parent.requeue()
    log = work_off("jobs")
    added(parent, log)


def test_a_killed_worker_loses_no_child_and_counts_none_twice(
    connection: Redis, start_worker: StartWorker, work_off: WorkOff
) -> None:
    acts = {"100": "kill worker", "result 180": "kill worker"}
    parent = Add.enqueue(numbers=NUMBERS, acts=acts, connection=connection)
    for _ in range(2):
        worker = start_worker("jobs")
        wait_until(lambda worker=worker: worker.process.poll() is not None, 120)  # type: ignore[misc]
    log = work_off("jobs")
    added(parent, log)


def test_a_job_that_may_not_go_on_ends_with_its_worker(
    connection: Redis, start_worker: StartWorker, work_off: WorkOff, notes: Path
) -> None:
    """As any job that RQ shows as running."""
    parent = Failing.enqueue(numbers=NUMBERS, acts={"100": "kill worker once shown"}, connection=connection)
    worker = start_worker("jobs")
    wait_until(lambda: worker.process.poll() is not None, 120)
    log = work_off("jobs")
    assert parent.get_status() == JobStatus.FAILED, log
    assert "AbandonedJobError" in parent.latest_result().exc_string
    assert chunks(notes).count("100 2") == 1, log


def test_a_job_with_a_record_is_not_leased_again(
    connection: Redis, queue: Queue, work_off: WorkOff, notes: Path
) -> None:
    """A later execution goes on with the record, which the first one of a lease does not read."""
    jobs = [Chunks.enqueue(name=str(number), connection=connection) for number in range(20)]
    odd = Chunks.enqueue(name="odd", act="raise", connection=connection)
    log = work_off("jobs")
    assert odd.get_status() == JobStatus.FAILED and leased(log) > 0, log
    before = execution_reader.run(connection, odd.id)
    assert before.cursors and before.items == {0: 1}, before
    more = [Chunks.enqueue(name=str(number), connection=connection) for number in range(20)]
    odd.requeue()
    log = work_off("jobs")
    assert odd.return_value(refresh=True) == [0, 1, 2]
    assert chunks(notes).count("odd 0") == 1 and chunks(notes).count("odd 1") == 2, log
    assert all(job.return_value() == [0, 1, 2] for job in jobs + more)
    after = execution_reader.run(connection, odd.id)
    assert after.run_id == before.run_id != "", (before, after)
    assert execution_reader.run(connection, more[0].id) != RunRecord()
    nothing_is_left(queue)


# What the log has


def test_short_runs_have_one_line_together_and_with_debug_one_each(connection: Redis, work_off: WorkOff) -> None:
    for level, each in (("info", False), ("debug", True)):
        jobs = [Nothing.enqueue(name=str(number), connection=connection) for number in range(60)]
        log = work_off("jobs", "--log-level", level)
        assert leased(log) > 0, log
        told = set(re.findall(r"Nothing \((\w{8})\) ended ok", log))
        assert ({job.id[:8] for job in jobs} <= told) == each, log
