"""The guide: its examples run, its tips save what its table says, its words are the program's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus

from rqmem.policy.splitting import should_split
from rqmem.store import execution_reader
from scripts.bench import guide
from scripts.bench.guide_examples import GUIDE, make_shop, tips
from tests import forked
from tests.conftest import ROOT, StartWorker

ORDERS = 200_000
PAGE = GUIDE.read_text()
MB = 2**20


@pytest.fixture(scope="module")
def new_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("shop")
    make_shop(directory, ORDERS)
    return directory


@pytest.fixture
def shop(new_shop: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(new_shop, tmp_path, dirs_exist_ok=True))


def run(connection: Redis, start_worker: StartWorker, shop: Path, job_class: str, *options: str, **environ: str) -> str:
    """Have a worker in the shop run a job of the page; the worker's log."""
    Queue("guide", connection=connection).enqueue(f"{job_class}.run", job_id="a-job")
    return start_worker("guide", "--burst", *options, directory=shop, **environ).finish()


def a_job(connection: Redis) -> Job:
    return Job.fetch("a-job", connection=connection)


@pytest.mark.parametrize("tip", tips(), ids=lambda tip: tip.module)
def test_a_tip_does_the_same_with_less(
    connection: Redis, start_worker: StartWorker, shop: Path, tip: guide.Tip
) -> None:
    results, growths, breaches = [], [], []
    for name in ("Before", "After"):
        connection.flushall()
        log = run(connection, start_worker, shop, f"{tip.module}.{name}", "--memory", str(guide.WORKER_MB))
        breaches.append(len(execution_reader.breaches(connection, "a-job")))
        assert (a_job(connection).get_status() == JobStatus.FAILED) == bool(breaches[-1]), log
        results.append(a_job(connection).return_value())
        growths.append(max(guide.grown(connection, f"{tip.module}.{name}")))
    assert breaches == [int(tip.module == "checking"), 0]
    if breaches[0]:
        assert results[1]
    else:
        assert results[0] == results[1] and results[0]
        assert growths[1] < guide.MOST_LEFT * growths[0]


def test_the_table_is_what_the_script_prints_for_these_tips() -> None:
    written = PAGE.partition(guide.BEGIN)[2].partition(guide.END)[0].strip()
    rows = re.findall(r"^\| \[(.+?)\]\(#(.+?)\) \| ([\d.]+) MB(, breached)? \| ([\d.]+) MB \|", written, re.MULTILINE)
    assert [title for title, *_ in rows] == [tip.title for tip in tips()]
    for title, anchor, before, breached, after in rows:
        assert anchor == re.sub(r"[^a-z ]", "", title.lower()).replace(" ", "-")
        assert breached or float(after) < guide.MOST_LEFT * float(before)
    assert guide.in_guide(PAGE, written) == PAGE


def test_reasons_not_to_split_are_those_that_are_logged() -> None:
    usual = {
        "ceiling_bytes": 256 * MB, "used_bytes": 20 * MB, "warning_fraction": 0.8, "split_above_items": None,
        "auto_split_enabled": True, "max_items_per_child": 500,
    }  # fmt: skip
    for cost, changes in (
        (None, {"auto_split_enabled": False}),
        (None, {}),
        (2048, {}),
        (None, {"split_above_items": 1000}),
    ):
        decision = should_split(1000, cost, **{**usual, **changes})  # type: ignore[arg-type]
        assert not decision.yes
        assert f"\n| {decision.reason} |" in PAGE


def test_a_job_that_does_not_split_says_why(connection: Redis, start_worker: StartWorker, shop: Path) -> None:
    log = run(connection, start_worker, shop, "splitting.After", "--log-level", "debug", JOB_AUTO_SPLIT_ENABLED="false")
    assert "splitting.After splits: no: JOB_AUTO_SPLIT_ENABLED is false" in log
    done = subprocess.run(
        [sys.executable, "-c", "from splitting import After; print(After.run())"],
        env={**os.environ, "PYTHONPATH": f"{shop}:{ROOT}"}, cwd=shop, capture_output=True, text=True,
    )  # fmt: skip
    said = "is not split: only a MemoryWorker can wait for child jobs"
    assert said in done.stderr and f"\n| {said} |" in PAGE
    assert done.stdout.strip() == str(a_job(connection).return_value())


def test_what_is_said_of_a_breach(connection: Redis, start_worker: StartWorker, shop: Path) -> None:
    run(connection, start_worker, shop, "checking.Before")
    [breach] = execution_reader.breaches(connection, "a-job")
    assert "checking.py" in str(breach.grew) + breach.where
    assert "rqmem" in a_job(connection).meta


def test_the_commands_of_debug_mode(connection: Redis, redis_url: str, shop: Path) -> None:
    [block] = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    commands = [line.removeprefix("$ ").replace("JOB_ID", "a-job").split() for line in block.splitlines()]
    Queue("guide", connection=connection).enqueue("quiet.CountQuietly.run", job_id="a-job")
    printed = []
    for program, *arguments in commands:
        assert program == "rqmem"
        done = forked.run_module("rqmem", *arguments, directory=shop, RQMEM_REDIS_URL=redis_url)
        assert done.returncode == 0 or arguments[0] == "doctor", done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        printed.append(done.stdout + done.stderr)
    log, story, *_ = printed
    assert "at told\n" in log and "at told again\n" in log and "at not told" not in log
    assert "quiet.CountQuietly" in story
    assert a_job(connection).return_value() == sum(range(1000))


def test_monitoring_left_out_for_all_jobs(connection: Redis, start_worker: StartWorker, shop: Path) -> None:
    options = ("--log-level", "debug", "--log-every-checkpoint")
    log = run(connection, start_worker, shop, "quiet.CountQuietly", *options, MEMORY_MONITORING_ENABLED="false")
    assert a_job(connection).get_status() == JobStatus.FINISHED
    assert "at told" not in log


def test_no_example_is_left_out() -> None:
    modules = set(re.findall(r"^# (\w+)\.py$", PAGE, re.MULTILINE))
    assert modules == {tip.module for tip in tips()} | {"quiet"}
    named = re.findall(r"\]\((?!http|#)([^)]+)\)", PAGE)
    assert named and all((GUIDE.parent / name.partition("#")[0]).exists() for name in named)
