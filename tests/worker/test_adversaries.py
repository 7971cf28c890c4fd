"""Every adversary is stopped and told why, no honest job is touched: one worker runs them all, one after another."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from rq import Callback, Queue
from rq.job import Job, JobStatus

from rqmem.events import Breach
from rqmem.measure import cgroup_files, process_tree
from rqmem.store import execution_reader
from rqmem.testing import adversaries, honest, wait_until
from rqmem.testing.catalogue import Adversary, Entry, Honest
from rqmem.testing.meanwhile import happen
from tests import forked, sample_jobs
from tests.conftest import ROOT, StartWorker

pytestmark = pytest.mark.races

if TYPE_CHECKING:
    from rqmem.testing.fixtures import RealWorker

pytest_plugins = ["rqmem.testing.fixtures"]

CEILING_MB = 128
MUCH_MB = 1000  # who escapes takes 1500; the budget is `make bench`'s, on a machine that nobody else uses
ALONE = [each for each in adversaries.ALL if not each.meanwhile]

UNMAPPED = [each for each in adversaries.ALL if each.name.startswith("unmapped")]


@dataclass(frozen=True)
class Ended:
    """How one job ended, and what the job after it found."""

    status: JobStatus
    told: str
    result: Any
    breaches: list[Breach]
    next_ran: bool
    beside: Any


@dataclass(frozen=True)
class Run:
    """A worker's run over many jobs. ``largest_mb`` is the kernel's mark of the largest process in its tree."""

    by_name: dict[str, Ended]
    largest_mb: float
    log: str


def enqueued(queue: Queue, entry: Entry) -> Job:
    on_failure = entry.on_failure if isinstance(entry, Adversary) else ""
    more = {"on_failure": Callback(on_failure)} if on_failure else {}
    return queue.enqueue(entry.path, kwargs=entry.kwargs(CEILING_MB), **more)


def ended(job: Job, after: Job) -> Ended:
    result = job.latest_result()
    told = ((result.exc_string if result else None) or "").strip().splitlines() or [""]
    return Ended(
        status=job.get_status(),
        told=told[-1],
        result=result.return_value if result else None,
        breaches=execution_reader.breaches(job.connection, job.id),
        next_ran=after.get_status() == JobStatus.FINISHED,
        beside=after.return_value(),
    )


def run_all(
    entries: list[Any], memory_mb: int, redis_url: str, isolation: str, tmp_path: Path, cgroup: str = "off"
) -> Run:
    environ = forked.environ(RQMEM_REDIS_URL=redis_url, RQMEM_ISOLATION=isolation)
    command = [sys.executable, "-m", "rqmem", "worker", "all", "--burst", "--memory", str(memory_mb)]
    command += ["--cgroup", cgroup]  # off: what rqmem does by itself
    with Redis.from_url(redis_url) as connection:
        connection.flushall()
        queue = Queue("all", connection=connection)
        pairs = {each.name: (enqueued(queue, each), queue.enqueue(honest.processes_beside)) for each in entries}
        with (tmp_path / "log").open("w+") as log:
            worker = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(worker.pid, 0)
            worker.returncode = os.waitstatus_to_exitcode(status)
            log.seek(0)
            text = log.read()
        assert worker.returncode == 0, text
        return Run({name: ended(*pair) for name, pair in pairs.items()}, usage.ru_maxrss / 1024, text)


@pytest.fixture(scope="module")
def run(redis_url: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All adversaries that need nobody's help, under one worker."""
    entries = [each for each in ALONE if not each.missing]
    isolation = request.config.getoption("--isolation")
    return run_all(entries, CEILING_MB, redis_url, isolation, tmp_path_factory.mktemp("adversaries"))


def must_be_stopped(name: str, end: Ended) -> None:
    assert end.status == JobStatus.FAILED
    assert f"MemoryLimitExceeded: rqmem.testing.adversaries.{name} used " in end.told
    assert f" of {CEILING_MB} MB" in end.told
    assert end.breaches
    assert max(breach.peak_mb for breach in end.breaches) <= CEILING_MB + MUCH_MB


@pytest.mark.parametrize("adversary", ALONE, ids=lambda each: each.name)
def test_an_adversary_is_stopped_and_told_why(run: Run, adversary: Adversary) -> None:
    if adversary.missing:
        pytest.skip(f"needs {', '.join(adversary.missing)}")
    must_be_stopped(adversary.name, run.by_name[adversary.name])


@pytest.mark.parametrize("adversary", ALONE, ids=lambda each: each.name)
def test_nothing_of_it_stays_and_the_next_job_runs(run: Run, adversary: Adversary) -> None:
    if adversary.missing:
        pytest.skip(f"needs {', '.join(adversary.missing)}")
    end = run.by_name[adversary.name]
    assert end.next_ran
    assert end.beside == []


def test_no_process_was_ever_much_larger_than_the_ceiling(run: Run) -> None:
    """By the kernel's own mark, which also knows of processes that nobody watched."""
    assert run.largest_mb <= CEILING_MB + MUCH_MB


def named(name: str) -> Adversary:
    return next(each for each in adversaries.ALL if each.name == name)


