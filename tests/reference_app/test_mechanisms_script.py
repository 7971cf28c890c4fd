"""scripts.test_memory_management: each mechanism on a real worker, nothing left behind, and failures in one line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from redis import Redis
from rq.suspension import suspend

from rqmem.events import Breach
from rqmem.store import codec, keys
from rqmem.store.execution_records import Owner, RunRecord, SplitRecord
from rqmem.testing import wait_until
from scripts.mechanisms import verdicts
from tests import forked
from tests.conftest import ROOT, StartCommand, WorkerProcess

SCRIPT = "scripts.test_memory_management"
MECHANISMS = ["tracking", "collection", "ceiling", "chunking", "splitting", "resume", "alert"]
LOCKS = {keys.MENDING, "rq:clean_groups"}  # any worker's; they expire
FRAME = {keys.VERSION, keys.ALERTS, keys.DROPPED, keys.EPOCH} | LOCKS  # of any journal


@pytest.fixture
def environ(redis_url: str, connection: Redis) -> dict[str, str]:
    return {"RQMEM_REDIS_URL": redis_url}


def run(environ: dict[str, str], *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return forked.run_module(SCRIPT, *arguments, directory=cwd, **environ)


def dump(connection: Redis) -> dict[bytes, bytes | None]:
    """All keys of a Redis, with what they hold; what workers say of their machine is nobody's, and soon gone."""
    host = keys.host("").encode()
    return {
        key: connection.dump(key)
        for key in connection.scan_iter()
        if key.decode() not in FRAME and not key.startswith(host)
    }


def test_all_hold_and_nothing_is_left(connection: Redis, environ: dict[str, str], tmp_path: Path) -> None:
    connection.set("somebody's", "own")
    connection.sadd("rq:queues", "rq:queue:somebody's")
    theirs = Owner("execution", "their worker", "their queue", "their host", pid=1, start_time=1)
    connection.hset(keys.RUNNING, "somebody's", codec.to_json(theirs))
    connection.set(keys.alive("their worker"), "it lives")
    connection.zadd(keys.STORIES, {"somebody's": 1})
    before = dump(connection)
    (tmp_path / "rqmem.ini").write_text("[rqmem]\nmemory_warning_threshold = 0.1\njournal = false\n")
    done = run({**environ, "JOB_AUTO_SPLIT_ENABLED": "false"}, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [[name, "ok"] for name in MECHANISMS]
    assert all(re.search(r"\d", line) for line in lines)
    assert last == "7 of 7 mechanisms hold"
    assert dump(connection) == before
    assert connection.xlen(keys.ALERTS) == 0


@pytest.fixture
def started(start_command: StartCommand) -> WorkerProcess:
    return start_command(module=SCRIPT)


def worker_at_work(connection: Redis) -> int:
    """The pid of the script's worker, once it has begun a job."""
    wait_until(lambda: connection.keys("rqmem:run:mechanisms-*"))
    [worker] = connection.smembers("rq:workers")
    assert worker.startswith(b"rq:worker:mechanisms-")
    return int(connection.hget(worker, "pid"))


def test_a_worker_that_dies_is_said_and_everything_removed(connection: Redis, started: WorkerProcess) -> None:
    os.kill(worker_at_work(connection), signal.SIGKILL)
    errors = started.finish()
    assert started.process.returncode == 1
    assert "test_memory_management: the worker ended with -9: " in errors
    assert "Traceback" not in errors
    assert dump(connection) == {}


def test_told_to_end_it_ends_its_worker_and_removes_everything(connection: Redis, started: WorkerProcess) -> None:
    worker = worker_at_work(connection)
    assert started.end(signal.SIGTERM) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    assert dump(connection) == {}


def test_a_worker_that_cannot_start_is_one_line(connection: Redis, environ: dict[str, str]) -> None:
    suspend(connection)
    done = run(environ)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "RQ is suspended on this Redis" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("--url", "redis://127.0.0.1:1"), 1, "Redis at redis://127.0.0.1:1"),
        (("--url", "nonsense"), 2, "'nonsense' cannot be used"),
        (("--memory", "50"), 2, "give 96 MB at least"),
        (("--memory", "much"), 2, "give a number of MB greater than 0"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    environ: dict[str, str], arguments: tuple[str, ...], code: int, line: str
) -> None:
    done = run(environ, *arguments)
    assert done.returncode == code
    assert line in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


# Verdicts on what does not hold

BREACH = Breach(
    job="j", job_id="1", queue="q", worker="w",
    used_mb=129.0, limit_mb=128.0, peak_mb=130.0, layer="watch", processes=1, operation="",
)  # fmt: skip
TOLD = "rqmem.errors.MemoryLimitExceeded: ..."


def split(total: int, ended: int, failed: int = 0) -> RunRecord:
    return RunRecord(split=SplitRecord(True, total, ended, failed, items=0, peak_mb=30, started_at=0, reported=False))


@pytest.mark.parametrize(
    "bad",
    [
        verdicts.tracking(40, (20, 70, 21), 70),
        verdicts.tracking(40, (20, 60, 60), 60),
        verdicts.tracking(40, (20, 60, 21), 20),
        verdicts.collection(40, 10),
        verdicts.ceiling("finished", "", None, "ran"),
        verdicts.ceiling("failed", TOLD, BREACH, None),
        verdicts.ceiling("failed", "MemoryError", BREACH, "ran"),
        verdicts.chunking(9, 200, (8, 20), RunRecord(chunks=3, peak_mb=40), 128),
        verdicts.chunking(9, 200, (9, 20), RunRecord(chunks=1, peak_mb=40), 128),
        verdicts.splitting(7, 7, 4, RunRecord()),
        verdicts.splitting(6, 7, 4, split(4, 4)),
        verdicts.splitting(7, 7, 4, split(4, 4, failed=1)),
        verdicts.resume([0, 1, 1], 2, RunRecord(breaches=1, resumes=1)),
        verdicts.resume([0, 1], 2, RunRecord()),
        verdicts.alert(1.0, {"memory-usage", "ceiling-exceeded"}, {"memory-usage"}),
        verdicts.alert(1.0, {"memory-usage", "ceiling-exceeded", "job-split"}, set()),
    ],
)
def test_what_does_not_hold_is_found(bad: verdicts.Verdict) -> None:
    """What holds is found of a real worker, above."""
    assert not bad.holds
    assert " FAILED " in bad.line
