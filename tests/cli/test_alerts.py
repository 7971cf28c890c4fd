"""``rqmem alerts`` and its commands, as people type them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from rqmem.config.parsers import moment
from rqmem.errors import ConfigError
from rqmem.store import keys
from rqmem.store.alerts.alert_records import Alert
from rqmem.store.alerts.alert_writer import raise_alert, resolve_alert
from rqmem.testing import wait_until
from rqmem.text import timestamp_ms
from tests.cli.test_commands import rqmem
from tests.conftest import ROOT, OwnRedis, StartCommand, StartWorker
from tests.receiver import Receiver

Alerts = Callable[..., subprocess.CompletedProcess[str]]

SECRET = "hunter2"
NOW = time.time()


@pytest.fixture
def alerts(redis_url: str) -> Alerts:
    return lambda *options, **environ: rqmem("alerts", *options, **{"RQMEM_REDIS_URL": redis_url, **environ})


def tell(connection: Redis, rule: str, job: str, ago: float, *, can_end: bool = False, **changes: Any) -> Alert:
    whose = {"job": job, "job_id": "j1", "queue": "q", "worker": "w"}
    alert = Alert(id="", at=round(NOW - ago, 3), rule=rule, state="raised", text=f"about {job}", **whose)
    told = raise_alert(connection, replace(alert, **changes), 300, can_end=can_end)
    assert told is not None
    return told


def local(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")


@pytest.fixture
def night(connection: Redis) -> list[Alert]:
    """What happened: open since two days, one that ended, one lately, of which two were not told before."""
    told = [
        tell(connection, "memory-usage", "jobs.Old", 48 * 3600, can_end=True),
        tell(connection, "job-split", "jobs.Old", 47 * 3600),
        tell(connection, "memory-growth", "jobs.campaigns.Process", 3600, can_end=True),
    ]
    ended = replace(told[-1], at=round(NOW - 1800, 3), state="resolved", text="its job has ended")
    resolved = resolve_alert(connection, ended)
    assert resolved is not None
    quiet = keys.quiet("ceiling-exceeded", "jobs.campaigns.Process")
    connection.set(quiet, 2, px=1000)
    return [*told, resolved, tell(connection, "ceiling-exceeded", "jobs.campaigns.Process", 60)]


# Shown


def test_a_table_of_the_last_day_and_of_what_is_open(night: list[Alert], alerts: Alerts) -> None:
    done = alerts()
    old, _, grew, ended, exceeded = night
    assert done.stdout.splitlines() == [
        f"{local(old.at)}  open      memory-usage         jobs.Old                about jobs.Old",
        f"{local(grew.at)}  raised    memory-growth        jobs.campaigns.Process  about jobs.campaigns.Process",
        f"{local(ended.at)}  resolved  memory-growth        jobs.campaigns.Process  its job has ended",
        f"{local(exceeded.at)}  raised    ceiling-exceeded     jobs.campaigns.Process  "
        "about jobs.campaigns.Process (+2)",
    ]
    assert (done.returncode, done.stderr) == (0, "")


def test_json_is_an_object_a_line(night: list[Alert], alerts: Alerts) -> None:
    lines = [json.loads(line) for line in alerts("--json", "--since", "3d").stdout.splitlines()]
    assert [line["id"] for line in lines] == [each.id for each in night]
    assert [line["open"] for line in lines] == [True, False, False, False, False]
    assert lines[-1] == {
        "version": 2, "id": night[-1].id, "at": timestamp_ms(night[-1].at), "rule": "ceiling-exceeded",
        "state": "raised",
        "job_type": "jobs.campaigns.Process", "job_id": "j1", "queue": "q", "worker": "w",
        "text": "about jobs.campaigns.Process", "suppressed": 2, "open": False,
    }  # fmt: skip


@pytest.mark.parametrize(("name", "count"), [("jobs.campaigns.Process", 3), ("Process", 3), ("Old", 1)])
def test_one_job_type_by_its_name_or_the_end_of_it(night: list[Alert], alerts: Alerts, name: str, count: int) -> None:
    assert len(alerts("--job", name).stdout.splitlines()) == count


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--job", "jobs.campaigns.Proces"], "no job type 'jobs.campaigns.Proces': did you mean jobs.campaigns."),
        (["--job", "process"], "no job type 'process': did you mean jobs.campaigns.Process?"),
        (["--job", "zzz"], "no job type 'zzz': the journal has none like it"),
        (["--since", "yesterday"], "--since='yesterday': give how long ago, as in 90s, 30m, 24h, 7d or 2w"),
        (["--frobnicate"], "No such option '--frobnicate'"),
        (["tset"], "No such command 'tset'"),
        (["--url", "http://localhost"], "--url 'http://localhost' cannot be used"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_usage_is_one_line_and_exit_code_2(
    night: list[Alert], alerts: Alerts, options: list[str], words: str
) -> None:
    done = alerts(*options)
    [line] = done.stderr.splitlines()
    assert line.startswith("rqmem: ")
    assert words in line
    assert (done.returncode, done.stdout) == (2, "")


def test_none_is_said(connection: Redis, alerts: Alerts) -> None:
    done = alerts("--since", "30m")
    assert done.stdout.startswith("no alerts since ")
    tell(connection, "job-split", "jobs.Old", 3600)
    assert alerts("--since", "30m").stdout.endswith("; 1 before (--since 30d shows them)\n")
    done = alerts("--since", "30m", "--json")
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


# Followed


@pytest.fixture
def follow(start_command: StartCommand) -> StartCommand:
    return lambda url, *options: start_command("alerts", "--follow", *options, apart=True, RQMEM_REDIS_URL=url)


def test_new_ones_are_shown_as_they_come(connection: Redis, redis_url: str, follow: StartCommand) -> None:
    tell(connection, "job-split", "jobs.A", 60)
    following = follow(redis_url)
    following.wait_for("about jobs.A")
    tell(connection, "memory-usage", "jobs.B", 0, can_end=True)
    following.wait_for("about jobs.B")
    assert "open      memory-usage" in following.printed.splitlines()[1]
    assert following.end() == 0
    assert following.errors == ""


def test_redis_may_go_and_come_back(own_redis: OwnRedis, follow: StartCommand) -> None:
    tell(own_redis.connection, "job-split", "jobs.A", 60)
    following = follow(own_redis.server.url, "--json")
    following.wait_for("\n")
    own_redis.kill()
    wait_until(lambda: following.errors != "")
    own_redis.start_again()
    tell(own_redis.connection, "job-split", "jobs.B", 0)
    following.wait_for("\n", 2)
    assert [json.loads(line)["job_type"] for line in following.printed.splitlines()] == ["jobs.A", "jobs.B"]
    gone, back = following.errors.splitlines()[:2]
    assert gone.startswith("rqmem: Redis does not answer (")
    assert back == "rqmem: Redis answers again"


# Sent


def test_a_trial_says_of_each_url_whether_it_was_taken(receiver: Receiver, alerts: Alerts, tmp_path: Path) -> None:
    file = tmp_path / "urls"
    file.write_text(receiver.url)
    file.chmod(0o600)
    done = alerts("test", RQMEM_ALERT_URLS_FILE=str(file))
    assert (done.stdout, done.stderr) == ("alert URL 1 (json://****): taken\n", "")
    assert done.returncode == 0
    assert receiver.messages[0]["title"] == "rqmem: test"
    receiver.answers = [403]
    done = alerts("test", "--alert-url", receiver.url, "--alert-url", f"json://u:{SECRET}@127.0.0.1:1/{SECRET}")
    assert done.stdout.splitlines() == [
        "alert URL 1 (json://****): not taken: it answered HTTP 403",
        "alert URL 2 (json://****): not taken: it cannot be reached",
    ]
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("command", ["test", "deliver"])
@pytest.mark.parametrize(
    ("options", "environ", "words"),
    [
        ([], {}, "no alert URL is named: give RQMEM_ALERT_URLS_FILE, RQMEM_ALERT_URLS or --alert-url"),
        (["--alert-url", "hunter2"], {}, "alert URL 1 cannot be used: it must begin with a service"),
        ([], {"RQMEM_ALERT_URLS": "json://localhost slak://hunter2"}, "alert URL 2 (slak://****) cannot be used: "
         "Apprise has no service slak:// for it; did you mean slack://?"),
        (["--alert-urls-file", "/nowhere"], {}, "file of alert URLs '/nowhere': No such file or directory"),
    ],
    ids=["none", "no scheme", "no such service", "no file"],
)  # fmt: skip
def test_urls_that_cannot_be_used(
    receiver: Receiver,
    alerts: Alerts,
    command: str,
    options: list[str],
    environ: dict[str, str],
    words: str,
) -> None:
    done = alerts(command, *options, **environ)
    [line] = done.stderr.splitlines()
    assert line.startswith(f"rqmem: {words}")
    assert SECRET not in done.stderr + done.stdout
    assert done.returncode == 2


def test_without_apprise_one_line_names_the_extra(alerts: Alerts, tmp_path: Path) -> None:
    (tmp_path / "apprise.py").write_text("raise ImportError('none here')\n")
    done = alerts("test", "--alert-url", "json://localhost", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.stderr == "rqmem: sending alerts needs Apprise: pip install 'rqmem[notify]'\n"
    assert done.returncode == 2


def test_a_sender_without_redis_is_one_line(receiver: Receiver, alerts: Callable[..., Any]) -> None:
    done = alerts("deliver", "--alert-url", receiver.url, "--url", "redis://127.0.0.1:1/0")
    assert len(done.stderr.splitlines()) == 1
    assert (done.returncode, done.stdout) == (1, "")


def test_a_worker_takes_urls_as_options(start_worker: StartWorker) -> None:
    output = start_worker("--burst", "--alert-urls-file").finish()
    assert output.startswith("rqmem: Option '--alert-urls-file' requires an argument")


# Times


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("24h", 86400), ("7d", 604800), ("2w", 1209600), (" 1.5 H ", 5400), ("0s", 0)],
)
def test_so_long_ago(text: str, seconds: float) -> None:
    assert moment(text, "--since", 1e9) == 1e9 - seconds


def test_before_1970_there_was_nothing() -> None:
    assert moment("9999999999d", "--since", 1e9) == moment("1960-01-01", "--since", 1e9) == 0


def test_a_date_or_a_time() -> None:
    assert moment("2026-08-06T10:30:00Z", "--since", 2e9) == 1786012200
    assert moment("2026-08-06T12:30:00+02:00", "--since", 2e9) == 1786012200
    assert moment("2026-08-06", "--since", 2e9) == datetime(2026, 8, 6).timestamp()
    assert moment("2026-08-06 10:30", "--since", 2e9) == datetime(2026, 8, 6, 10, 30).timestamp()


@pytest.mark.parametrize("text", ["", "5x", "-5m", "5 minutes", "2026-13-01", "now", "1e9d"])
def test_what_is_neither(text: str) -> None:
    with pytest.raises(ConfigError, match="give how long ago"):
        moment(text, "--since", 1e9)


def test_what_lies_ahead() -> None:
    ahead = (datetime.now() + timedelta(days=2)).isoformat()
    with pytest.raises(ConfigError, match="that lies ahead"):
        moment(ahead, "--since", time.time())
