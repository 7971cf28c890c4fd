"""``rqmem status`` as people run it: a real Redis, real workers, and a journal filled as workers fill it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.suspension import suspend

from rqmem import events
from rqmem.store import keys
from rqmem.store.history import history_reader
from rqmem.store.history.history_records import Run
from rqmem.testing import wait_until
from tests import sample_jobs
from tests.cli.test_commands import rqmem
from tests.cli.test_monitor import Terminal
from tests.conftest import OwnRedis, StartCommand, StartWorker, WorkOff, wait_for_key
from tests.journal_filling import a_live, fill, register, remember

Status = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def status(redis_url: str, connection: Redis) -> Status:
    # pytest-xdist sets 24 lines
    return lambda *options: rqmem("status", *options, RQMEM_REDIS_URL=redis_url, LINES="50")


def as_json(status: Status, *options: str) -> Any:
    done = status("--json", *options)
    assert done.stderr == ""
    return json.loads(done.stdout)


def names(shown: Any) -> set[str]:
    return {each["name"] for each in shown["problems"]}


def wait_until_seen(connection: Redis, worker: str) -> None:
    wait_until(lambda: history_reader.workers(connection, [worker]))


# All of it


def test_nothing_runs(status: Status) -> None:
    done = status()
    assert done.returncode == 1
    assert "rqmem: no workers" in done.stdout
    assert "problem  no worker is running\n         -> rqmem worker" in done.stdout


def test_a_worker_that_is_idle_is_healthy(connection: Redis, start_worker: StartWorker, status: Status) -> None:
    start_worker("mail", "--name", "ada", "--memory", "128")
    wait_until_seen(connection, "ada")
    wait_until(lambda: connection.hget("rq:worker:ada", "state") == b"idle")
    done = status()
    assert done.returncode == 0, done.stdout + done.stderr
    [row] = [line for line in done.stdout.splitlines() if line.startswith("ada ")]
    assert row.split()[1] == "idle"
    assert "rqmem: running   1 worker," in done.stdout
    assert "nothing is wrong" in done.stdout


def test_a_job_that_runs_is_seen_with_its_memory(connection: Redis, start_worker: StartWorker, status: Status) -> None:
    job = Queue(connection=connection).enqueue(sample_jobs.say_hello_and_sleep, 600)
    start_worker("--name", "ada", "--memory", "128", "--max-jobs", "5")
    wait_for_key(connection, "asleep")

    def usage() -> float:
        [live] = history_reader.workers(connection, ["ada"])
        return live.job.usage_mb if live.job else 0

    wait_until(usage)
    [shown] = as_json(status)["workers"]
    assert (shown["kind"], shown["state"], shown["queues"], shown["job_id"]) == ("rqmem", "busy", ["default"], job.id)
    assert 0 < shown["job"]["usage_mb"] <= shown["job"]["peak_mb"] < shown["job"]["ceiling_mb"] == 128
    assert shown["job"]["usage_percentage"] == pytest.approx(100 * shown["job"]["usage_mb"] / 128, abs=0.1)
    text = status().stdout
    assert shown["leases"] == "off: --max-jobs counts jobs one by one"
    assert f"  leases {shown['leases']}" in text.splitlines()
    assert "% of 128" in text and f"tests.sample_jobs.say_hello_and_sleep {job.id[:8]}" in text

    one = as_json(status, "--job", job.id[:13])
    assert (one["job_id"], one["status"], one["running"], one["worker"]) == (job.id, "started", True, "ada")
    assert one["ceiling_mb"] == 128 and one["usage_mb"] > 0 and len(one["execution"]) == 32
    told = status("--job", job.id)
    assert told.returncode == 0
    assert "runs on ada" in told.stdout and "of the ceiling" in told.stdout and "usage now" in told.stdout


def breached(job_id: str) -> Run:
    return Run(
        job="jobs.mail.Send", job_id=job_id, queue="q", worker="ada", ended_at=time.time(), seconds=3, layer="watch",
        outcome="MemoryLimitExceeded", initial_mb=20, peak_mb=271.3, limit_mb=256, resumed=job_id == "b1",
    )  # fmt: skip


def test_everything_that_may_be_wrong(connection: Redis, status: Status) -> None:
    register(connection, "ada", "q", live=a_live("ada"))
    register(connection, "stock", "q", state="busy")
    register(connection, "gone", "q", state="busy")
    connection.zadd(keys.SAMPLED, {"gone": time.time()})
    Queue("unserved", connection=connection).enqueue(sample_jobs.add, 1)
    remember(connection, breached("b0"), breached("b1"), breached("b2"))
    connection.hset(keys.DROPPED, mapping={"events": 7})
    connection.zadd("rq:scheduled:q", {"late": time.time() - 60})
    suspend(connection)
    done = status()
    text = " ".join(done.stdout.split())
    for words in (
        "rqmem: suspended",
        "RQ is suspended: no worker takes a job, and 1 job waits -> 'rq resume' lets workers go on",
        "worker gone (pid 7 on h) is registered and has not been heard of for two heartbeats",
        "1 job waits in queue 'unserved', which no worker serves -> rqmem worker unserved",
        "jobs scheduled for queue 'q' are due (1), and no worker moves them there",
        "3 breaches of jobs.mail.Send lately (the last: peak 271.3 of 256 MB) -> raise its ceiling or let "
        "it work in chunks; rqmem inspect b2",
        "note the journal did not take everything: 7 events",
        "not watched (rq's own)",
        "jobs.mail.Send 3 2 3 1",
    ):
        assert words in text, done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.returncode == 1
    shown = as_json(status)
    assert {each["name"]: each["kind"] for each in shown["workers"]} == {
        "ada": "rqmem",
        "gone": "silent",
        "stock": "rq",
    }
    assert (shown["job_types"][0]["breaches"]["total"], shown["job_types"][0]["last_breach_job_id"]) == (3, "b2")


def test_a_scheduler_moves_what_is_due(connection: Redis, status: Status) -> None:
    register(connection, "ada", "q", live=a_live("ada"))
    connection.zadd("rq:scheduled:q", {"late": time.time() - 60})
    connection.set("rq:scheduler-lock:q", "ada")
    assert status().returncode == 0


def test_a_worker_that_has_only_begun_is_not_silent(connection: Redis, status: Status) -> None:
    register(connection, "ada", "q", age_seconds=0)
    connection.zadd(keys.SAMPLED, {"ada": time.time()})
    assert as_json(status)["workers"][0]["kind"] == "rqmem"


def test_a_journal_of_another_version_is_said_and_not_read(connection: Redis, status: Status) -> None:
    register(connection, "ada", "q", live=a_live("ada"))
    fill(connection, "jobs.mail.Send", "1f3a")
    connection.set(keys.VERSION, "99")
    shown = as_json(status)
    assert names(shown) == {"journal-version"}
    assert (shown["job_types"], shown["alerts"], shown["workers"][0]["own_memory_mb"]) == ([], [], None)


def test_it_only_looks(connection: Redis, status: Status) -> None:
    register(connection, "ada", "q", live=a_live("ada"))
    fill(connection, "jobs.mail.Send", "1f3a")
    connection.sadd("rq:workers", "rq:worker:forgotten")  # what RQ itself tidies up when it looks
    connection.zadd("rq:wip:q", {"1f3a:x": 1})
    before = {key: connection.dump(key) for key in connection.scan_iter()}
    status()
    status("--job", "1f3a")
    assert {key: connection.dump(key) for key in connection.scan_iter()} == before


def test_a_redis_that_refuses_in_the_middle_is_one_line(connection: Redis, redis_url: str) -> None:
    connection.execute_command("ACL", "SETUSER", "guest", "on", ">hush", "+ping", "+hello", "+client", "+auth")
    try:
        url = redis_url.replace("unix://", "unix://guest:hush@", 1)
        done = rqmem("status", "--url", url)
    finally:
        connection.execute_command("ACL", "DELUSER", "guest")
    [line] = done.stderr.splitlines()
    assert line.startswith("rqmem: Redis refuses us: ")
    assert "permission" in line and "hush" not in line
    assert (done.stdout, done.returncode) == ("", 1)


# One job


def test_a_failed_job_is_exit_code_1_and_its_advice_can_be_followed(
    connection: Redis, work_off: WorkOff, status: Status, redis_url: str
) -> None:
    job = Queue(connection=connection).enqueue(sample_jobs.raise_in_many_lines)
    work_off()
    done = status("--job", job.id)
    assert done.returncode == 1
    assert [line.split() for line in done.stdout.splitlines() if "error" in line] == [
        ["error", "ValueError:", "no", "such", "table"]
    ]
    assert f"'rqmem retry {job.id}' runs it again" in " ".join(done.stdout.split())
    assert rqmem("retry", job.id[:8], "--url", redis_url).stdout == f"job {job.id} is queued again\n"
    assert rqmem("cancel", job.id[:8], "--url", redis_url).stdout.startswith(f"job {job.id}: 1 job cancelled, ")
    gone = rqmem("retry", "1f3a9c20", "--url", redis_url)
    assert (gone.returncode, gone.stdout) == (2, "") and "no job '1f3a9c20'" in gone.stderr


def test_a_job_whose_worker_is_silent(connection: Redis, start_worker: StartWorker, status: Status) -> None:
    job = Queue(connection=connection).enqueue(sample_jobs.say_hello_and_sleep, 600)
    worker = start_worker("--name", "ada")
    wait_for_key(connection, "asleep")
    wait_until(lambda: history_reader.sampled_workers(connection))
    os.kill(worker.pid, signal.SIGKILL)  # its horse dies with it
    connection.delete(keys.alive("ada"))
    done = status("--job", job.id)
    assert done.returncode == 1
    assert (
        "its worker ada is silent: another rqmem worker ends the job, which cannot go on; RQ's Retry counts"
        in " ".join(done.stdout.split())
    )
    assert "silent-worker" in names(as_json(status)) or as_json(status)["workers"][0]["uptime_seconds"] < 15


def test_jobs_that_wait(connection: Redis, status: Status) -> None:
    queue = Queue("mail", connection=connection)
    first, second = queue.enqueue(sample_jobs.add, 1), queue.enqueue(sample_jobs.add, 2)
    third = queue.enqueue(sample_jobs.add, 3, depends_on=first)
    assert "number 2 in queue 'mail'" in status("--job", second.id).stdout
    assert f"waits for {first.id}" in status("--job", third.id).stdout


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("1f3a9c21", "no job '1f3a9c21': did you mean 1f3a9c20?"),
        ("", "an empty job id names no job"),
        ("zzz", "no job 'zzz': RQ has none of that id"),
    ],
)
def test_an_unknown_id_is_exit_code_2(connection: Redis, status: Status, given: str, words: str) -> None:
    fill(connection, "jobs.mail.Send", "1f3a9c20")
    done = status("--job", given)
    [line] = done.stderr.splitlines()
    assert line.startswith("rqmem: ") and words in line
    assert (done.stdout, done.returncode) == ("", 2)


def test_an_id_among_none_at_all(status: Status) -> None:
    assert "neither RQ nor the journal on this Redis has any job" in status("--job", "x").stderr


# Again and again


@pytest.fixture
def watch(start_command: StartCommand) -> StartCommand:
    """``rqmem status --watch`` beside the test."""
    return lambda url, *options: start_command("status", "--watch", *options, apart=True, RQMEM_REDIS_URL=url)


def test_watch_goes_on_until_it_is_interrupted(connection: Redis, redis_url: str, watch: StartCommand) -> None:
    register(connection, "ada", "q", live=a_live("ada"))
    watching = watch(redis_url)
    watching.wait_for("rqmem: running", 2)
    assert watching.end() == 0
    ended = watch(redis_url, "--json")
    connection.flushall()
    ended.wait_for("\n", 2)
    assert ended.end() == 1
    assert [json.loads(line)["state"] for line in ended.printed.splitlines()][-1] == "no workers"


def test_watch_survives_redis_lost_and_back(own_redis: OwnRedis, watch: StartCommand) -> None:
    watching = watch(own_redis.server.url)
    watching.wait_for("rqmem: no workers")
    own_redis.kill()
    watching.wait_for("Redis does not answer since ")
    own_redis.start_again()
    wait_until(lambda: "no worker is running" in watching.printed.rpartition("Redis does not answer since ")[2])
    last = len(watching.printed)
    wait_until(lambda: "no worker is running" in watching.printed[last:])
    assert "Redis does not answer" not in watching.printed[last:]
    assert watching.end() == 1


def test_on_a_terminal_each_screen_is_drawn_over_the_last(
    connection: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        register(connection, f"ada{number}", "q", live=a_live(f"ada{number}"))
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    terminal = Terminal("-m", "rqmem", "status", "--watch", "--url", redis_url, columns=80, rows=24)
    try:
        wait_until(lambda: terminal.read().count("\x1b[J") >= 2)
    finally:
        terminal.close()
    screen = terminal.output.split("\x1b[J")[0]
    assert screen.startswith("\x1b[H")
    assert screen.count("\n") <= 23
    assert re.search(r"  and \d+ more", screen)
    assert "nothing is wrong" in screen


def test_one_worker_as_a_probe(connection: Redis, redis_url: str, start_worker: StartWorker, status: Status) -> None:
    options = {"RQMEM_HEARTBEAT": "1", "RQMEM_JOURNAL": "off"}  # then its record alone says that it is rqmem's
    worker = start_worker("mail", "--name", "pod-1", "--memory", "128", **options)
    wait_until_seen(connection, "pod-1")
    done = status("--worker", "pod-1", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert re.search(r"^pod-1 ", status("--worker", "pod-1").stdout, re.MULTILINE)
    assert "  leases: on" in status("--worker", "pod-1").stdout.splitlines()
    shown = as_json(status, "--worker", "pod-1")
    assert (shown["kind"], shown["leases"]) == ("rqmem", "on")
    suspend(connection)
    assert status("--worker", "pod-1", "--quiet").returncode == 0, "a suspended worker is not to be restarted"
    os.kill(worker.pid, signal.SIGSTOP)
    wait_until(lambda: not connection.exists(keys.alive("pod-1")))
    connection.hset("rq:worker:pod-1", "birth", "2026-01-01T00:00:00.000000Z")  # a new one may be late to say so
    done = status("--worker", "pod-1", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    assert status("--worker", "pod-2", "--quiet").returncode == 1
    assert "no worker 'pod-2' is registered: did you mean pod-1?" in status("--worker", "pod-2").stdout
    for options in (["--worker", "a", "--job", "b"], ["--quiet", "--watch"], ["--quiet", "--json"]):
        assert status(*options).returncode == 2
    nowhere = rqmem("status", "--worker", "pod-1", "--quiet", RQMEM_REDIS_URL="redis://127.0.0.1:1")
    assert nowhere.returncode == 1 and len(nowhere.stderr.splitlines()) == 1


def test_quiet_tells_by_the_exit_code_alone(connection: Redis, status: Status) -> None:
    done = status("--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_a_pipe_gets_one_screen_too(connection: Redis, status: Status) -> None:
    for number in range(300):
        register(connection, f"w{number}", f"q{number}", live=a_live(f"w{number}", queues=[f"q{number}"]))
    shown = status().stdout.splitlines()
    assert len(shown) <= 50 and any("more, all well" in line for line in shown)
    assert len(as_json(status)["workers"]) == 300


def test_events_and_status_tell_the_same(connection: Redis, work_off: WorkOff, status: Status) -> None:
    job = sample_jobs.Squares.enqueue(count=24, item_mb=30, heavy_from=8, connection=connection)
    work_off("--memory", "200")
    one = as_json(status, "--job", job.id)
    assert (one["job_type"], one["outcome"], one["items_done"], one["well"]) == (
        "tests.sample_jobs.Squares",
        "ok",
        24,
        True,
    )
    story = [told.event for told in history_reader.story(connection, job.id)]
    last = [each for each in story if isinstance(each, events.Checkpoint)][-1]
    assert one["last_checkpoint"]["operation"] == last.operation
    assert one["last_checkpoint"]["usage_mb"] == last.current_memory_mb
    assert (one["executions"], one["breaches"]["total"], one["resumes"]) == (2, 1, 1)
    assert one["peak_mb"] == max(run.peak_mb for run in history_reader.runs(connection, one["job_type"]))
    [shown] = [each for each in as_json(status)["job_types"] if each["job_type"] == one["job_type"]]
    assert (shown["runs"], shown["failed"], shown["breaches"]["total"], shown["resumes"]) == (2, 0, 1, 1)
