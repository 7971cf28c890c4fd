"""``rqmem enqueue`` as people run it, and what workers make of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus

from rqmem.cli.call import arguments, resolve
from rqmem.errors import ConfigError
from rqmem.observe.snapshot import served_queues
from tests import forked, sample_jobs
from tests.cli.test_commands import rqmem
from tests.conftest import ROOT, StartWorker

Enqueue = Callable[..., subprocess.CompletedProcess[str]]
ADD = "tests.sample_jobs.add"


@pytest.fixture
def enqueue(redis_url: str, connection: Redis) -> Enqueue:
    return lambda *arguments, **more: rqmem("enqueue", *arguments, **{"RQMEM_REDIS_URL": redis_url, **more})


@pytest.fixture
def enqueued(enqueue: Enqueue, connection: Redis) -> Callable[..., Job]:
    """The job that the command made."""

    def run(*arguments: str) -> Job:
        done = enqueue(*arguments)
        assert done.returncode == 0, done.stderr
        [job_id] = done.stdout.splitlines()
        return Job.fetch(job_id, connection=connection)

    return run


# What is enqueued


def test_a_class_on_its_queue(enqueued: Callable[..., Job], connection: Redis) -> None:
    job = enqueued("tests.sample_jobs.Plain", "--kwarg", "number=7", "--kwarg", 'name="Ada"')
    assert (job.origin, job.func_name, job.args, job.kwargs) == (
        "plain", "tests.sample_jobs.Plain.run", (), {"number": 7, "name": "Ada"},
    )  # fmt: skip
    assert job.description == "tests.sample_jobs.Plain(number=7, name='Ada')"
    assert Queue("plain", connection=connection).job_ids == [job.id]


def test_a_class_by_its_run_method_is_the_class(enqueued: Callable[..., Job]) -> None:
    job = enqueued("tests.sample_jobs.Plain.run", "--arg", "7", "-q", "other")
    assert (job.origin, job.func_name, list(job.args)) == ("other", "tests.sample_jobs.Plain.run", [7])


def test_a_function_as_rq_would(enqueued: Callable[..., Job], redis_url: str, connection: Redis) -> None:
    typed = ["7", "b:=[1, 2]"]
    ours = enqueued(ADD, *typed)
    assert forked.run_module("rq.cli", "enqueue", "--url", redis_url, ADD, *typed).returncode == 0
    [job_id] = set(Queue(connection=connection).job_ids) - {ours.id}
    theirs = Job.fetch(job_id, connection=connection)
    for name in ("func_name", "kwargs", "origin", "description", "timeout", "result_ttl", "ttl", "meta"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert list(ours.args) == list(theirs.args) == ["7"]


@pytest.mark.parametrize(
    ("typed", "args", "kwargs"),
    [
        (["--arg", "7", "--arg", "true", "--arg", "null", "--arg", '{"a": [1]}'], [7, True, None, {"a": [1]}], {}),
        (["--arg", "007", "--arg", "NaN", "--arg", "{a:1}", "--arg", "", "--arg", '"7"'],
         ["007", "NaN", "{a:1}", "", "7"], {}),
        (["7", ":7", "%(1, 2)", "a=7", "b:=7", "c%={1}"], ["7", 7, (1, 2)], {"a": "7", "b": 7, "c": {1}}),
        (["x", "--arg", "1", "--kwarg", "a=[1.5]", "--kwarg", 'b="="'], ["x", 1], {"a": [1.5], "b": "="}),
        (["--arg", "-1", "--kwarg", "a=-1"], [-1], {"a": -1}),
    ],
    ids=["JSON", "text", "rq's forms", "both", "negative"],
)  # fmt: skip
def test_arguments(enqueued: Callable[..., Job], typed: list[str], args: list[Any], kwargs: dict[str, Any]) -> None:
    job = enqueued("tests.cli.test_enqueue.anything", *typed)
    assert (list(job.args), job.kwargs) == (args, kwargs)


def anything(*args: Any, **kwargs: Any) -> str:
    return f"{args} {kwargs}"


def test_options_are_rqs(enqueued: Callable[..., Job], connection: Redis) -> None:
    queue = Queue("mail", connection=connection)
    before = queue.enqueue(ADD, 1)
    job = enqueued(
        ADD, "1", "-q", "mail", "--timeout", "2m", "--result-ttl", "1h", "--ttl", "1d", "--failure-ttl", "-1",
        "--description", "the nightly one", "--job-id", "my-job", "--at-front", "--retry-max", "3",
        "--retry-interval", "10s", "--retry-interval", "1m",
    )  # fmt: skip
    assert (job.id, job.timeout, job.result_ttl, job.ttl, job.failure_ttl) == ("my-job", 120, 3600, 86400, -1)
    assert (job.description, job.retries_left, job.retry_intervals) == ("the nightly one", 3, [10, 60])
    assert queue.job_ids == ["my-job", before.id]


def test_a_class_takes_the_same_options(enqueued: Callable[..., Job]) -> None:
    job = enqueued("tests.sample_jobs.Plain", "--arg", "1", "--timeout", "-1", "--result-ttl", "0", "--job-id", "x")
    assert (job.id, job.timeout, job.result_ttl) == ("x", -1, 0)


@pytest.mark.parametrize("path", [ADD, "tests.sample_jobs.Plain"])
def test_later(enqueued: Callable[..., Job], connection: Redis, path: str) -> None:
    soon = enqueued(path, "--arg", "1", "--schedule-in", "10m", "-q", "mail")
    registry = Queue("mail", connection=connection).scheduled_job_registry
    assert abs(registry.get_scheduled_time(soon) - datetime.now(timezone.utc) - timedelta(minutes=10)) < timedelta(
        minutes=2
    )
    for text in ("2126-05-27T21:45:00+02:00", "2126-05-27T19:45:00Z"):
        job = enqueued(path, "--arg", "1", "--schedule-at", text, "-q", "mail")
        assert registry.get_scheduled_time(job) == datetime(2126, 5, 27, 19, 45, tzinfo=timezone.utc)
        assert job.get_status() == JobStatus.SCHEDULED
    local = enqueued(path, "--arg", "1", "--schedule-at", "2126-05-27T21:45:00", "-q", "mail")
    assert registry.get_scheduled_time(local) == datetime(2126, 5, 27, 21, 45).astimezone()


def test_after_another_job(enqueued: Callable[..., Job]) -> None:
    first = enqueued(ADD, "1")
    job = enqueued(ADD, "2", "--depends-on", first.id[:9])
    assert job.get_status() == JobStatus.DEFERRED
    assert job.dependency_ids == [first.id]


def test_json_and_what_people_are_told(enqueue: Enqueue, connection: Redis) -> None:
    done = enqueue(ADD, "1", "--json")
    shown = json.loads(done.stdout)
    assert shown == {
        "job_id": Queue(connection=connection).job_ids[0], "call": f"{ADD}('1')", "queue": "default",
        "status": "queued", "scheduled_for": None,
    }  # fmt: skip
    assert done.stderr == f"enqueued: {ADD}('1') on queue 'default'; no worker serves it now: rqmem worker default\n"
    assert enqueue(ADD, "1", "--quiet").stderr == ""


def test_a_queue_that_nobody_serves_and_one_like_it_that_is_served(
    enqueue: Enqueue, connection: Redis, start_worker: StartWorker
) -> None:
    start_worker("orders").wait_for("Listening on orders")
    told = enqueue(ADD, ":1", "-q", "oders").stderr
    assert told.endswith("; no worker serves it now: did you mean orders? Else start one: rqmem worker oders\n")
    assert enqueue(ADD, ":1", "-q", "mail").stderr.endswith("; no worker serves it now: rqmem worker mail\n")


def test_a_text_for_a_number_is_noted(enqueue: Enqueue, connection: Redis) -> None:
    plain = "tests.sample_jobs.Plain"
    note = "\nnote: {0} is the text '{1}'; {0}:={1} is the number\n"
    assert enqueue(plain, "number=180").stderr.endswith(note.format("number", "180"))
    assert enqueue(ADD, "a=-1.5", "b:=2").stderr.endswith(note.format("a", "-1.5"))
    for typed in (["number:=180"], ["number=007"], ["number:=1", "name=2026"]):  # ``name`` is declared as a text
        assert "note:" not in enqueue(plain, *typed).stderr
    assert enqueue(plain, "number=180", "--quiet").stderr == ""


def test_code_is_found_where_path_says(enqueue: Enqueue, connection: Redis, tmp_path: Path, redis_url: str) -> None:
    code = tmp_path / "my code"
    code.mkdir()
    (code / "nightly.py").write_text("def count(n):\n    return n\n")
    done = enqueue("nightly.count", "3", "--path", str(code), directory=tmp_path)
    assert done.returncode == 0, done.stderr
    refused = enqueue("nightlyy.count", "3", "--path", str(code), directory=tmp_path)
    assert "there is no module nightlyy: did you mean nightly?" in refused.stderr


# Waiting for the end


def test_wait_prints_the_result(connection: Redis, start_worker: StartWorker, enqueue: Enqueue) -> None:
    start_worker("--name", "ada", "plain")
    done = enqueue("tests.sample_jobs.Plain", "--kwarg", "number=7", "--wait", "60s")
    job_id, result = done.stdout.splitlines()
    assert json.loads(result) == [7, "x", [], {"number": 7}]
    assert Job.fetch(job_id, connection=connection).is_finished
    shown = json.loads(enqueue("tests.sample_jobs.Plain", "--arg", "7", "--wait", "60", "--json").stdout)
    assert (shown["status"], shown["result"], shown["error"]) == ("finished", [7, "x", [7], {}], "")


def test_wait_tells_the_error(connection: Redis, start_worker: StartWorker, enqueue: Enqueue) -> None:
    start_worker("--memory", "128")
    done = enqueue("tests.sample_jobs.raise_error", "--wait", "60", "--quiet")
    job_id = done.stdout.strip()
    assert done.stderr == f"rqmem: job {job_id} failed: ValueError: an ordinary failure\n"
    assert done.returncode == 1
    done = enqueue("tests.sample_jobs.grow_lists", "--wait", "60", "--quiet", "--json")
    assert "MemoryLimitExceeded: tests.sample_jobs.grow_lists used" in json.loads(done.stdout)["error"]
    assert (json.loads(done.stdout)["status"], done.returncode) == ("failed", 1)


def test_a_result_that_is_not_kept(start_worker: StartWorker, enqueue: Enqueue) -> None:
    start_worker()
    done = enqueue(ADD, ":1", "--wait", "60", "--result-ttl", "0", "--quiet")
    assert (done.returncode, done.stdout.splitlines()[1:], done.stderr) == (0, ["null"], "")


def test_wait_says_why_a_result_is_not_here(start_worker: StartWorker, enqueue: Enqueue) -> None:
    """It printed RQ's word for it, "Unserializable return value", as if the job had returned that."""
    start_worker()
    done = enqueue("tests.lease.jobs.returns_a_function", "--wait", "60", "--quiet")
    job_id, printed = done.stdout.splitlines()
    assert (done.returncode, printed) == (0, "null")
    assert done.stderr == (
        f"rqmem: job {job_id} finished, but its result was not kept, since DefaultSerializer cannot write it: "
        "return plain values, such as numbers and text\n"
    )
    done = enqueue("tests.sample_jobs.returns_odd", "tuple as key", "--wait", "60", "--quiet")
    assert (done.stdout.splitlines()[1], done.stderr) == ('"{(1, 2): 3}"', "")
    done = enqueue("tests.sample_jobs.returns_odd", "no repr", "--wait", "60", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert "<tests.sample_jobs.Speechless object at" in done.stdout
    done = enqueue("tests.sample_jobs.returns_odd", "unreadable", "--wait", "60", "--quiet", "--json")
    assert json.loads(done.stdout)["result"] is None
    assert json.loads(done.stdout)["error"].startswith("its result cannot be read here: ValueError: invalid")


def test_wait_for_a_job_that_nobody_runs(enqueue: Enqueue) -> None:
    done = enqueue(ADD, "1", "--wait", "1", "--quiet")
    job_id = done.stdout.strip()
    assert done.stderr == f"rqmem: job {job_id} is still queued after 1 s: rqmem status --job {job_id}\n"
    assert done.returncode == 1


def test_another_serializer(start_worker: StartWorker, enqueue: Enqueue) -> None:
    start_worker("-S", "json", "plain")
    done = enqueue("tests.sample_jobs.Plain", "--arg", "7", "-S", "json", "--wait", "60", "--quiet")
    assert json.loads(done.stdout.splitlines()[1])[0] == 7


# What is wrong


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("add", "'add' is no path to a job: give module.Class or module.function"),
        ("tests..add", "'tests..add' is no path to a job"),
        ("jbos.campaigns.X", "there is no module jbos: did you mean jobs?"),
        ("qwertz.x", "there is no module qwertz: start in the directory of the code, or give --path"),
        ("tests.broken_modul.f", "tests.broken_modul.f: tests has no 'broken_modul': did you mean broken_module?"),
        ("tests.sample_jobs.ad", "tests.sample_jobs has no 'ad': did you mean add?"),
        ("tests.sample_jobs.Plain.rum", "tests.sample_jobs.Plain has no 'rum': did you mean run?"),
        ("tests.sample_jobs.Plain.handle", "is a part of a MemoryAwareJob: name the class, tests.sample_jobs.Plain"),
        ("tests.preloaded", "tests.preloaded is a module: name a function or a MemoryAwareJob in it"),
        ("tests.sample_jobs.os", "tests.sample_jobs.os is a module: name what to call in it: "),
        ("tests.sample_jobs.MB", "tests.sample_jobs.MB is int 1048576: name a function or a MemoryAwareJob"),
        ("tests.workers.FatteningQueue", "is a class, and no rqmem.MemoryAwareJob"),
        ("rq.Queue.enqueue", "rq.Queue.enqueue is a method that needs an object"),
        (
            "tests.broken_module.f",
            "tests.broken_module.f cannot be imported: RuntimeError: this module cannot be imported (broken_module.py:",
        ),
    ],
)
def test_a_path_that_names_nothing_to_call(monkeypatch: pytest.MonkeyPatch, path: str, words: str) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError) as raised:
        resolve(path)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("typed", "kwargs", "words"),
    [
        ([], ["a=bob"], "--kwarg a: 'bob' is no JSON (Expecting value: line 1 column 1 (char 0)); "
                        "for text: --kwarg 'a=\"bob\"'"),
        ([], ["a=[x]"], "JSON needs its own quotes inside the shell's: --kwarg 'a=[\"a\", \"b\"]'"),
        ([], ["a=NaN"], "--kwarg a: 'NaN' is no JSON (NaN is none)"),
        ([], ["7"], "--kwarg '7': give name=JSON, for example --kwarg tenant_id=7"),
        (["a=1"], ["a=2"], "--kwarg a: there is one already: give each name once"),
        (["a:=x"], [], "Unable to parse a as JSON: quote it for the shell, as in 'ids:=[1, 2]'"),
        (["@no/such"], [], "the file of @no/such cannot be read: there is none; a text that begins with @ is given as"),
        (["a=@/"], [], "the file of a=@/ cannot be read: Is a directory"),
        ([f"@{sys.executable}"], [], "it is no text in UTF-8"),
        (["%(1", "2"], [], "Unable to eval 1. non keyword argument as Python object"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_be_read(typed: list[str], kwargs: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        arguments(typed, [], kwargs)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["tests.sample_jobs.ad"], "tests.sample_jobs has no 'ad': did you mean add?"),
        ([ADD, "--kwarg", "a=bob"], "for text: --kwarg 'a=\"bob\"'"),
        ([ADD], f"{ADD}: missing a required argument: 'a'; it takes (a, b=1)"),
        (["tests.sample_jobs.Plain", "--kwarg", "numbr=1"], "it has no argument 'numbr': did you mean number?"),
        ([ADD, "--kwarg", "a=1", "--kwarg", "c=1"], f"{ADD}: it has no argument 'c': it takes a, b"),
        ([ADD, "-q", "--wait", "5"], "-q (--queue) needs a value, and '--wait' is an option of its own"),
        ([ADD, "--job-id", "-q", "jobs"], "--job-id needs a value, and '-q' is an option of its own"),
        ([ADD, ":1", "--path", "/no/such/directory"], "--path='/no/such/directory' is not there: give the directory"),
        ([ADD, "1", "--timeout", "0"], "--timeout='0': give whole seconds, at least 1, as in 90s, 10m, 2h or 3d,"),
        ([ADD, "1", "--ttl", "-1"], "--ttl='-1': give whole seconds, at least 1, as in"),
        ([ADD, "1", "--result-ttl", "1x"], "--result-ttl='1x': give whole seconds, at least 0"),
        ([ADD, "1", "--wait", "soon"], "--wait='soon': give whole seconds, at least 1"),
        ([ADD, "1", "--retry-max", "0"], "Invalid value for '--retry-max': 0 is not in the range x>=1"),
        ([ADD, "1", "--retry-interval", "5"], "--retry-interval without --retry-max"),
        ([ADD, "1", "--retry-max", "1", "--retry-interval", "-5"], "--retry-interval='-5': give whole seconds"),
        ([ADD, "1", "--schedule-in", "1m", "--schedule-at", "2126-01-01"], "--schedule-in and --schedule-at: give one"),
        ([ADD, "1", "--schedule-in", "-5m"], "--schedule-in='-5m': give whole seconds, at least 0"),
        ([ADD, "1", "--schedule-in", "99999999999d"], "--schedule-in='99999999999d': that is more than 100 years"),
        ([ADD, "1", "--ttl", "99999999999999999999d"], "d': that is more than 100 years"),
        ([ADD, "1", "--schedule-at", "9999-12-31T23:59:59-12:00"], "59-12:00': give a time as 2026-05-27T21:45:00"),
        ([ADD, "1", "--schedule-at", "tomorrow"], "--schedule-at='tomorrow': give a time as 2026-05-27T21:45:00"),
        ([ADD, "1", "--schedule-in", "1m", "--depends-on", "x"], "such a job runs when due, whatever it depends on"),
        ([ADD, "1", "--depends-on", "nobody"], "no job 'nobody': neither RQ nor the journal on this Redis has any"),
        ([ADD, "1", "--job-id", ""], "--job-id '': Job ID must only contain letters, numbers, underscores and"),
        ([ADD, "1", "--job-id", "a b"], "--job-id 'a b': Job ID must only contain letters, numbers, underscores and"),
        ([ADD, "1", "--queue", " "], "queue name ' ' is empty: give a name"),
        ([ADD, "1", "-S", "yaml"], "--serializer 'yaml' cannot be used"),
        ([ADD, "%{1}", "-S", "json"], "--serializer json does not take these arguments: Object of type set is not"),
        ([ADD, "1", "--url", "http://x"], "--url 'http://x' cannot be used"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_usage_is_one_line_and_nothing_is_enqueued(
    connection: Redis, enqueue: Enqueue, typed: list[str], words: str
) -> None:
    done = enqueue(*typed)
    [line] = done.stderr.splitlines()
    assert line.startswith("rqmem: ") and words in line
    assert (done.stdout, done.returncode) == ("", 2)
    assert list(connection.scan_iter()) == []


def test_a_job_that_has_not_ended_is_not_overwritten(enqueue: Enqueue, connection: Redis) -> None:
    first = Queue(connection=connection).enqueue(sample_jobs.add, 1, job_id="nightly")
    done = enqueue(ADD, "2", "--job-id", "nightly")
    assert done.stderr == "rqmem: --job-id nightly: there is one, and it is queued: give another id\n"
    assert done.returncode == 2
    first.set_status(JobStatus.FINISHED)
    assert enqueue(ADD, "2", "--job-id", "nightly").returncode == 0


def test_what_a_path_names() -> None:
    assert resolve(ADD).function is sample_jobs.add
    assert resolve("tests.sample_jobs.Plain").job_class is sample_jobs.Plain
    assert resolve("rq.Queue.all").function == Queue.all, "a class method"
    with pytest.raises(ConfigError, match="did you mean"):
        resolve("tests.sample_jobs.Plane")


def test_arguments_are_json_or_text() -> None:
    assert arguments([], ["1e3", "Infinity", "[1"], []) == ((1000.0, "Infinity", "[1"), {})


def test_a_unique_job_that_is_there_is_not_enqueued_and_the_command_says_so(enqueue: Enqueue) -> None:
    first, again = (enqueue("tests.per_type_jobs.Unique", "--kwarg", "tenant_id=7") for _ in range(2))
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert "not enqueued, since it is unique: tests.per_type_jobs.Unique(tenant_id=7) is queued already" in again.stderr
    assert first.stderr.startswith("enqueued: ")


def test_queues_that_are_served_are_read_at_once(connection: Redis) -> None:
    for number in range(50):
        Queue(f"queue-{number}", connection=connection).enqueue(ADD, 1)
        connection.sadd("rq:workers", f"rq:worker:w-{number}")
        connection.hset(f"rq:worker:w-{number}", "queues", f"queue-{number},mail")
    connection.sadd("rq:workers", "rq:worker:dead")
    before = connection.info("stats")["total_reads_processed"]
    found = served_queues(connection)
    assert connection.info("stats")["total_reads_processed"] - before <= 4
    assert found == {"mail", *(f"queue-{number}" for number in range(50))}
