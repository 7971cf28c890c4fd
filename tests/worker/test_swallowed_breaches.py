"""A breach that a library swallowed is the run's end; a job that caught it by name goes on."""

from __future__ import annotations

import builtins
import pickle
import shutil
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import JobStatus

from rqmem.breach_words import explanation
from rqmem.errors import MemoryLimitExceeded, breach_in
from rqmem.events import Breach
from rqmem.store import execution_reader
from tests import forked, swallowing_jobs
from tests.conftest import ROOT, WorkOff

SWALLOWED = [name for name in vars(swallowing_jobs) if name.startswith(("by_", "and_then", "raises_"))]
KNOWN = [name for name in vars(swallowing_jobs) if name.startswith("knows")]
GROUPS = [name for name in (*SWALLOWED, *KNOWN) if "group" in name]
BREACH = Breach(
    job="jobs.A", job_id="1", queue="q", worker="w", used_mb=300, limit_mb=256, peak_mb=301, layer="watch",
    processes=1, operation="",
)  # fmt: skip


@pytest.fixture(scope="module")
def ended(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All of them under one worker, each after the other."""
    with Redis.from_url(redis_url) as connection:
        connection.flushall()
        queue = Queue("jobs", connection=connection)
        jobs = {name: queue.enqueue(f"tests.swallowing_jobs.{name}") for name in (*SWALLOWED, *KNOWN)}
        options = ["--burst", "--memory", "128", "--reserve", "64"]
        done = forked.run_module("rqmem", "worker", "jobs", *options, timeout=1200, RQMEM_REDIS_URL=redis_url)
        return {
            name: (
                job.get_status(),
                job.latest_result(),
                execution_reader.breaches(connection, job.id),
                done.stdout + done.stderr,
            )
            for name, job in jobs.items()
        }


@pytest.mark.parametrize("name", SWALLOWED)
def test_a_breach_that_somebody_swallowed_fails_the_run(ended: dict[str, Any], name: str) -> None:
    status, result, breaches, log = ended[name]
    assert status == JobStatus.FAILED, log
    last = (result.exc_string or "").strip().splitlines()[-1]
    assert f"MemoryLimitExceeded: tests.swallowing_jobs.{name} used " in last
    assert len(breaches) == 1


@pytest.mark.parametrize("name", KNOWN)
def test_a_job_that_caught_it_by_name_goes_on(ended: dict[str, Any], name: str) -> None:
    status, result, breaches, log = ended[name]
    assert status == JobStatus.FINISHED, log
    assert result.return_value in ("goes on", ["too large", "fits"])
    [breach] = breaches
    assert breach.next == "nothing: the job caught it (except MemoryLimitExceeded) and went on to its end"


def test_it_is_told_where_the_exception_got(ended: dict[str, Any]) -> None:
    [breach] = ended["by_a_bare_except"][2]
    assert any(line.startswith("swallowed: ") for line in explanation(breach))
    assert "tests/swallowing_jobs.py" in breach.swallowed


def test_an_application_that_is_installed_is_the_jobs_own_code(
    connection: Redis, redis_url: str, tmp_path: Path
) -> None:
    venv.create(tmp_path / "venv", symlinks=True)
    [packages] = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (packages / "shop").mkdir()
    (packages / "shop" / "__init__.py").touch()
    shutil.copy(ROOT / "tests" / "swallowing_jobs.py", packages / "shop" / "swallowing.py")
    (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
    job = Queue("jobs", connection=connection).enqueue("shop.swallowing.by_a_bare_except")
    command = [str(tmp_path / "venv" / "bin" / "python"), "-m", "rqmem", "worker", "jobs", "--burst", "--memory", "128"]
    environ = forked.environ(RQMEM_REDIS_URL=redis_url)
    done = forked.run(command, cwd=tmp_path, env=environ, timeout=120)
    assert job.get_status() == JobStatus.FAILED, done.stdout + done.stderr
    [breach] = execution_reader.breaches(connection, job.id)
    assert "shop/swallowing.py:" in breach.where and "shop/swallowing.py:" in breach.swallowed


def test_a_chunk_whose_greenlets_died_is_done_again(connection: Redis, work_off: WorkOff) -> None:
    job = swallowing_jobs.InChunks.enqueue("jobs", count=16, connection=connection)
    log = work_off("jobs", "--memory", "128")
    assert job.return_value() == 16, log
    items = {int(each) // (25 * 2**20) for each in connection.smembers("items")}
    assert items == set(range(16)), "no item was lost with its greenlet"
    assert execution_reader.run(connection, job.id).resumes >= 1


def test_a_chunk_of_which_an_item_was_cut_off_is_done_again(connection: Redis, work_off: WorkOff) -> None:
    job = swallowing_jobs.CarriesOn.enqueue("jobs", count=12, connection=connection)
    log = work_off("jobs", "--memory", "128", "--reserve", "64")
    assert job.return_value() == 12, log
    assert {int(each) for each in connection.smembers("items")} == set(range(12)), log
    assert execution_reader.run(connection, job.id).resumes == 1


def test_a_breach_can_be_sent_to_another_process() -> None:
    """As a pool of processes does with what its workers raise."""
    twin = pickle.loads(pickle.dumps(MemoryLimitExceeded(BREACH)))
    assert (twin.breach, str(twin)) == (BREACH, str(MemoryLimitExceeded(BREACH)))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there are no groups")
def test_a_breach_is_found_in_groups_and_behind_other_errors() -> None:
    breach = MemoryLimitExceeded(BREACH)
    group = builtins.BaseExceptionGroup("a", [ValueError(), builtins.BaseExceptionGroup("b", [breach])])
    behind = RuntimeError()
    behind.__cause__ = group
    assert breach_in(behind) is breach
    assert breach_in(builtins.ExceptionGroup("a", [ValueError()])) is None
    assert breach_in(None) is None
