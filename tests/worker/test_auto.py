"""``rqmem worker --auto``: recommended chunk sizes are where adaptive jobs begin, and nothing else changes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from redis import Redis

from rqmem.store import keys
from rqmem.store.history import history_reader
from rqmem.store.history.history_records import Run
from tests import auto_jobs
from tests.auto_jobs import Chunky, Fixed
from tests.cli.test_commands import rqmem
from tests.conftest import StartWorker, WorkOff
from tests.journal_filling import remember


def fill(connection: Redis, job: type[Chunky], runs: int = 30) -> None:
    """Runs whose items took half an MB each, 100 of them at once."""
    remember(
        connection,
        *(
            Run(
                job=job.path(), job_id=f"j{number}", queue="auto", worker="ada", ended_at=time.time(), outcome="ok",
                seconds=0.4, initial_mb=25, peak_mb=75, limit_mb=256, chunks=4, items=400, largest_chunk=100,
            )
            for number in range(runs)
        ),
    )  # fmt: skip


def advised(redis_url: str, job: type[Chunky]) -> int:
    done = rqmem("recommend", "--job", job.path(), "--json", RQMEM_REDIS_URL=redis_url)
    [found] = json.loads(done.stdout)["job_types"]
    size: int = found["recommended"]["chunk_size"]
    return size


def first_chunk(connection: Redis, work_off: WorkOff, job: type[Chunky] = Chunky, *options: str, **how: object) -> int:
    queued = job.enqueue(**how, connection=connection)
    work_off("auto", "--memory", "256", *options)
    sizes: list[int] = queued.return_value()
    return sizes[0]


def test_jobs_begin_with_what_is_recommended(connection: Redis, redis_url: str, work_off: WorkOff) -> None:
    fill(connection, Chunky)
    assert first_chunk(connection, work_off) == 10
    size = advised(redis_url, Chunky)
    assert size >= 20
    assert first_chunk(connection, work_off, Chunky, "--auto") == size
    assert history_reader.runs(connection, Chunky.path())[0].limit_mb == 256, "ceilings stay"


@pytest.mark.parametrize(("job", "how"), [(Chunky, {"chunk_size": 10}), (Chunky, {"adaptive": False}), (Fixed, {}),
                                          (Chunky, {"chunk_size": 10, "adaptive": True})])  # fmt: skip
def test_a_size_that_is_meant_stays(
    connection: Redis, work_off: WorkOff, job: type[Chunky], how: dict[str, object]
) -> None:
    fill(connection, job)
    assert first_chunk(connection, work_off, job, "--auto", **how) == 10


def test_one_in_the_config_file_stays_too(connection: Redis, start_worker: StartWorker, tmp_path: Path) -> None:
    fill(connection, Chunky)
    (tmp_path / "rqmem.ini").write_text(f"[rqmem]\nauto = yes\n[job {Chunky.path()}]\nchunk_size = 7\n")
    queued = auto_jobs.Chunky.enqueue(connection=connection)
    start_worker("auto", "--burst", "--memory", "256", directory=tmp_path).finish()
    assert queued.return_value()[0] == 7


def test_too_little_history_changes_nothing(connection: Redis, work_off: WorkOff) -> None:
    fill(connection, Chunky, runs=5)
    assert first_chunk(connection, work_off, Chunky, "--auto") == 10


def test_nor_does_a_journal_that_cannot_be_read(connection: Redis, work_off: WorkOff) -> None:
    fill(connection, Chunky)
    connection.set(keys.VERSION, "99")
    assert first_chunk(connection, work_off, Chunky, "--auto") == 10
    connection.delete(keys.VERSION, keys.runs(Chunky.path()))
    connection.set(keys.runs(Chunky.path()), "no list")  # Redis refuses
    assert first_chunk(connection, work_off, Chunky, "--auto") == 10
