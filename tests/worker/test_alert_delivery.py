"""Alerts from a worker's events to the journal, and from there to a service: told once, sent, and no secret shown."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import redis
from redis import Redis
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import ResponseError

from rqmem import events
from rqmem.alerts import delivery
from rqmem.alerts.addresses import Address, addresses
from rqmem.alerts.sender import Sender
from rqmem.alerts.service import services
from rqmem.config.load import load
from rqmem.config.settings import Config
from rqmem.errors import ConfigError
from rqmem.measure import process_tree, procfs
from rqmem.store import keys
from rqmem.store.alerts.alert_outbox import Outbox
from rqmem.store.alerts.alert_records import Alert
from rqmem.store.alerts.alert_writer import end_alerts_of_lost_workers, raise_alert, resolve_alert
from rqmem.store.history import history_reader
from rqmem.store.history.history_records import Live, LiveJob
from rqmem.testing import wait_until
from rqmem.worker.alert_sender import SenderProcess
from rqmem.worker.alerting import Alerting
from tests.conftest import ROOT, OwnRedis, StartCommand, WorkerProcess
from tests.receiver import Receiver

pytest.importorskip("apprise", reason="Apprise is not installed")
SECRET = "hunter2"


def alert(rule: str = "ceiling-exceeded", job: str = "jobs.Export", **changes: Any) -> Alert:
    whose = {"job": job, "job_id": "j1", "queue": "q", "worker": "w"}
    return replace(
        Alert(id="", at=round(time.time(), 3), rule=rule, state="raised", text="used much", **whose), **changes
    )


def tell(connection: Redis, job: str = "jobs.Export", **changes: Any) -> Alert:
    """An alert that no cool-down keeps back."""
    told = raise_alert(connection, alert(job=job, **changes), 0.001, can_end=False)
    assert told is not None
    return told


# One of many workers tells it


def test_an_alert_is_told_as_it_was_raised(connection: Redis) -> None:
    raised = alert(text='a "quoted" line, Grüße / ☃', at=1754476200.123)
    told = raise_alert(connection, raised, 300, can_end=False)
    assert told == replace(raised, id=told.id if told else "")
    assert history_reader.alerts(connection) == [told]
    assert history_reader.open_alerts(connection) == []


def test_of_many_that_find_the_same_one_tells_it(connection: Redis) -> None:
    told: list[Alert | None] = []
    threads = [
        threading.Thread(target=lambda: told.append(raise_alert(connection, alert(), 300, can_end=False)))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(each is not None for each in told) == 1
    assert int(connection.get(keys.quiet("ceiling-exceeded", "jobs.Export")) or 0) == 19
    assert raise_alert(connection, alert("job-split"), 300, can_end=False) is not None, "another rule"
    assert raise_alert(connection, alert(job="jobs.Other"), 300, can_end=False) is not None, "another job type"


def test_the_next_one_says_how_many_were_not_told(connection: Redis) -> None:
    assert raise_alert(connection, alert(), 0.3, can_end=False) is not None
    told: list[Alert | None] = []
    wait_until(lambda: told.append(raise_alert(connection, alert(), 0.3, can_end=False)) or told[-1])
    assert told[-1] is not None
    assert told[-1].suppressed == len(told) - 1 > 0
    [_, last] = history_reader.alerts(connection)
    assert last.suppressed == len(told) - 1


def test_what_can_end_stays_open_until_its_worker_says_so(connection: Redis) -> None:
    raised = raise_alert(connection, alert("memory-usage"), 300, can_end=True)
    [opened] = history_reader.open_alerts(connection)
    assert raised is not None
    assert (opened.rule, opened.job, opened.since, opened.worker) == ("memory-usage", "jobs.Export", raised.at, "w")
    ended = alert("memory-usage", state="resolved", text="its job has ended")
    assert resolve_alert(connection, replace(ended, worker="another")) is None, "it is about another job"
    assert resolve_alert(connection, replace(ended, job="jobs.Other")) is None, "none is open"
    assert resolve_alert(connection, ended) is not None
    assert resolve_alert(connection, ended) is None, "once"
    assert [each.state for each in history_reader.alerts(connection)] == ["raised", "resolved"]
    assert history_reader.open_alerts(connection) == []


def test_alerts_of_workers_that_are_gone_end(connection: Redis) -> None:
    for worker in ("alive", "gone"):
        raise_alert(connection, alert("memory-usage", job=f"jobs.{worker}", worker=worker), 300, can_end=True)
    connection.set(keys.alive("alive"), "1")
    [told] = end_alerts_of_lost_workers(connection, 5.0)
    assert (told.job, told.state, told.text, told.worker) == ("jobs.gone", "resolved", "its worker is gone", "gone")
    assert end_alerts_of_lost_workers(connection, 5.0) == []
    assert [each.worker for each in history_reader.open_alerts(connection)] == ["alive"]


def test_alerts_are_bounded(connection: Redis) -> None:
    for number in range(1500):
        raise_alert(connection, alert("memory-usage", job=f"jobs.Export{number}"), 300, can_end=True)
    assert 1000 <= connection.xlen(keys.ALERTS) < 1200
    assert len(history_reader.open_alerts(connection)) == 500
    assert all(connection.pttl(key) > 0 for key in connection.scan_iter(f"{keys.PREFIX}:alerts:quiet:*"))


# What a worker finds


@pytest.fixture
def told() -> Iterator[list[events.Event]]:
    """Events of alerts that this process emits."""
    found: list[events.Event] = []
    events.subscribe(found.append)
    yield found
    events.unsubscribe(found.append)


def live(at: float, usage_mb: float | None, job_id: str = "j1") -> Live:
    running = None
    if usage_mb is not None:
        running = LiveJob("jobs.Export", job_id, "q", 1.0, usage_mb, usage_mb, 100)
    return Live(worker="w", host="h", pid=1, at=at, started_at=0, worker_mb=9, worker_limit_mb=99, limit_mb=100,
                horse_pid=2, kept_by="watcher", jobs=0, breaches=0, recycled=0, job=running)  # fmt: skip


def test_what_a_worker_finds_is_told_once_and_emitted_by_who_told_it(
    connection: Redis, told: list[events.Event]
) -> None:
    split = events.Split(job="jobs.Export", job_id="j1", queue="q", worker="w", children=3)
    mine, other = Alerting("w", Config()), Alerting("w2", Config())
    for each in (mine, other):
        assert not each.busy
        each.take(split, 100.0)
        assert each.busy
        each.flush(connection, 101.0)
        assert not each.busy
    [one] = history_reader.alerts(connection)
    assert (one.rule, one.at, one.job, one.job_id, one.queue, one.worker) == (
        "job-split", 100.0, "jobs.Export", "j1", "q", "w",
    )  # fmt: skip
    assert told == [
        events.AlertRaised(job="jobs.Export", job_id="j1", queue="q", worker="w", rule="job-split", text=one.text)
    ]
    mine.take(told[0], 102.0)
    assert not mine.busy, "an alert is no reason for an alert"


def test_levels_are_raised_and_resolved(connection: Redis, told: list[events.Event]) -> None:
    alerting = Alerting("w", Config())
    for at, usage in [(1.0, 50), (2.0, 90), (3.0, 95), (4.0, 60), (5.0, None)]:
        alerting.read(live(at, usage), at)
        alerting.flush(connection, at)
    assert [(type(each).__name__, each.text) for each in told] == [  # type: ignore[attr-defined]
        ("AlertRaised", "uses 90 MB of 100 MB (90 %)"),
        ("AlertResolved", "uses 60 MB of 100 MB (60 %)"),
    ]
    assert history_reader.open_alerts(connection) == []


def test_what_lasts_beyond_the_quiet_is_told_after_it(connection: Redis, told: list[events.Event]) -> None:
    raise_alert(connection, alert("memory-usage", worker="w2"), 0.2, can_end=False)  # by another worker
    alerting = Alerting("w", Config(alert_cooldown_seconds=60))
    alerting.read(live(1.0, 90), 1.0)
    alerting.flush(connection, 1.0)
    assert told == []
    wait_until(lambda: (connection.pttl(keys.quiet("memory-usage", "jobs.Export")) or 0) <= 3600 * 1000)
    for now in (2.0, 60.9):
        alerting.read(live(now, 90), now)
        alerting.flush(connection, now)
    assert told == []
    alerting.read(live(61.1, 90), 61.1)
    alerting.flush(connection, 61.1)
    [raised] = told
    assert isinstance(raised, events.AlertRaised)
    assert raised.suppressed == 1
    alerting.read(live(62, None), 62.0)
    alerting.flush(connection, 62.0)
    assert isinstance(told[-1], events.AlertResolved)


def test_without_redis_alerts_are_kept_up_to_a_bound(connection: Redis) -> None:
    away = Redis.from_url("redis://127.0.0.1:1/0")
    alerting = Alerting("w", Config())
    for number in range(250):
        split = events.Split(job=f"jobs.Export{number}", job_id="j", queue="q", worker="w", children=3)
        alerting.take(split, 1.0)
    with pytest.raises(LostConnection):
        alerting.flush(away, 2.0)
    assert alerting.dropped == 50
    alerting.flush(connection, 3.0)
    assert connection.xlen(keys.ALERTS) == 200


def test_alerts_are_kept_while_redis_is_full(connection: Redis) -> None:
    alerting = Alerting("w", Config())
    alerting.take(events.Split(job="jobs.A", job_id="j", queue="q", worker="w", children=3), 1.0)
    connection.config_set("maxmemory", "1")
    try:
        with pytest.raises(ResponseError, match="OOM"):
            alerting.flush(connection, 2.0)
    finally:
        connection.config_set("maxmemory", "0")
    alerting.flush(connection, 4.0)
    assert (alerting.dropped, alerting.busy) == (0, False)
    assert connection.xlen(keys.ALERTS) == 1


# To a service


@pytest.fixture
def start_sender(connection: Redis) -> Iterator[Callable[..., Sender]]:
    """A sender in this process."""
    started: list[Sender] = []

    def start(*urls: str, on: Redis = connection, name: str | None = None) -> Sender:
        found = addresses(Config(alert_urls=urls))
        started.append(Sender(on, found, services(found), name))
        started[-1].start()
        return started[-1]

    yield start
    for sender in started:
        sender.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six tries, and hardly a pause."""
    monkeypatch.setattr(delivery, "pause_after", lambda tries: 0.01 if tries < 6 else None)


