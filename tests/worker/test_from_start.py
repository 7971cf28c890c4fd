"""Files that are fetched again go on; those that have changed are told, and a person has the job begin again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.registry import CanceledJobRegistry

from rqmem.cli import main
from rqmem.errors import RqmemError
from rqmem.job import tree
from rqmem.store import execution_reader, keys
from rqmem.testing import wait_until
from tests import file_jobs
from tests.conftest import StartWorker, WorkOff
from tests.file_jobs import ImportRows, WaitForFile

EACH = [str(number) for number in range(100)]


def done(directory: Path) -> list[str]:
    return (directory / "done").read_text().split()


def retry(redis_url: str, *arguments: str) -> str:
    outcome = CliRunner().invoke(main, ["retry", *arguments, "--url", redis_url])
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def error_of(job: Job) -> str:
    result = job.latest_result()
    return (result.exc_string or "").strip().splitlines()[-1] if result else ""


def test_a_file_that_is_fetched_for_each_execution_is_the_same_file(
    tmp_path: Path, connection: Redis, work_off: WorkOff
) -> None:
    file_jobs.fill(tmp_path, 100)
    job = ImportRows.enqueue(directory=str(tmp_path), connection=connection)
    log = work_off("jobs", "--memory", "128")
    assert job.get_status() == JobStatus.FINISHED, log
    assert done(tmp_path) == EACH
    assert (tmp_path / "breached").exists()


def test_a_line_that_a_person_corrects_is_read_from_the_start(
    tmp_path: Path, connection: Redis, redis_url: str, work_off: WorkOff
) -> None:
    file_jobs.fill(tmp_path, 100)
    store = tmp_path / "store.csv"
    store.write_text(store.read_text().replace("70,70", "70,x0"))
    (tmp_path / "breached").touch()
    job = ImportRows.enqueue(directory=str(tmp_path), connection=connection)
    work_off("jobs")
    assert "invalid literal for int()" in error_of(job)
    store.write_text(store.read_text().replace("70,x0", "70,70"))
    retry(redis_url, job.id)
    work_off("jobs")
    told = error_of(job)
    assert "SourceChanged" in told and "rows.csv has other contents: it changed since" in told
    assert told.endswith(f"'rqmem retry --from-start {job.id}' does so")
    assert done(tmp_path) == EACH[:60]
    (tmp_path / "done").unlink()
    assert retry(redis_url, "--from-start", job.id[:12]) == f"job {job.id} is queued again, from its start\n"
    log = work_off("jobs")
    assert job.get_status(refresh=True) == JobStatus.FINISHED, log
    assert done(tmp_path) == EACH


def test_children_are_undone_and_cut_again(
    tmp_path: Path, connection: Redis, redis_url: str, work_off: WorkOff
) -> None:
    file_jobs.fill(tmp_path, 100)
    (tmp_path / "breached").touch()
    store = tmp_path / "store.csv"
    good = store.read_text()
    store.write_text(good.replace("70,70", "70,x0"))
    job = ImportRows.enqueue(directory=str(tmp_path), split=True, connection=connection)
    work_off("jobs")
    assert "1 of " in error_of(job) and "child jobs failed" in error_of(job)
    child = f"{job.id}-child-0"
    told = Job.fetch(child, connection=connection).description or ""
    assert re.fullmatch(r"tests\.file_jobs\.ImportRows\(items=part 1( of \d+)?\)", told), "no JSON that is cut off"
    with pytest.raises(RqmemError, match=f"is a child.*'rqmem retry --from-start {job.id}'"):
        tree.retry_from_start(connection, child)
    store.write_text(good)
    file_jobs.fetch(store, tmp_path / "rows.csv")
    retry(redis_url, job.id)
    work_off("jobs")
    assert "rows.csv has other contents" in error_of(job)  # of the child, and what to do about the parent
    [failed] = [each for each in Job.fetch_many([f"{job.id}-child-{n}" for n in range(9)], connection)
                if each is not None and each.get_status() == JobStatus.FAILED]  # fmt: skip
    assert error_of(failed).endswith(f"'rqmem retry --from-start {job.id}' does so")
    (tmp_path / "done").unlink()
    retry(redis_url, "--from-start", job.id)
    log = work_off("jobs")
    assert job.get_status(refresh=True) == JobStatus.FINISHED, log
    assert sorted(done(tmp_path), key=int) == EACH
    assert not connection.exists(keys.children(job.id))


def test_a_job_that_was_cancelled_begins_again_and_one_that_runs_does_not(
    tmp_path: Path, connection: Redis, start_worker: StartWorker, work_off: WorkOff
) -> None:
    file_jobs.fill(tmp_path, 100)
    (tmp_path / "breached").touch()
    job = ImportRows.enqueue(directory=str(tmp_path), connection=connection)
    tree.cancel(connection, job.id)
    assert job in CanceledJobRegistry("jobs", connection=connection)
    tree.retry_from_start(connection, job.id)
    assert job not in CanceledJobRegistry("jobs", connection=connection)
    with pytest.raises(RqmemError, match="is queued: only one that has failed or was cancelled can begin again"):
        tree.retry_from_start(connection, job.id)
    work_off("jobs")
    assert done(tmp_path) == EACH
    with pytest.raises(RqmemError, match="is finished: only one that has failed or was cancelled"):
        tree.retry_from_start(connection, job.id)

    flag = tmp_path / "flag"
    running = WaitForFile.enqueue(path=str(flag), connection=connection)
    worker = start_worker("jobs", "--burst")
    wait_until(Path(f"{flag}.running").exists)
    with pytest.raises(RqmemError, match=rf"is running, so it cannot begin again: 'rqmem cancel {running.id}' first"):
        tree.retry_from_start(connection, running.id)
    flag.touch()
    worker.finish()
    assert running.get_status(refresh=True) == JobStatus.FINISHED


def test_beginning_again_that_was_cut_short_can_be_repeated(
    tmp_path: Path, connection: Redis, work_off: WorkOff, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_jobs.fill(tmp_path, 100)
    store = tmp_path / "store.csv"
    store.write_text(store.read_text().replace("70,70", "70,x0"))
    (tmp_path / "breached").touch()
    job = ImportRows.enqueue(directory=str(tmp_path), connection=connection)
    work_off("jobs")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(Queue, "push_job_id", killed)
        tree.retry_from_start(connection, job.id)
    assert job.get_status() == JobStatus.FAILED
    assert execution_reader.run(connection, job.id).items[0] == 60
    tree.retry_from_start(connection, job.id)
    (tmp_path / "done").unlink()
    work_off("jobs")
    assert done(tmp_path) == EACH[:60]  # and fails at the same line again


def test_progress_over_a_connection_that_decodes(connection: Redis, redis_url: str, tmp_path: Path) -> None:
    with Redis.from_url(redis_url, decode_responses=True) as decoding:
        job = ImportRows.enqueue(directory=str(tmp_path), connection=decoding)
        assert ImportRows.progress(job.id, decoding) == ImportRows.progress(job.id, connection)
        assert ImportRows.progress(job.id, decoding).total == 1
        assert job.get_status() == JobStatus.QUEUED
        assert decoding.ping() is True and isinstance(decoding.keys()[0], str)
