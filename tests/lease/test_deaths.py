"""A horse or a worker is killed at one line after another of a child's life under a lease, and others go on.

The lines are those of rqmem's own code. They are counted from a child's first chunk on, over its commit, to the next
child. So deaths fall between any two commands to Redis, and between any two changes of the shared page.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq.job import Job, JobStatus

from tests.conftest import StartWorker
from tests.lease import dying
from tests.lease_run_jobs import Add
from tests.worker.test_lease import leased
from tests.worker.test_lease_runs import added, chunks

DEATHS = int(os.environ.get("RQMEM_TESTS_DEATHS", "8"))
FIRST = int(os.environ.get("RQMEM_TESTS_FIRST_LINE", "3"))
APART = int(os.environ.get("RQMEM_TESTS_LINES_APART", "41"))
BETWEEN = 10  # children between two deaths: a new horse runs some by themselves first
SETTLING = "lease_end.py lease_watch.py takeover.py settlement.py resume.py commit.py abandoned_jobs.py"


@pytest.fixture
def environ(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    if request.config.getoption("--isolation") == "fork":
        pytest.skip("a horse for one job takes no lease")
    return {"RQMEM_LEASE_MAX": "64", "RQMEM_HEARTBEAT": "0.3", "TESTS_NOTES": str(tmp_path / "notes")}


def split(connection: Redis, act: str) -> tuple[Job, int]:
    """A job whose every tenth child is to die, each at a later line; and how many numbers it adds."""
    numbers = 6 * BETWEEN * (DEATHS + 1)
    acts = {str(6 * BETWEEN * (each + 1)): f"{act} at line {FIRST + APART * each}" for each in range(DEATHS)}
    return Add.enqueue(numbers=numbers, acts=acts, connection=connection), numbers


def begun_again(environ: dict[str, str]) -> int:
    """How many chunks have begun more than once, all together."""
    return sum(times - 1 for times in Counter(chunks(Path(environ["TESTS_NOTES"]))).values())


def test_a_horse_may_die_at_any_line(connection: Redis, start_worker: StartWorker, environ: dict[str, str]) -> None:
    parent, numbers = split(connection, "horse")
    log = start_worker("jobs", "--burst", **environ).finish()
    assert leased(log) > 0, log
    added(parent, log, numbers)
    assert begun_again(environ) <= DEATHS, "more than the chunks in flight"


def test_a_worker_may_die_at_any_line(connection: Redis, start_worker: StartWorker, environ: dict[str, str]) -> None:
    """What had finished and was not committed runs again: three chunks of each of eight children at most."""
    parent, numbers = split(connection, "worker")
    logs = until_it_ends(parent, start_worker, environ)
    assert len(logs) > DEATHS / 2, logs
    added(parent, "".join(logs), numbers)
    assert begun_again(environ) <= (1 + 3 * 8) * len(logs)


def test_who_settles_may_die_too(connection: Redis, start_worker: StartWorker, environ: dict[str, str]) -> None:
    """Horses die in their jobs, and workers while they settle what those or other workers have left."""
    acts = {str(each): "die" if each % 16 else "kill worker" for each in range(8, 8 * DEATHS, 8)}
    numbers = 6 * 4 * DEATHS
    parent = Add.enqueue(numbers=numbers, acts=acts, connection=connection)
    logs = until_it_ends(parent, start_worker, {**environ, dying.OF_FILES: SETTLING}, dies_at=FIRST)
    added(parent, "".join(logs), numbers)


def until_it_ends(parent: Job, start_worker: StartWorker, environ: dict[str, Any], dies_at: int = 0) -> list[str]:
    """Start one worker after another until the job has ended. ``dies_at``: the line at which the first of them dies."""
    logs: list[str] = []
    while parent.get_status() not in (JobStatus.FINISHED, JobStatus.FAILED):
        assert len(logs) <= 3 * DEATHS, logs[-3:]
        more = {dying.AT: str(dies_at + APART * len(logs))} if dies_at and len(logs) < DEATHS else {}
        options = ["--preload", "tests.lease.dying"] if more else []
        logs.append(start_worker("jobs", "--burst", *options, **environ, **more).finish())
    return logs
