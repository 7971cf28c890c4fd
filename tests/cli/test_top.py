"""``rqmem top``: a real worker by line of code, in a pipe, as JSON and on a terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from rqmem.store.history import history_reader
from rqmem.store.history.history_records import LiveJob
from rqmem.testing import wait_until
from tests import forked, profile_jobs
from tests.cli.test_commands import rqmem
from tests.cli.test_monitor import Terminal
from tests.conftest import ROOT, StartCommand, StartWorker
from tests.journal_filling import a_live, register

JOB = "tests.profile_jobs.fit_slowly"
LINE = "held = [bytearray(2**20) for _ in range(megabytes)]"


@pytest.fixture
def top(redis_url: str, connection: Redis) -> Callable[..., subprocess.CompletedProcess[str]]:
    return lambda *options: rqmem("top", *options, "--url", redis_url, COLUMNS="160")


def running(connection: Redis) -> LiveJob | None:
    """The job of ada, once it is said where it grew."""
    lives = history_reader.workers(connection, ["ada"])
    job = lives[0].job if lives else None
    return job if job is not None and job.grew else None


def test_a_worker_and_its_job_by_line(
    connection: Redis, start_worker: StartWorker, top: Callable[..., Any], tmp_path: Path
) -> None:
    job = Queue(connection=connection).enqueue(profile_jobs.fit_slowly, str(tmp_path / "go"))
    worker = start_worker("--name", "ada", "--memory", "256")
    wait_until(lambda: running(connection) is not None)
    shown = top("--once")
    assert (shown.returncode, shown.stderr) == (0, "")
    title, usage, whose, _, grew, first, *_ = shown.stdout.splitlines()
    assert title.startswith("rqmem top  ") and "  ada  pid " in title
    assert " of 256 MB (" in usage and "  peak " in usage
    assert whose.startswith(f"{JOB} ({job.id[:8]}) for ")
    assert re.fullmatch(r"where it grew to its peak so far of [\d.]+ MB", grew)
    assert LINE in first and " MB " in first

    seen = json.loads(top("--once", "--json", "--worker", "ada").stdout)
    assert (seen["version"], seen["worker"]["name"], seen["worker"]["kind"]) == (2, "ada", "rqmem")
    now = seen["worker"]["job"]
    assert (now["job_type"], now["job_id"], now["ceiling_mb"]) == (JOB, job.id, 256.0)
    assert now["usage_mb"] > 64
    assert now["grew"][0]["grown_mb"] >= 16 and LINE in now["grew"][0]["line"]
    assert seen["records"] == []

    (tmp_path / "go").touch()
    wait_until(lambda: history_reader.runs(connection, JOB) and running(connection) is None)
    ended = json.loads(top("--once", "--json").stdout)
    [record] = ended["records"]
    assert (record["job_type"], record["job_id"], ended["worker"]["job"]) == (JOB, job.id, None)
    assert record["peak_mb"] > 64 and LINE in record["grew"][0]["line"]
    told = top("--once").stdout
    assert "\nidle\n" in told and f"{JOB} ({job.id[:8]})" in told and LINE in told
    worker.kill()


def test_which_worker_is_asked_for(connection: Redis, top: Callable[..., Any]) -> None:
    none = top("--once")
    assert (none.returncode, none.stdout) == (1, "")
    assert none.stderr.startswith("rqmem: no worker runs on this Redis: 'rqmem worker' starts one")
    register(connection, "stock", "q")
    assert "a stock rq worker: its memory is not watched" in top("--once").stdout
    register(connection, "ada", "q", live=a_live("ada"))
    several = top("--once")
    assert (several.returncode, several.stderr) == (
        2, "rqmem: 2 workers run: name one with --worker: ada, stock\n",
    )  # fmt: skip
    wrong = top("--worker", "adda")
    assert (wrong.returncode, wrong.stderr) == (2, "rqmem: --worker 'adda' does not run: did you mean ada?\n")
    assert "\nidle\n" in top("--once", "--worker", "ada").stdout


def test_in_a_pipe_until_the_worker_ends(connection: Redis, redis_url: str, start_command: StartCommand) -> None:
    register(connection, "ada", "q", live=a_live("ada"))
    watching = start_command("top", "--json", "--url", redis_url, apart=True)
    watching.wait_for("\n")
    assert json.loads(watching.printed.splitlines()[0])["worker"]["name"] == "ada"
    for key in ("rq:worker:ada", *connection.scan_iter("rqmem:*ada*")):
        connection.delete(key)
    connection.srem("rq:workers", "rq:worker:ada")
    assert watching.process.wait(60) == 1
    assert watching.errors == "rqmem: worker ada has ended\n"


def test_a_pipe_that_is_closed_ends_it_quietly(connection: Redis, redis_url: str) -> None:
    register(connection, "ada", "q", live=a_live("ada"))
    command = [sys.executable, "-m", "rqmem", "top", "--url", redis_url]
    with forked.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("rqmem top  ")
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (0, "")


@pytest.fixture
def screen(redis_url: str, connection: Redis) -> Iterator[Terminal]:
    pytest.importorskip("rich")
    register(connection, "ada", "q", live=a_live("ada", a_job(64.0)))
    opened = Terminal("-m", "rqmem", "top", "--url", redis_url)
    yield opened
    opened.close()


def a_job(usage_mb: float) -> LiveJob:
    grew = ((48.0, "jobs/campaigns.py:7 in load: rows = list(all_rows)"),)
    return LiveJob(JOB, "j1", "q", a_live("ada").at, usage_mb, usage_mb, 256.0, grew=grew)


def test_the_live_view_and_the_terminal_as_before(connection: Redis, screen: Terminal) -> None:
    screen.wait_for("\x1b[?1049h")
    screen.wait_for("64.0 of 256 MB (25 %)")
    screen.wait_for("jobs/campaigns.py:7 in load: rows")
    register(connection, "ada", "q", live=a_live("ada", a_job(230.4)))
    screen.wait_for("230.4 of 256 MB (90 %)")
    os.write(screen.master, b"\x03")  # Ctrl-C
    wait_until(screen.ended)
    assert screen.process.returncode == 0
    assert "\x1b[?25h" in screen.read().rpartition("\x1b[?1049l")[0] + screen.output, "the cursor is shown again"