def test_memory_of_no_process_is_seen_by_a_cgroup_too(
    redis_url: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    own = cgroup_files.read_own()
    if own is None or not os.access(own.path, os.W_OK):
        pytest.skip("no cgroup can be made here")
    isolation = request.config.getoption("--isolation")
    run = run_all(UNMAPPED, CEILING_MB, redis_url, isolation, tmp_path, "require")
    for adversary in UNMAPPED:
        must_be_stopped(adversary.name, run.by_name[adversary.name])
        assert run.by_name[adversary.name].next_ran
        assert run.by_name[adversary.name].beside == []


def test_one_that_grows_while_redis_is_stopped(connection: Redis, start_worker: StartWorker) -> None:
    adversary = named("while_redis_is_stopped")
    queue = Queue("jobs", connection=connection)
    job, after = queue.enqueue(adversary.path), queue.enqueue(sample_jobs.add, 2, 3)
    worker = start_worker("jobs", "--burst", "--memory", str(CEILING_MB))
    happen(adversary, connection, worker.pid)
    log = worker.finish()
    assert worker.process.returncode == 0, log
    must_be_stopped(adversary.name, ended(job, after))
    assert after.return_value() == 5


def test_one_whose_worker_is_terminated_while_it_confirms(connection: Redis, start_worker: StartWorker) -> None:
    adversary = named("while_its_worker_is_terminated")
    queue = Queue("jobs", connection=connection)
    worker = start_worker("jobs", "--memory", str(CEILING_MB))
    for _ in range(10):  # on a busy machine a stop may pass unseen
        job = queue.enqueue(adversary.path)
        if happen(adversary, connection, worker.pid):
            break
    else:
        pytest.skip("this machine is too busy to see the few ms for which a job is stopped")
    log = worker.finish()
    assert worker.process.returncode == 0, log
    after = queue.enqueue(honest.processes_beside)
    start_worker("jobs", "--burst").finish()
    must_be_stopped(adversary.name, ended(job, after))


@pytest.fixture(scope="module")
def honest_runs(
    redis_url: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Ended]:
    """All honest jobs, under one worker for each ceiling."""
    by_ceiling: dict[int, list[Honest]] = {}
    for each in honest.ALL:
        if not each.missing:
            by_ceiling.setdefault(each.ceiling_mb or CEILING_MB, []).append(each)
    found: dict[str, Ended] = {}
    for ceiling_mb, entries in by_ceiling.items():
        isolation = request.config.getoption("--isolation")
        found |= run_all(entries, ceiling_mb, redis_url, isolation, tmp_path_factory.mktemp("honest")).by_name
    return found


@pytest.mark.parametrize("job", honest.ALL, ids=lambda each: each.name)
def test_an_honest_job_is_not_touched(honest_runs: dict[str, Ended], job: Honest) -> None:
    if job.missing:
        pytest.skip(f"needs {', '.join(job.missing)}")
    end = honest_runs[job.name]
    assert end.told == ""
    assert end.result is True
    assert end.breaches == []
    assert end.beside == []


def test_memory_worker_runs_a_function_and_tells_what_it_returned(memory_worker: RealWorker) -> None:
    outcome = memory_worker.run(sample_jobs.add, 2, b=3)
    assert (outcome.status, outcome.result, outcome.error) == ("finished", 5, "")
    assert (outcome.breaches, outcome.peak_mb, outcome.resumes) == ((), None, 0)


def test_memory_worker_tells_a_breach(memory_worker: RealWorker) -> None:
    outcome = memory_worker.run("rqmem.testing.adversaries.blocks", memory_mb=100)
    assert outcome.status == "failed"
    assert "MemoryLimitExceeded: rqmem.testing.adversaries.blocks used" in outcome.error
    assert len(outcome.breaches) == 1
    assert outcome.peak_mb is not None and 100 < outcome.peak_mb < 100 + MUCH_MB
    assert outcome.breaches[0].summary() in outcome.log


def test_memory_worker_enqueues_job_classes_their_own_way(memory_worker: RealWorker) -> None:
    outcome = memory_worker.run(sample_jobs.Squares, count=20, item_mb=20, memory_mb=128)
    assert outcome.result == [number * number for number in range(20)]
    assert outcome.resumes >= 1
    assert outcome.peak_mb is not None and outcome.peak_mb > 20


def test_memory_worker_finds_jobs_of_a_project_anywhere(
    memory_worker: RealWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs_of_a_user.py").write_text("def double(n: int) -> int:\n    return 2 * n\n")
    monkeypatch.chdir(tmp_path)
    assert memory_worker.run("jobs_of_a_user.double", 21).result == 42


def test_memory_worker_ends_a_worker_that_takes_too_long(
    memory_worker: RealWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = subprocess.Popen.wait

    def wait_once_the_child_is_there(worker: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        wait_until(lambda: memory_worker.connection.exists("child"))
        return wait(worker, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", wait_once_the_child_is_there)
    with pytest.raises(AssertionError, match="still ran after 1 s"):
        memory_worker.run(sample_jobs.start_a_child_and_wait, timeout_seconds=1)
    child = int(memory_worker.connection.get("child"))
    wait_until(lambda: process_tree.is_zombie(child))
