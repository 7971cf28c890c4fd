"""``rqmem journal``: how large it is, and forgetting it without touching what jobs need."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.job import JobStatus

from rqmem.store import keys
from rqmem.store.history import clearing, history_reader, history_writer
from rqmem.testing import wait_until
from tests import forked, sample_jobs
from tests.conftest import ROOT, StartWorker, wait_for_key
from tests.journal_filling import fill, fill_what_jobs_need

EXPORT, IMPORT = "jobs.exports.ExportJob", "jobs.imports.ImportJob"


@pytest.fixture
def environ(redis_url: str) -> dict[str, str]:
    return forked.environ(COLUMNS="80", RQMEM_REDIS_URL=redis_url)


def journal(environ: dict[str, str], *arguments: str, directory: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rqmem", "journal", *arguments]
    return forked.run(command, env=environ, cwd=directory, stdin=subprocess.DEVNULL, timeout=60)


def answered(environ: dict[str, str], answer: str, *arguments: str) -> tuple[int, str]:
    """The same, at a terminal, where somebody gives that answer: exit code and what stood on the screen."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "rqmem", "journal", *arguments], env=environ, cwd=ROOT,
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        os.write(ours, f"{answer}\n".encode())
        output = process.communicate(timeout=60)[0]
    finally:
        process.kill()
        os.close(ours)
        os.close(theirs)
    return process.returncode, output


def names(connection: Redis) -> set[str]:
    return {name.decode() for name in connection.scan_iter()}


# size


def test_its_size_by_kind_and_in_all(connection: Redis, environ: dict[str, str]) -> None:
    fill(connection, EXPORT, "one")
    fill(connection, IMPORT, "two")
    with connection.pipeline() as pipeline:
        history_writer.count_dropped(pipeline, {"events": 1200, "refused": 0})
        pipeline.execute()
    done = journal(environ, "size")
    assert (done.returncode, done.stderr) == (0, "")
    rows = {fields[0]: fields[1:] for fields in map(str.split, done.stdout.splitlines()) if fields}
    assert rows["kind"] == ["keys", "KB"]
    assert {kind: int(row[0]) for kind, row in rows.items() if kind in ("runs", "tally", "story", "breaches")} == {
        "runs": 2, "tally": 4, "story": 2, "breaches": 2,
    }  # fmt: skip
    kinds = history_reader.size(connection)
    keys_in_all = sum(count for count, _ in kinds.values())
    assert rows["total"] == [str(keys_in_all), f"{sum(size for _, size in kinds.values()) / 1024:,.1f}"]
    assert done.stdout.splitlines()[-1].endswith("events 1,200")


def test_its_size_as_json(connection: Redis, environ: dict[str, str]) -> None:
    fill(connection, EXPORT, "one")
    connection.set("rqmem:alive:not of the journal", "x" * 1000)
    told = json.loads(journal(environ, "size", "--json").stdout)
    kinds = history_reader.size(connection)
    assert told["keys"] == sum(count for count, _ in kinds.values())
    assert told["size_mb"] == pytest.approx(sum(size for _, size in kinds.values()) / 2**20, abs=1e-6)
    assert {each["kind"]: each["keys"] for each in told["kinds"]} == {kind: kinds[kind][0] for kind in kinds}
    assert (kinds["tally"][0], told["dropped"], told["note"]) == (2, {}, "")


def test_an_empty_one(environ: dict[str, str], connection: Redis) -> None:
    done = journal(environ, "size")
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [["total", "0", "0.0"]]
    assert names(connection) == set(), "looking writes nothing"


def test_one_of_another_version_is_said_and_measured_and_can_be_cleared(
    connection: Redis, environ: dict[str, str]
) -> None:
    fill(connection, EXPORT, "one")
    connection.set(keys.VERSION, 99)
    connection.hset(keys.DROPPED, "events", "not a number of ours")
    done = journal(environ, "size")
    assert done.returncode == 0
    assert "note: the journal on this Redis has version 99, this rqmem reads 1" in done.stdout
    refused = journal(environ, "clear", "--yes", "--job-type", EXPORT)
    assert refused.returncode == 1
    assert "has version 99" in refused.stderr
    assert journal(environ, "clear", "--yes").returncode == 0
    assert names(connection) == {keys.VERSION}
    history_reader.check_version(connection)


# clear


def test_clearing_it_leaves_what_jobs_need(connection: Redis, environ: dict[str, str]) -> None:
    fill_what_jobs_need(connection, "one")
    Queue("q", connection=connection).enqueue(sample_jobs.add, 1)
    connection.set("somebody's own", 1)
    connection.set("rqmem_of_somebody:runs:x", 1)
    others = names(connection)
    fill(connection, EXPORT, "one")
    ours = names(connection) - others
    assert len(ours) > 10
    done = journal(environ, "clear", "--yes")
    assert done.stdout == f"forgot the journal: {len(ours)} keys\n"
    assert (done.returncode, done.stderr) == (0, "")
    assert names(connection) == others | {keys.VERSION}


