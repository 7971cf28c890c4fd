"""Which version of the code a worker's jobs ran: found, recorded, and told where it changes."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from rqmem.observe.period import code_changes
from rqmem.store.history import history_reader, history_writer
from rqmem.store.history.history_records import Tally
from rqmem.worker.code_version import code_version, commit
from tests import sample_jobs
from tests.journal_filling import a_run

FIRST, SECOND = "a" * 40, "0123456789" * 4


def test_the_configured_version_wins_and_is_one_short_line(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text(f"{FIRST}\n")
    assert code_version("", tmp_path) == "a" * 10
    assert code_version(" v7\n of  May ", tmp_path) == "v7 of May"
    assert len(code_version("x" * 1000, tmp_path)) == 40


def test_a_directory_without_a_repository_has_no_version(tmp_path: Path) -> None:
    assert commit(tmp_path) == ""
    (tmp_path / ".git").mkdir()
    assert commit(tmp_path) == ""


def test_the_commit_is_that_of_the_branch_wherever_git_keeps_it(tmp_path: Path) -> None:
    git, below = tmp_path / ".git", tmp_path / "deep" / "er"
    (git / "refs" / "heads").mkdir(parents=True)
    below.mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text(f"# pack-refs\n{FIRST} refs/heads/other/main\n{SECOND} refs/heads/main\n")
    assert commit(below) == SECOND
    (git / "refs" / "heads" / "main").write_text(f"{FIRST}\n")
    assert commit(below) == FIRST


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not there")
def test_it_is_what_git_says_also_in_a_worktree(tmp_path: Path) -> None:
    def git(*words: str, at: Path = tmp_path / "one") -> str:
        named = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
        return subprocess.run(
            ["git", *named, *words], cwd=at, check=True, capture_output=True, text=True
        ).stdout.strip()

    (tmp_path / "one").mkdir()
    git("init")
    git("commit", "--allow-empty", "-m", "one")
    git("worktree", "add", "-b", "side", str(tmp_path / "two"))
    git("commit", "--allow-empty", "-m", "two", at=tmp_path / "two")
    for each in (tmp_path / "one", tmp_path / "two"):
        assert commit(each) == git("rev-parse", "HEAD", at=each)
    assert commit(tmp_path / "one") != commit(tmp_path / "two")


@pytest.mark.parametrize(
    ("versions", "changes"),
    [
        ([], []),
        (["a"], []),
        (["a", "a", "b", "b"], [(2, "b")]),
        (["", "a", "", "b"], [(3, "b")]),
        (["a", "ab", "b"], [(1, "b")]),
        (["a", "b", "a"], [(1, "b"), (2, "a")]),
        (["a", "bc"], [(1, "b"), (1, "c")]),
    ],
)
def test_a_change_is_where_a_version_ran_that_did_not_run_before(
    versions: list[str], changes: list[tuple[float, str]]
) -> None:
    steps = [(at, Tally(runs=1, code_versions=dict.fromkeys(each, 1.0))) for at, each in enumerate(versions)]
    assert code_changes(steps) == changes


def test_a_version_is_any_text(connection: Redis) -> None:
    """It comes back as it was, by both ways of reading."""
    now, version = time.time(), 'v"7: \\ <ö>/'
    history_writer.version_is_ours(connection)
    with connection.pipeline() as pipeline:
        history_writer.write_runs(
            pipeline, [replace(a_run("shop.T", "j", now), code_version=version, times=3)], {}, now
        )
        pipeline.execute()
    asked = [("shop.T", "h", int(now // 3600))]
    for found in (history_reader.tallied(connection, asked), history_reader.tallies_of(connection, asked)):
        assert found[asked[0]].code_versions == {version: 3}


def test_runs_tell_the_version_that_their_worker_was_started_with(
    connection: Redis, work_off: Callable[..., Any]
) -> None:
    for version in ("v7", "v8"):
        sample_jobs.Plain.enqueue(number=7, connection=connection)
        work_off("plain", RQMEM_CODE_VERSION=version)
    kept = history_reader.runs(connection, "tests.sample_jobs.Plain")
    assert [run.code_version for run in kept] == ["v8", "v7"]


def test_short_jobs_of_a_lease_have_the_version_too(connection: Redis, work_off: Callable[..., Any]) -> None:
    queue = Queue("short", connection=connection)
    for number in range(50):
        queue.enqueue("tests.sample_jobs.add", number)
    work_off("short", RQMEM_CODE_VERSION="v7")
    now = time.time()
    steps = history_reader.tallies(connection, "tests.sample_jobs.add", now - 7200, now)
    assert [tally.code_versions for _, tally in steps] == [{"v7": tally.runs} for _, tally in steps]
    assert sum(tally.runs for _, tally in steps) == 50
