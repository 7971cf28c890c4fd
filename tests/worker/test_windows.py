"""A job takes the newest N and marks them: on a real worker each is done once, over breaches and among children."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from redis import Redis
from rq.job import JobStatus

from rqmem.cli import main
from tests import window_jobs
from tests.conftest import WorkOff

NEWEST = dict.fromkeys(range(200, 160, -1), 1)


def test_a_window_stays_over_breaches_from_its_first_chunk_on(
    tmp_path: Path, connection: Redis, work_off: WorkOff
) -> None:
    path = str(tmp_path / "calls.db")
    window_jobs.fill(path, 200)
    job = window_jobs.CallNewest.enqueue(path=path, most=40, connection=connection)
    log = work_off("jobs", "--memory", "128")
    assert job.get_status() == JobStatus.FINISHED, log
    assert window_jobs.done(path) == NEWEST
    assert log.count("MemoryLimitExceeded: tests.window_jobs.CallNewest") == 2, log
    assert "goes on from the beginning with chunk size 4" in log
    assert max(map(len, log.splitlines())) < 1000  # the cursor holds keys, and is cut short for people


def test_children_share_the_window_of_their_parent(tmp_path: Path, connection: Redis, work_off: WorkOff) -> None:
    path = str(tmp_path / "calls.db")
    window_jobs.fill(path, 200)
    job = window_jobs.CallNewest.enqueue(path=path, most=40, split=True, connection=connection)
    log = work_off("jobs", "--memory", "128")
    assert job.get_status() == JobStatus.FINISHED, log
    assert job.return_value() == [1] * 7
    assert window_jobs.done(path) == NEWEST


def test_a_parent_killed_while_it_dispatches_goes_on_with_its_window(
    tmp_path: Path, connection: Redis, work_off: WorkOff
) -> None:
    path = str(tmp_path / "calls.db")
    window_jobs.fill(path, 200)
    job = window_jobs.DispatchNewest.enqueue(path=path, most=40, connection=connection)
    log = work_off("jobs")
    assert job.get_status() == JobStatus.FINISHED, log
    assert Path(f"{path}.killed").exists()
    assert window_jobs.done(path) == NEWEST


def test_a_list_of_what_is_to_do_loses_nothing(
    tmp_path: Path, connection: Redis, redis_url: str, work_off: WorkOff
) -> None:
    path = str(tmp_path / "calls.db")
    window_jobs.fill(path, 60)
    job = window_jobs.CallListed.enqueue(path=path, connection=connection)
    log = work_off("jobs")
    assert job.get_status(refresh=True) == JobStatus.FAILED, log
    assert f"begin again from the start: 'rqmem retry --from-start {job.id}' does so" in log
    retried = CliRunner().invoke(main, ["retry", "--from-start", job.id, "--url", redis_url])
    assert retried.exit_code == 0, retried.output
    log = work_off("jobs")
    assert job.get_status(refresh=True) == JobStatus.FINISHED, log
    assert window_jobs.done(path) == dict.fromkeys(range(1, 61), 1)