def test_clearing_a_large_one_goes_in_batches(connection: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clearing, "_AT_ONCE", 10)
    for number in range(25):
        fill(connection, f"jobs.Type{number}", f"job {number}")
    removed = len(names(connection))
    connection.config_resetstat()
    assert clearing.clear(connection) == removed
    calls = connection.info("commandstats")["cmdstat_unlink"]["calls"]
    assert removed / 10 <= calls <= removed / 10 + len(keys.JOURNAL_PATTERNS)


@pytest.mark.parametrize("job_type", [EXPORT, "jobs.odd[*]?\\Job"])
def test_clearing_one_job_type_leaves_the_others(connection: Redis, environ: dict[str, str], job_type: str) -> None:
    fill(connection, IMPORT, "two")
    fill(connection, "jobs.odd*Job", "three")
    before, size_before = names(connection), history_reader.size(connection)
    fill(connection, job_type, "one")
    assert len(names(connection)) > len(before)
    done = journal(environ, "clear", "--yes", "--job-type", job_type)
    assert done.stdout.startswith(f"forgot {job_type}: ")
    assert names(connection) == before
    assert {kind: count for kind, (count, _) in history_reader.size(connection).items()} == {
        kind: count for kind, (count, _) in size_before.items()
    }
    assert set(history_reader.types(connection)) == {IMPORT, "jobs.odd*Job"}
    assert [each.job for each in history_reader.alerts(connection)] == [IMPORT, "jobs.odd*Job"]
    assert {each.job for each in history_reader.open_alerts(connection)} == {IMPORT, "jobs.odd*Job"}
    assert connection.zscore(keys.STORIES, "one") is None
    assert len(history_reader.runs(connection, IMPORT)) == 1


def test_alerts_of_a_type_are_found_in_a_long_stream(connection: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clearing, "_AT_ONCE", 3)
    for number in range(10):
        fill(connection, IMPORT if number % 2 else EXPORT, str(number))
    clearing.clear_type(connection, EXPORT)
    assert [each.job_id for each in history_reader.alerts(connection)] == ["1", "3", "5", "7", "9"]


@pytest.mark.parametrize(
    ("known", "asked", "hint"),
    [
        ([EXPORT, IMPORT], "jobs.exports.ExportJb", f"did you mean {EXPORT} or {IMPORT}?"),
        (["a.A", "b.B", "c.C", "d.D"], "what.ever", " and 1 more"),
        ([], "what.ever", "it has none at all; is it the right --url?"),
    ],
)
def test_an_unknown_job_type_gets_a_suggestion(
    connection: Redis, environ: dict[str, str], known: list[str], asked: str, hint: str
) -> None:
    for number, job_type in enumerate(known):
        fill(connection, job_type, str(number))
    before = names(connection)
    done = journal(environ, "clear", "--yes", "--job-type", asked)
    [line] = done.stderr.splitlines()
    assert line.startswith(f"rqmem: the journal has no job type '{asked}': ")
    assert line.endswith(hint)
    assert done.returncode == 2
    assert names(connection) == before


def test_without_a_terminal_it_wants_to_be_told(connection: Redis, environ: dict[str, str]) -> None:
    fill(connection, EXPORT, "one")
    before = names(connection)
    done = journal(environ, "clear")
    assert done.stderr == "rqmem: there is no terminal to ask on: give --yes to forget the journal\n"
    assert done.returncode == 2
    assert names(connection) == before


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1), ("", 1)])
def test_at_a_terminal_it_asks(connection: Redis, environ: dict[str, str], answer: str, code: int) -> None:
    fill(connection, EXPORT, "one")
    before = names(connection)
    ended, output = answered(environ, answer, "clear")
    assert f"({len(before)} keys, 0.0 MB)?" in output
    assert ended == code, output
    assert (names(connection) == before) is (code == 1)
    assert ("nothing was forgotten" in output) is (code == 1)


def test_at_a_terminal_it_asks_for_a_job_type_too(connection: Redis, environ: dict[str, str]) -> None:
    fill(connection, EXPORT, "one")
    ended, output = answered(environ, "y", "clear", "--job-type", EXPORT)
    assert f"Forget what is known of {EXPORT} on " in output
    assert ended == 0
    assert history_reader.types(connection) == {}


def test_a_running_job_and_its_worker_go_on_and_are_remembered_anew(
    connection: Redis, environ: dict[str, str], start_worker: StartWorker
) -> None:
    queue = Queue("jobs", connection=connection)
    start_worker("jobs", "--name", "ada")
    sleeper = queue.enqueue(sample_jobs.say_hello_and_sleep, 1.0)
    wait_for_key(connection, "asleep")
    assert journal(environ, "clear", "--yes").returncode == 0
    wait_until(lambda: sleeper.get_status() == JobStatus.FINISHED)
    wait_until(lambda: history_reader.runs(connection, "tests.sample_jobs.say_hello_and_sleep"))
    history_reader.check_version(connection)
    assert [live.worker for live in history_reader.workers(connection, ["ada"])] == ["ada"]