def all_done(connection: Redis) -> bool:
    """Whether every group has read all and owes nothing."""
    groups = connection.xinfo_groups(keys.ALERTS)
    newest = connection.xinfo_stream(keys.ALERTS)["last-generated-id"]
    return all(each["pending"] == 0 and each["last-delivered-id"] == newest for each in groups)


def test_an_alert_arrives_with_what_one_has_to_know(
    connection: Redis, receiver: Receiver, start_sender: Callable[..., Sender]
) -> None:
    tell(connection, "jobs.Before")
    start_sender(receiver.url)
    told = tell(connection, text="used 271.3 MB of 256 MB", suppressed=0)
    tell(connection, "jobs.Other", rule="memory-usage", state="resolved")
    wait_until(lambda: len(receiver.messages) == 2)
    [first, second] = receiver.messages
    assert first["title"] == "rqmem: ceiling-exceeded [jobs.Export]"
    assert first["message"].splitlines() == [
        "used 271.3 MB of 256 MB",
        "job j1, queue q, worker w",
        datetime.fromtimestamp(told.at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC"),
    ]  # fmt: skip
    assert first["type"] == "failure"
    assert (second["title"], second["type"]) == ("rqmem: resolved: memory-usage [jobs.Other]", "success")
    wait_until(lambda: all_done(connection))


def test_senders_of_one_url_share_and_each_url_gets_all(
    connection: Redis, receiver: Receiver, start_sender: Callable[..., Sender]
) -> None:
    jobs = [f"jobs.Export{number}" for number in range(8)]
    with contextlib.closing(Receiver()) as own:
        start_sender(receiver.url)
        start_sender(receiver.url, own.url)
        for job in jobs:
            tell(connection, job)
        wait_until(lambda: len(own.texts) == len(receiver.texts) == len(jobs) and all_done(connection))
    for each in (receiver, own):
        assert sorted(text.splitlines()[0] for text in each.texts) == [
            f"rqmem: ceiling-exceeded [{job}]" for job in jobs
        ]


def test_a_service_that_fails_for_a_while_gets_it_once_and_is_told_of(
    connection: Redis,
    receiver: Receiver,
    start_sender: Callable[..., Sender],
    impatient: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.answers = [500, 503, 500]
    start_sender(receiver.url)
    tell(connection)
    wait_until(lambda: receiver.taken and all_done(connection))
    assert [each["status"] for each in receiver.messages] == [500, 503, 500, 200]
    assert [each.message for each in caplog.records if each.name == "rqmem.alerts"] == [
        "alert URL 1 (json://****) did not take an alert: it answered HTTP 500; it is tried again",
        "alert URL 1 (json://****) takes alerts again",
    ]
    assert history_reader.dropped(connection) == {}


def test_one_that_is_down_keeps_no_other_from_it_and_is_given_up_with_a_count(
    connection: Redis,
    receiver: Receiver,
    start_sender: Callable[..., Sender],
    impatient: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    start_sender(f"json://{SECRET}:{SECRET}@127.0.0.1:1/{SECRET}", receiver.url)
    tell(connection)
    wait_until(lambda: history_reader.dropped(connection) == {"alerts": 1} and all_done(connection))
    assert len(receiver.messages) == 1
    last = caplog.messages[-1]
    assert last == "alert URL 1 (json://****): 1 alert not sent, after 6 tries: it cannot be reached"
    assert SECRET not in caplog.text


def test_a_flood_is_a_summary(connection: Redis, receiver: Receiver, start_sender: Callable[..., Sender]) -> None:
    receiver.held.clear()
    start_sender(receiver.url)
    for number in range(60):
        tell(connection, f"jobs.Export{number}")
    receiver.held.set()
    wait_until(lambda: all_done(connection))
    assert len(receiver.messages) <= 20
    [summary] = [each for each in receiver.messages if each["title"] != "rqmem: ceiling-exceeded [jobs.Export0]"
                 and " alerts" in each["title"]]  # fmt: skip
    number = int(summary["title"].split()[1])
    assert len(receiver.messages) - 1 + number == 60
    assert summary["message"].splitlines()[-1] == f"and {number - 3} more; 'rqmem alerts' shows them"


def test_old_news_are_not_sent(connection: Redis, receiver: Receiver, start_sender: Callable[..., Sender]) -> None:
    start_sender(receiver.url)
    tell(connection, "jobs.Old", at=time.time() - 3700)
    tell(connection, "jobs.New")
    wait_until(lambda: receiver.messages and all_done(connection))
    assert [each["title"] for each in receiver.messages] == ["rqmem: ceiling-exceeded [jobs.New]"]
    wait_until(lambda: history_reader.dropped(connection) == {"alerts": 1})


def test_a_journal_that_is_cleared_stops_no_sender(
    connection: Redis, receiver: Receiver, start_sender: Callable[..., Sender]
) -> None:
    start_sender(receiver.url)
    tell(connection, "jobs.A")
    wait_until(lambda: len(receiver.messages) == 1 and all_done(connection))
    connection.delete(keys.ALERTS)
    tell(connection, "jobs.B")
    wait_until(lambda: len(receiver.messages) == 2)
    assert receiver.messages[1]["title"] == "rqmem: ceiling-exceeded [jobs.B]"


def test_redis_that_goes_and_comes_back(
    own_redis: OwnRedis, receiver: Receiver, start_sender: Callable[..., Sender], caplog: pytest.LogCaptureFixture
) -> None:
    receiver.held.clear()
    start_sender(receiver.url, on=own_redis.connection)
    tell(own_redis.connection, "jobs.A")
    wait_until(lambda: receiver.messages)
    own_redis.kill()
    receiver.held.set()  # taken, and Redis cannot hear of it yet
    wait_until(lambda: any("alerts: Redis does not answer" in text for text in caplog.messages))
    own_redis.start_again()
    tell(own_redis.connection, "jobs.B")
    wait_until(lambda: len(receiver.messages) == 2 and all_done(own_redis.connection))
    assert [each["title"][-8:] for each in receiver.messages] == ["[jobs.A]", "[jobs.B]"], "none twice"
    said = [text for text in caplog.messages if "Redis" in text and text.startswith("alerts:")]
    assert said[1:2] == ["alerts: Redis answers again"]


# What was taken and not done


def test_what_a_dead_sender_had_taken_is_taken_over(connection: Redis) -> None:
    dead, heir = Outbox(connection, "g", "dead"), Outbox(connection, "g", "heir")
    dead.open()
    tell(connection)
    [taken] = dead.take(10)
    assert heir.take(10) == []
    assert heir.take_over(60, 10) == [], "it may live"
    assert heir.take_over(0, 10) == [taken]
    assert dead.take_again(10) == []
    heir.done([taken.id])
    assert all_done(connection)


def test_a_sender_that_begins_again_goes_on_with_its_own(connection: Redis) -> None:
    Outbox(connection, "g", "same").open()
    tell(connection)
    taken = Outbox(connection, "g", "same").take(10)
    assert Outbox(connection, "g", "same").take_again(10) == taken


def test_what_is_held_is_not_taken_over(connection: Redis) -> None:
    slow, other = Outbox(connection, "g", "slow"), Outbox(connection, "g", "other")
    slow.open()
    tell(connection)
    [taken] = slow.take(10)
    wait_until(lambda: connection.xpending_range(keys.ALERTS, "g", "-", "+", 1)[0]["time_since_delivered"] > 50)
    slow.hold([taken.id])
    assert other.take_over(0.05, 10) == []


def test_what_was_trimmed_or_is_no_alert_is_done_with(connection: Redis) -> None:
    dead, heir = Outbox(connection, "g", "dead"), Outbox(connection, "g", "heir")
    dead.open()
    tell(connection)
    dead.take(10)
    connection.xtrim(keys.ALERTS, maxlen=0)
    assert heir.take_over(0, 10) == []
    connection.xadd(keys.ALERTS, {"alert": "nonsense"})
    connection.xadd(keys.ALERTS, {"else": "{}"})
    assert heir.take(10) == []
    assert connection.xpending(keys.ALERTS, "g")["pending"] == 0


def test_who_left_long_ago_is_forgotten(connection: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("left", "owes"):
        Outbox(connection, "g", name).open()
        tell(connection, f"jobs.{name}")
        [taken] = Outbox(connection, "g", name).take(1)
        if name == "left":
            Outbox(connection, "g", name).done([taken.id])
    monkeypatch.setattr("rqmem.store.alerts.alert_outbox._LEFT_MS", -1)
    Outbox(connection, "g", "new").take_over(60, 10)
    assert [each["name"] for each in connection.xinfo_consumers(keys.ALERTS, "g")] == [b"owes"]


# The process


@pytest.fixture
def start_deliver(start_command: StartCommand) -> StartCommand:
    def start(connection: Redis, *urls: str) -> WorkerProcess:
        sender = start_command("alerts", "deliver", "--name", "the-sender", RQMEM_ALERT_URLS=" ".join(urls))
        groups = {Address(1, url).group.encode() for url in urls}
        wait_until(lambda: groups <= _consumed_groups(connection))
        return sender

    return start


def _consumed_groups(connection: Redis) -> set[bytes]:
    with contextlib.suppress(redis.ResponseError):  # no stream yet
        return {each["name"] for each in connection.xinfo_groups(keys.ALERTS) if each["consumers"]}
    return set()


def test_a_sender_killed_before_it_could_say_so_sends_again(
    connection: Redis, receiver: Receiver, start_deliver: StartCommand
) -> None:
    receiver.held.clear()
    first = start_deliver(connection, receiver.url)
    tell(connection)
    wait_until(lambda: receiver.messages)
    first.kill()
    receiver.held.set()
    start_deliver(connection, receiver.url)
    wait_until(lambda: len(receiver.messages) == 2 and all_done(connection))


def test_sigterm_has_it_send_what_is_there(connection: Redis, receiver: Receiver, start_deliver: StartCommand) -> None:
    receiver.held.clear()
    sender = start_deliver(connection, receiver.url)
    tell(connection, "jobs.A")
    wait_until(lambda: receiver.messages)
    sender.process.terminate()
    tell(connection, "jobs.B")
    receiver.held.set()
    output = sender.finish()
    assert sender.process.returncode == 0
    assert [each["title"][-8:] for each in receiver.messages] == ["[jobs.A]", "[jobs.B]"]
    assert all_done(connection)
    assert connection.xinfo_groups(keys.ALERTS)[0]["consumers"] == 0, "it has left"
    assert "Traceback" not in output


def test_no_secret_is_shown_anywhere(connection: Redis, receiver: Receiver, start_deliver: StartCommand) -> None:
    refusing = f"json://{SECRET}:{SECRET}@127.0.0.1:1/{SECRET}?+X-{SECRET}={SECRET}"
    failing = f"jsons://127.0.0.1:{receiver.port}/{SECRET}"  # TLS, to what speaks none
    receiver.answers = [500]
    sender = start_deliver(connection, receiver.url, refusing, failing)
    command = Path(f"/proc/{sender.pid}/cmdline").read_text()
    tell(connection)
    wait_until(lambda: receiver.messages)
    output = sender.stop()
    assert output.count("did not take an alert") == 3, output
    assert "alert URL 2 (json://****) did not take an alert: it cannot be reached" in output
    kept = [connection.dump(key) or b"" for key in connection.scan_iter()]
    for text in (output, command, b"".join(kept).decode(errors="replace")):
        assert SECRET not in text


# The worker's own


@pytest.fixture
def new_process(connection: Redis) -> Iterator[Callable[..., SenderProcess]]:
    made: list[SenderProcess] = []

    def new(*urls: str, file: str | None = None) -> SenderProcess:
        made.append(SenderProcess(Config(alert_urls=urls, alert_urls_file=file), connection, "w1"))
        made[-1].start()
        return made[-1]

    yield new
    for process in made:
        process.stop()


def test_a_workers_sender_sends_and_drains_at_its_end(
    connection: Redis, receiver: Receiver, new_process: Callable[..., SenderProcess], tmp_path: Path
) -> None:
    file = tmp_path / "urls"
    file.write_text(f"# ours\n\n{receiver.url}\n")
    file.chmod(0o600)
    process = new_process(file=str(file))
    process.wait_until_ready()
    assert not process.tend()
    pid, start_time = process.pid, procfs.read_start_time(process.pid)
    assert SECRET not in Path(f"/proc/{pid}/cmdline").read_text() + Path(f"/proc/{pid}/environ").read_text()
    for number in (signal.SIGTERM, signal.SIGINT):  # to all processes of a unit or terminal: the worker decides
        os.kill(pid, number)
    tell(connection, "jobs.A")
    wait_until(lambda: receiver.messages)
    tell(connection, "jobs.B")
    process.stop()
    assert process.pid == 0
    assert start_time is not None
    assert process_tree.is_gone(pid, start_time)
    assert [each["title"][-8:] for each in receiver.messages] == ["[jobs.A]", "[jobs.B]"]
    process.stop()
    assert not process.tend(), "stopped is stopped"


def test_one_that_died_is_begun_again_at_most_once_in_a_while(
    connection: Redis,
    receiver: Receiver,
    new_process: Callable[..., SenderProcess],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = new_process(receiver.url)
    process.wait_until_ready()
    before = process.pid
    os.kill(before, signal.SIGKILL)
    tell(connection)
    wait_until(lambda: process.tend() or not process.pid)
    assert caplog.messages[-1] == "worker w1: the sender of alerts has died; another begins soon"
    assert not process.tend(), "it has just begun"
    monkeypatch.setattr(SenderProcess, "again_seconds", 1.0)
    wait_until(process.tend)
    assert process.pid not in (0, before)
    wait_until(lambda: receiver.messages)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("slak://hunter2/hunter2/hunter2", "alert URL 1 (slak://****) cannot be used: Apprise has no service slak://"),
        ("slack://hunter2", "alert URL 1 (slack://****) cannot be used: what follows slack:// is not what that"),
        ("hunter2", "alert URL 1 cannot be used: it must begin with a service"),
    ],
)
def test_a_url_that_cannot_be_used_is_said_before_any_job_runs(
    new_process: Callable[..., SenderProcess], url: str, words: str
) -> None:
    process = new_process(url)
    with pytest.raises(ConfigError) as caught:
        process.wait_until_ready()
    assert str(caught.value).startswith(words)
    assert SECRET not in str(caught.value)
    assert process.pid == 0
    assert not process.tend(), "another would not do better"


def test_a_url_that_cannot_be_used_any_more_ends_it_for_good(
    new_process: Callable[..., SenderProcess],
    receiver: Receiver,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "urls"
    file.write_text(receiver.url)
    file.chmod(0o600)
    process = new_process(file=str(file))
    process.wait_until_ready()
    file.write_text("slak://hunter2/hunter2/hunter2")
    monkeypatch.setattr(SenderProcess, "again_seconds", 0.0)
    os.kill(process.pid, signal.SIGKILL)
    wait_until(process.tend)
    wait_until(lambda: process.tend() or not process.pid)
    assert not process.tend()
    assert caplog.messages[-1].startswith("worker w1: alerts are not sent: alert URL 1 (slak://****) cannot be used")


def test_its_log_lines_come_out_of_the_workers_log(
    connection: Redis, receiver: Receiver, new_process: Callable[..., SenderProcess], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    handler = logging.FileHandler(log)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    logging.getLogger("rqmem").addHandler(handler)
    try:
        receiver.answers = [404]
        new_process(receiver.url).wait_until_ready()
        tell(connection)
        expected = "alert URL 1 (json://****) did not take an alert: it answered HTTP 404; it is tried again"
        wait_until(lambda: f"rqmem.alerts: {expected}\n" in log.read_text())
    finally:
        logging.getLogger("rqmem").removeHandler(handler)
        handler.close()


def test_it_does_not_outlive_its_worker(redis_url: str, connection: Redis, receiver: Receiver) -> None:
    program = (
        "import os, sys; from redis import Redis; from rqmem.config.settings import Config\n"
        "from rqmem.worker.alert_sender import SenderProcess\n"
        "process = SenderProcess(Config(alert_urls=(sys.stdin.read(),)), Redis.from_url(sys.argv[1]), 'w1')\n"
        "process.start(); process.wait_until_ready(); print(process.pid, flush=True); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, redis_url], input=receiver.url, capture_output=True, text=True, cwd=ROOT,
        timeout=60,
    )  # fmt: skip
    pid = int(done.stdout)
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or process_tree.is_zombie(pid))


def test_alerts_are_wanted_only_with_a_url_and_a_journal() -> None:
    assert not SenderProcess.wanted(Config())
    assert SenderProcess.wanted(Config(alert_urls=("json://localhost",)))
    assert SenderProcess.wanted(Config(alert_urls_file="urls"))
    assert not SenderProcess.wanted(Config(alert_urls=("json://localhost",), journal_enabled=False))


# Where to


def test_urls_from_everywhere_each_once_and_never_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "urls"
    file.write_text("# chat\nslack://hunter2/b\n\n  mailto://x:hunter2@example.com  \n")
    file.chmod(0o644)
    config = load({"RQMEM_ALERT_URLS": " json://hunter2/\n slack://hunter2/b ",
                                  "RQMEM_ALERT_URLS_FILE": str(file)}).config  # fmt: skip
    found = addresses(config)
    assert [each.shown for each in found] == [
        "alert URL 1 (json://****)", "alert URL 2 (slack://****)", "alert URL 3 (mailto://****)",
    ]  # fmt: skip
    assert len({each.group for each in found}) == 3
    assert caplog.messages == [f"file of alert URLs {str(file)!r} can be read by others, and URLs are secrets: "
                               "chmod 600 it"]  # fmt: skip
    file.chmod(0o600)
    caplog.clear()
    addresses(config)
    assert caplog.messages == []
    assert SECRET not in f"{config!r} {found!r}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file or directory"),
        (b"json://x\nslack://hunter2 /b\n", "line 2: one URL a line"),
        (b"\xff\xfe", "it is no text"),
        (b"json://x\nhunter2\n", "alert URL 2 cannot be used: it must begin with a service"),
    ],
)
def test_a_file_of_urls_that_cannot_be_used(tmp_path: Path, text: bytes | None, words: str) -> None:
    file = tmp_path / "urls"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(ConfigError, match=words) as caught:
        addresses(Config(alert_urls_file=str(file)))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="it is a pipe"):
        addresses(Config(alert_urls_file=str(tmp_path / "pipe")))
    assert SECRET not in str(caught.value)
