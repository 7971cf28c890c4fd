"""``rqmem inspect`` as people run it: stories that real workers left, also of jobs that RQ has forgotten."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from rqmem import events, words
from rqmem.breach_words import explanation
from rqmem.store import execution_reader, keys
from rqmem.store.history import history_reader
from rqmem.store.history.history_records import Told
from rqmem.testing import wait_until
from tests import profile_jobs, sample_jobs
from tests.cli.test_commands import rqmem
from tests.conftest import StartWorker, WorkOff, wait_for_key
from tests.journal_filling import fill, tell

Inspect = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def inspect(redis_url: str, connection: Redis) -> Inspect:
    own = {"RQMEM_REDIS_URL": redis_url, "PYTHONIOENCODING": "utf-8"}
    return lambda *arguments, **environ: rqmem("inspect", *arguments, **{**own, **environ})


def text(done: subprocess.CompletedProcess[str]) -> str:
    """What it printed, spaces and line breaks made one."""
    assert (done.returncode, done.stderr) == (0, "")
    return " ".join(done.stdout.split())


def test_the_story_of_a_breach_and_its_resume(connection: Redis, work_off: WorkOff, inspect: Inspect) -> None:
    job = sample_jobs.Squares.enqueue(count=24, item_mb=30, heavy_from=8, connection=connection)
    log = work_off("--memory", "200", "--name", "ada")
    done = inspect(job.id)
    told = text(done)
    assert len(execution_reader.breaches(connection, job.id)) == 1, log
    [breach] = execution_reader.breaches(connection, job.id)
    story = [told.event for told in history_reader.story(connection, job.id)]
    [resumed] = [each for each in story if isinstance(each, events.Resumed)]
    for shown in (
        f"tests.sample_jobs.Squares {job.id}",
        "call tests.sample_jobs.Squares(count=24, item_mb=30, heavy_from=8)",
        "status finished worker ada ceiling 200 MB",
        "outcome ok, 2 executions, 1 breach, 1 resume",
        "next nothing: it is finished",
        "items 1-8",
        "at 'items 9-16' (peak",
        words.short(resumed),
        "ended ok after",
        "at work, 2 executions",
        "where it grew:",
        f"next: {breach.next}",
    ):
        assert shown in told, done.stdout
    assert f"{breach.used_mb:.1f} MB █" in told
    for summary in (breach.summary(), *explanation(breach)):
        assert " ".join(summary.split()) in told
    assert told.index("memory over time") < told.index("what happened") < told.index(breach.summary())
    assert sum("╌" in line for line in done.stdout.splitlines()) == 1, "the ceiling"
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_json_has_the_whole_of_it(connection: Redis, work_off: WorkOff, inspect: Inspect) -> None:
    job = sample_jobs.Squares.enqueue(count=24, item_mb=30, heavy_from=8, connection=connection)
    work_off("--memory", "200")
    shown: Any = json.loads(inspect(job.id, "--json").stdout)
    last, first = history_reader.runs(connection, "tests.sample_jobs.Squares")
    assert [run["peak_mb"] for run in shown["runs"]] == [first.peak_mb, last.peak_mb]
    times = [each["at"] for each in shown["events"]]
    assert times == sorted(times), "whoever told it, and whenever it was written"
    kinds = [each["event"] for each in shown["events"] if not each["event"].startswith("Alert")]
    assert (kinds[0], kinds[-1], kinds.count("Breach"), kinds.count("Resumed")) == ("JobStarted", "RunEnded", 1, 1)
    [breach] = execution_reader.breaches(connection, job.id)
    assert shown["breach_records"][0]["summary"] == breach.summary()
    assert [(each["grown_mb"], each["line"]) for each in shown["breach_records"][0]["grew"]] == breach.grew != []
    assert shown["peak_mb"] == max(first.peak_mb, breach.peak_mb)


def test_what_rq_has_forgotten_the_journal_still_tells(connection: Redis, work_off: WorkOff, inspect: Inspect) -> None:
    job = sample_jobs.Squares.enqueue(count=4, item_mb=300, heavy_from=2, connection=connection)
    work_off("--memory", "200")
    job.delete()
    told = text(inspect(job.id[:8]))
    assert f"tests.sample_jobs.Squares {job.id} call tests.sample_jobs.Squares queue default" in told
    assert "status forgotten by RQ" in told
    assert "gave up after a memory breach" in told and "does not fit alone" in told
    assert "next nothing: it ended, and RQ has forgotten it" in told


def test_a_function_that_breached(connection: Redis, work_off: WorkOff, inspect: Inspect) -> None:
    job = Queue(connection=connection).enqueue(sample_jobs.grow_lists)
    work_off("--memory", "128", "--name", "ada")
    told = text(inspect(job.id))
    assert "outcome MemoryLimitExceeded, 1 execution, 1 breach" in told
    assert "error rqmem.errors.MemoryLimitExceeded: tests.sample_jobs.grow_lists used" in told
    assert "started on ada" in told and "ended MemoryLimitExceeded after" in told
    assert "what grew: list +" in told
    assert "memory over time" in told, "from the curve of the breach"
    assert "what was before is forgotten" not in told


def test_a_function_that_fitted(connection: Redis, work_off: WorkOff, inspect: Inspect) -> None:
    job = Queue(connection=connection).enqueue(profile_jobs.fit_with, 40)
    work_off("--memory", "128")
    [run] = history_reader.runs(connection, "tests.profile_jobs.fit_with")
    told = text(inspect(job.id))
    assert f"peak {run.peak_mb:.1f} MB ({100 * run.peak_mb / 128:.0f} % of the ceiling) outcome ok, 1 execution" in told
    assert f"where it grew to its peak of {run.peak_mb:.1f} MB" in told
    assert "MB " in told and "tests/profile_jobs.py:" in told and ": held = [bytearray(2**20) for _" in told
    assert json.loads(inspect(job.id, "--json").stdout)["grew"][0]["peak_mb"] == run.peak_mb
    job.delete()
    connection.delete(keys.STORIES)
    assert f"peak {run.peak_mb:.1f} MB" in text(inspect(job.id[:12])), "found among the runs of its type"


def test_a_job_that_runs_shows_what_is_so_far(connection: Redis, start_worker: StartWorker, inspect: Inspect) -> None:
    job = Queue(connection=connection).enqueue(sample_jobs.say_hello_and_sleep, 600)
    start_worker("--name", "ada", "--memory", "128")
    wait_for_key(connection, "asleep")
    began = time.time()
    wait_until(lambda: len([s for s in history_reader.samples(connection, "ada", time.time()) if s.at > began]) >= 2)
    done = inspect(job.id)
    told = text(done)
    assert "outcome running, 1 execution" in told and "so far" in told and "next runs on ada" in told
    assert "memory over time" in told, "from the worker's samples"
    assert "running now" in told


def test_a_job_that_has_not_run(connection: Redis, inspect: Inspect) -> None:
    job = Queue("mail", connection=connection).enqueue(sample_jobs.add, 1)
    told = text(inspect(job.id))
    assert told.endswith("queue mail status queued outcome has not run next number 1 in queue 'mail'")


def test_a_story_that_is_too_long_says_so(connection: Redis, inspect: Inspect) -> None:
    whose = {"job": "jobs.mail.Send", "job_id": "long-1", "queue": "mail", "worker": "ada"}
    connection.hset(keys.run("long-1"), mapping={"job": "jobs.mail.Send"})
    start = time.time() - 300
    told = [Told(start, events.JobStarted(**whose, memory_mb=20, memory_limit_mb=256))]
    for number in range(120):
        used = 20.0 + number
        told.append(Told(start + number, events.Checkpoint(**whose, operation=f"customer {number}",
            current_memory_mb=used, peak_memory_mb=used, memory_limit_mb=256)))  # fmt: skip
    tell(connection, told)
    shown = text(inspect("long-1"))
    assert "customer 18 " in shown and "customer 19 " not in shown and "customer 119" in shown
    assert "what was between is forgotten" in shown
    assert "customer 119" in shown and "customer 5 " in shown and "customer 30 " not in shown
    assert "checkpoint 139.0 MB at customer 119" in shown


def test_where_nothing_but_ascii_can_be_shown(connection: Redis, inspect: Inspect) -> None:
    fill(connection, "jobs.mail.Send", "1f3a9c20")
    done = inspect("1f3a9c20", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stdout.isascii()
    assert "271.3 MB  ##########  BREACH" in done.stdout
    assert "?" not in done.stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("1f3a", "'1f3a' is the beginning of 2 job ids: give more of it: 1f3a9c20, 1f3a9c21"),
        ("1f3a9c22", "no job '1f3a9c22': did you mean 1f3a9c2"),
        ("other*", "no job 'other*': RQ has none of that id, or has forgotten it, and the journal has none either"),
    ],
)
def test_an_id_of_none_or_of_several(connection: Redis, inspect: Inspect, given: str, said: str) -> None:
    for job_id in ("1f3a9c20", "1f3a9c21"):
        fill(connection, "jobs.mail.Send", job_id)
    done = inspect(given)
    [line] = done.stderr.splitlines()
    assert line.startswith("rqmem: ") and said in line
    assert (done.stdout, done.returncode) == ("", 2)
