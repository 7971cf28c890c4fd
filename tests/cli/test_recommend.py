"""``rqmem recommend`` as people run it: a real Redis, a journal filled as workers fill it, and real workers' own."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from redis import Redis

from rqmem import MemoryAwareJob
from rqmem.cli import main
from rqmem.config.load import parse
from rqmem.policy.recommendation import FEWEST_RUNS
from rqmem.store.history import history_reader
from tests import sample_jobs
from tests.cli.test_commands import rqmem
from tests.cli.test_report import DAY, GONE, JOB, a_breach, ended
from tests.conftest import WorkOff
from tests.journal_filling import a_run, remember

SMALL = "tests.sample_jobs.Squares"
Recommend = Callable[..., Result]


@pytest.fixture
def recommend(redis_url: str, connection: Redis) -> Recommend:
    """As typed, but within this process, which is quicker."""

    def run(*options: str, **environ: str) -> Result:
        return CliRunner().invoke(main, ["recommend", *options], env={"RQMEM_REDIS_URL": redis_url, **environ})

    return run


def as_json(recommend: Recommend, *options: str) -> dict[str, Any]:
    done = recommend("--json", *options)
    assert done.exit_code == 0, done.stderr
    return {job["job_type"]: job for job in json.loads(done.stdout)["job_types"]}


def fill_days(connection: Redis, job: str, peak_mb: float, days: int = 10, **changes: Any) -> None:
    """Ten runs a day."""
    for age in reversed(range(days)):
        run = replace(a_run(job, f"j{age}", 0), peak_mb=peak_mb, **changes)
        ended(connection, time.time() - age * DAY, *[run] * 10)


def test_a_history_of_seconds_is_told_as_such(connection: Redis, redis_url: str) -> None:
    now = time.time()
    remember(connection, *(a_run(JOB, f"j{n}", now - 0.1 * n) for n in range(62)))
    done = rqmem("recommend", "--json", RQMEM_REDIS_URL=redis_url)
    [job] = json.loads(done.stdout)["job_types"]
    assert job["runs"] == 62
    assert 0 <= job["history_seconds"] < 600, "since its first run, not since the hour began"


def test_a_ceiling_with_why_and_what_it_would_have_changed(connection: Redis, recommend: Recommend) -> None:
    fill_days(connection, JOB, 120.0, largest_chunk=0, limit_mb=512.0)
    before = {key: connection.dump(key) for key in connection.scan_iter()}
    done = recommend()
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{JOB}: confidence fair (100 runs in 9 d, the last ")
    assert "  ceiling          156 MB     now 512, gives back 356 MB; likely between" in done.stdout
    assert "  no run would have gone otherwise" in done.stdout
    assert "  - the highest peak of a day, recent days before old ones: 12" in done.stdout
    assert {key: connection.dump(key) for key in connection.scan_iter()} == before, "it only reads"
    [job] = as_json(recommend).values()
    assert (job["runs"], job["ceiling_mb"], job["runs_needed"]) == (100, 512, None)
    assert job["recommended"]["ceiling_mb"] == 156
    assert job["recommended"]["given_back_mb"] == 356


def test_after_breaches_it_is_raised(connection: Redis, recommend: Recommend) -> None:
    fill_days(connection, JOB, 120.0, limit_mb=256.0)
    ended(connection, time.time(), a_breach(JOB), a_breach(JOB))
    found = as_json(recommend)[JOB]["recommended"]
    assert found["ceiling_mb"] >= 1.15 * (256 + 100)
    assert (found["breaches_seen"], found["breaches_avoided"]) == (2, 2)
    assert found["given_back_mb"] < 0
    shown = recommend().stdout
    assert "would have avoided 2 of 2 breaches" in shown
    assert "takes " in shown


def test_too_little_history_is_said(connection: Redis, recommend: Recommend) -> None:
    ended(connection, time.time(), a_run(JOB, "j1", 0))
    done = recommend()
    assert done.exit_code == 0
    assert done.stdout == (f"{JOB}: too little history: 1 run in 30 days, a recommendation takes {FEWEST_RUNS}\n")
    assert as_json(recommend)[JOB]["recommended"] is None
    assert recommend("--apply").stdout.startswith(f"# {JOB!r}: too little history")


def test_what_is_printed_to_paste_is_python_and_environment(connection: Redis, recommend: Recommend) -> None:
    fill_days(connection, JOB, 120.0)
    fill_days(connection, "jobs.reports.build_report", 300.0, largest_chunk=0, items=0)
    done = recommend("--apply")
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    begin = lines.index("class ProcessRetellAICampaignJob(MemoryAwareJob):")
    body = [lines[begin], *(line for line in lines[begin + 1 :] if line.startswith("    "))]
    made: dict[str, Any] = {"MemoryAwareJob": MemoryAwareJob}
    exec(compile(ast.parse("\n".join(body)), "pasted", "exec"), made)  # the class takes them
    pasted = made["ProcessRetellAICampaignJob"]
    found = as_json(recommend)[JOB]["recommended"]
    assert (pasted.memory_limit_mb, pasted.chunk_size, pasted.split_above_items) == (
        found["ceiling_mb"], found["chunk_size"], found["split_above_items"],
    )  # fmt: skip
    other = as_json(recommend)["jobs.reports.build_report"]["recommended"]["ceiling_mb"]
    assert f"@memory_aware(memory_limit_mb={other:.0f})" in lines
    assert lines[-1] == f"RQMEM_MEMORY={max(other, found['ceiling_mb']):.0f}"
    ended(connection, time.time(), replace(a_run("jobs.training.Train", "j1", 0), limit_mb=2048.0))
    assert recommend("--apply").stdout.endswith("RQMEM_MEMORY=2048\n"), "no other job's ceiling is cut"


def test_lines_for_the_config_file_are_read_by_it(connection: Redis, recommend: Recommend) -> None:
    fill_days(connection, JOB, 120.0)
    evil = "jobs.evil\n[rqmem]\nmemory = 1"
    fill_days(connection, evil, 120.0)
    done = recommend("--apply", "config")
    assert done.exit_code == 0, done.stderr
    file = parse(done.stdout, "rqmem.ini")
    found = as_json(recommend)[JOB]["recommended"]
    assert set(file.jobs) == {JOB}
    assert file.jobs[JOB].given == {
        "memory_limit_mb": found["ceiling_mb"],
        "chunk_size": found["chunk_size"],
        "split_above_items": found["split_above_items"],
    }
    assert file.values == {"memory_mb": max(found["ceiling_mb"], 256)}, "the other's is not cut"
    assert f"# {evil!r} is no path to paste" in recommend("--apply").stdout


def test_the_warning_threshold_is_that_of_the_settings(connection: Redis, recommend: Recommend) -> None:
    fill_days(connection, JOB, 120.0, largest_chunk=0)
    usual, early = (
        json.loads(recommend("--json", **environ).stdout)["job_types"][0]["recommended"]["ceiling_mb"]
        for environ in ({}, {"MEMORY_WARNING_THRESHOLD": "0.5"})
    )
    assert early >= 240 > usual


def test_one_job_type_and_one_whose_code_is_gone(
    connection: Redis, redis_url: str, recommend: Recommend, tmp_path: Path
) -> None:
    fill_days(connection, GONE, 120.0)
    fill_days(connection, JOB, 120.0)
    assert set(as_json(recommend, "--job", "long_ago.Job")) == {GONE}
    done = rqmem("recommend", "--job", GONE, "--apply", directory=tmp_path, RQMEM_REDIS_URL=redis_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "class Job(MemoryAwareJob):" in done.stdout


def test_an_empty_journal_says_what_to_run(recommend: Recommend) -> None:
    done = recommend()
    assert done.exit_code == 0
    assert done.stdout.startswith("note: the journal is empty: 'rqmem worker' writes it while jobs run")
    assert recommend("--apply").stdout.startswith("# the journal is empty")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--apply", "--json"], "--apply and --json: give one of them"),
        (["--job", "Nothing"], "no job type 'Nothing': the journal has none like it"),
        (["now"], "Got unexpected extra argument (now)"),
    ],
)
def test_bad_input_is_one_line(recommend: Recommend, options: list[str], message: str) -> None:
    done = recommend(*options)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr


def test_nothing_heavy_is_imported_for_it() -> None:
    code = "import rqmem.cli.report, rqmem.cli.recommend, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.split(".")[0] for name in done.stdout.split()}.isdisjoint({"plotly", "matplotlib", "numpy"})


def test_what_a_real_worker_saw(connection: Redis, recommend: Recommend, work_off: WorkOff) -> None:
    work: dict[str, Any] = {"count": 16, "item_mb": 2, "hold_seconds": 0.03, "connection": connection}
    for _ in range(FEWEST_RUNS):
        sample_jobs.Squares.enqueue("q", **work)
    work_off("--queue", "q", "--memory", "400", "--log-level", "error")
    runs = history_reader.runs(connection, SMALL)
    job = as_json(recommend)[SMALL]
    found = job["recommended"]
    highest = max(run.peak_mb for run in runs)
    assert (job["runs"], job["ceiling_mb"]) == (len(runs), 400)
    assert found["ceiling_mb"] >= 1.15 * highest
    assert found["given_back_mb"] == 400 - found["ceiling_mb"]
    assert (found["confidence"], found["breaches_seen"]) == ("low", 0)
    assert found["chunk_size"] is None or found["chunk_size"] >= 1  # None: the watcher saw no chunk at its height
    # Under that ceiling the same jobs go well.
    jobs = [sample_jobs.Squares.enqueue("q", **work) for _ in range(3)]
    work_off("--queue", "q", "--memory", str(found["ceiling_mb"]), "--log-level", "error")
    assert [job.get_status() for job in jobs] == ["finished"] * 3
    assert history_reader.tally(connection, SMALL, time.time() - 3600, time.time()).breached == 0
