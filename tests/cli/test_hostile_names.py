"""Names and texts of others on every surface: none of them moves a cursor, begins a line, or is taken for markup."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from rq import Queue

from rqmem import events, log, words
from rqmem.alerts.messages import message
from rqmem.breach_words import explanation
from rqmem.cli import main
from rqmem.live.plain import block
from rqmem.live.view import Frame, view
from rqmem.profiling.snapshots import Inside, Process, WorkerSnapshot, as_text
from rqmem.store import codec, keys
from rqmem.store.alerts.alert_records import Alert, Open
from rqmem.store.history import history_writer
from rqmem.store.history.history_records import Grown, LiveJob, Told
from rqmem.text import json_text, printable
from tests import sample_jobs
from tests.conftest import WorkOff
from tests.journal_filling import a_live, a_run, register, tell

FORGED = "FORGED line"
BAD = "".join(map(chr, [*range(32), *range(127, 160), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]))
hostile = st.lists(
    st.sampled_from([*BAD, FORGED, "<script>", "\x1b[31m", "\x1b[2J", "\\", "'", '"', "%s", "{0}", "ü", "jobs.mail"]),
    min_size=1, max_size=6,
).map("".join)  # fmt: skip
anything = hostile | hostile.map(lambda text: f"a\n{FORGED}{text}") | hostile.map(lambda text: f"\udc80{text}")
names = hostile.map(lambda text: f"n{text}") | hostile.map(lambda text: f"n\r\n{FORGED}\x85{text}")


@dataclass(frozen=True)
class Hostile:
    """What others name; those with ``_text`` are in no key of Redis and may be no UTF-8."""

    queue: str
    worker: str
    job: str
    job_id: str
    operation_text: str
    error_text: str
    file_text: str
    description_text: str


def check(shown: str, where: str) -> None:
    bad = sorted({each for each in shown if not each.isprintable() and each != "\n"})
    assert not bad, f"{where}: {bad!r} in {shown[:2000]!r}"
    assert not any(line.startswith(FORGED) for line in shown.splitlines()), f"{where}: {shown[:2000]}"


def fill(connection: Redis, by: Hostile) -> None:
    """Something of everything, under these names."""
    now = time.time()
    whose = {"job": by.job, "job_id": by.job_id, "queue": by.queue, "worker": by.worker}
    grew = [(118.0, f"{by.file_text}:51 in {by.operation_text}")]
    breach = events.Breach(
        **whose, used_mb=271.3, limit_mb=256.0, peak_mb=274.0, layer="watch", processes=2, operation=by.operation_text,
        where=by.file_text, baseline_mb=20.0, from_mb=20.0, growth_seconds=2.0, curve=[(1.0, 20.0), (0.0, 271.0)],
        grew=grew, kinds=[(by.operation_text, 900, 2.5)], checkpoints=[(by.operation_text, 30.0)],
        tree=[(7, by.file_text, 200.0), (8, by.file_text, 71.3)], segments_left=[(by.file_text, 3.0)],
        next=by.error_text,
    )  # fmt: skip
    told: list[events.Event] = [
        events.JobStarted(**whose, memory_mb=40.0, memory_limit_mb=256.0),
        events.Checkpoint(**whose, operation=by.operation_text, current_memory_mb=50, peak_memory_mb=60,
                          memory_limit_mb=256),
        events.UsageWarning(**whose, operation=by.operation_text, current_memory_mb=250, memory_limit_mb=256,
                            threshold_percentage=80.0),
        events.Collection(**whose, operation=by.operation_text, freed_mb=3.0, memory_mb=50.0, collections=1),
        breach,
        events.Resumed(**whose, cause=by.error_text, cursor=by.operation_text, chunk_size=5, resumes=1, max_resumes=30,
                       spent=1),
        events.GaveUp(**whose, cause=by.error_text, reason=by.error_text, resumes=1),
        events.LeakFound(**whose, mb_per_run=1.5, runs=40, grew=[(by.operation_text, 900, 2.5)]),
        events.HorseRecycled(**whose, reason=by.error_text),
        events.WorkerLost(**whose, lost_worker=by.worker),
        events.AlertRaised(**whose, rule="memory-usage", text=by.error_text),
        events.RunEnded(**whose, outcome=by.error_text, initial_memory_mb=1, peak_memory_mb=2, final_memory_mb=3,
                        memory_limit_mb=4, freed_mb=5, collections=6, chunks=7, duration_seconds=8),
    ]  # fmt: skip
    tell(connection, [Told(now - 20 + number, event) for number, event in enumerate(told)])
    job = LiveJob(by.job, by.job_id, by.queue, now - 9, 250.0, 255.0, 256.0, by.operation_text, 12, tuple(grew))
    live = a_live(by.worker, job, queues=[by.queue], host=by.file_text)
    register(connection, by.worker, by.queue, state="busy", live=live)
    register(connection, f"{by.worker}-stock", by.queue)
    text = events.GaveUp(**whose, cause="breach", reason=by.error_text, resumes=1)
    alert = Alert("", now, "memory-usage", "raised", **whose, text=text.reason)
    with connection.pipeline() as pipeline:
        run = a_run(by.job, by.job_id, now)
        history_writer.write_runs(pipeline, [run] * 30, {(by.job, "memory-usage"): 1}, now, [])
        history_writer.write_grown(pipeline, [Grown(by.job, by.job_id, by.worker, now, 270.0, 256.0, tuple(grew))])
        pipeline.xadd(keys.ALERTS, alert.to_entry())
        opened = Open("memory-usage", by.job, now, by.worker, by.error_text)
        pipeline.hset(keys.OPEN_ALERTS, opened.field, codec.to_json(opened))
        pipeline.lpush(keys.breaches(by.job_id), codec.to_json(breach))
        pipeline.hset(keys.DROPPED, "events", 2)
        pipeline.execute()
    description = by.description_text.encode(errors="replace").decode()
    Queue(by.queue, connection=connection).enqueue("operator.concat", "a", "b", description=description, job_id="waits")


COMMANDS = [
    ["status"], ["status", "--job", "waits"], ["status", "--job", "ID"], ["inspect", "ID"], ["inspect", "waits"],
    ["alerts"], ["alerts", "--job", "JOB"], ["report"], ["report", "--job", "JOB"],
    ["recommend"], ["recommend", "--apply"], ["recommend", "--apply", "config"], ["config", "--jobs"], ["config"],
    ["top", "--once", "--worker", "WORKER"], ["top", "--once"], ["top", "--once", "--worker", "no\n" + FORGED],
    ["journal", "size"], ["journal", "clear", "--yes", "--job-type", "JOB"], ["cancel", "waits"], ["retry", "ID"],
    ["inspect", "\n" + FORGED], ["status", "--job", "\x1b[2J"], ["alerts", "--since", "\n" + FORGED],
    ["report", "--job", "x\n" + FORGED], ["monitor", "--queue", "x\n" + FORGED], ["x\n" + FORGED],
    ["worker", "--memory", "\n" + FORGED], ["enqueue", "x\n" + FORGED], ["report", "--output", "/no\n" + FORGED],
    ["enqueue", "operator.concat", "a", "\n" + FORGED, "--queue", "QUEUE", "--job-id", "another"],
    ["enqueue", "operator.concat", "a", "b", "--description", "\n" + FORGED],
    ["monitor", "--duration", "1", "--interval", "1", "--plain", "--queue", "QUEUE"],
]  # fmt: skip
WITH_JSON = [["status"], ["inspect", "ID"], ["alerts"], ["report"], ["recommend"],
             ["top", "--once", "--worker", "WORKER"], ["status", "--job", "waits"], ["journal", "size"],
             ["config", "--jobs"]]  # fmt: skip
USUAL = Hostile(
    queue=f"q\n{FORGED}\x1b[2J", worker=f"w\r{FORGED}\u202e", job=f"jobs\u2028{FORGED}<script>",
    job_id=f"j\x85{FORGED}",
    operation_text=f"op\n{FORGED}\x9b2J", error_text=f"E\r\n{FORGED}\x00\u2066", file_text=f"/\udc80\n{FORGED}",
    description_text=f"call\x0b{FORGED}\x7f",
)  # fmt: skip


@pytest.fixture
def run(redis_url: str, connection: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[CliRunner]:
    monkeypatch.setenv("RQMEM_REDIS_URL", redis_url)
    path, root = list(sys.path), logging.getLogger().handlers[:]
    yield CliRunner()
    sys.path[:], logging.getLogger().handlers[:] = path, root


def told(run: CliRunner, command: list[str], by: Hostile) -> str:
    stand_ins = {"ID": by.job_id, "JOB": by.job, "WORKER": by.worker, "QUEUE": by.queue}
    done = run.invoke(main, [stand_ins.get(each, each) for each in command])
    assert done.exception is None or isinstance(done.exception, SystemExit), (command, done.exception)
    return done.output


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command).replace("\n", "-"))
def test_no_command_lets_a_name_forge_a_line(connection: Redis, run: CliRunner, command: list[str]) -> None:
    fill(connection, USUAL)
    shown = told(run, command, USUAL)
    assert shown
    check(shown, " ".join(command))


def test_no_name_is_markup_in_the_page_of_a_report(connection: Redis, run: CliRunner) -> None:
    fill(connection, USUAL)
    page = re.sub(r"<script>/\*\*.*?</script>", "", told(run, ["report", "--format", "html"], USUAL), flags=re.DOTALL)
    check(page, "page")
    assert FORGED in page and f"{FORGED}<" not in page


@pytest.mark.parametrize("command", WITH_JSON, ids=" ".join)
def test_json_has_names_as_they_are_and_can_be_printed(connection: Redis, run: CliRunner, command: list[str]) -> None:
    fill(connection, USUAL)
    shown = told(run, command if "--format" in command else [*command, "--json"], USUAL)
    check(shown, " ".join(command))
    for line in [shown] if shown.startswith("{\n") else shown.splitlines():
        assert json.loads(line)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.builds(Hostile, *[names] * 4, *[anything] * 4))
def test_no_surface_lets_any_name_forge_a_line(connection: Redis, run: CliRunner, by: Hostile) -> None:
    connection.flushall()
    fill(connection, by)
    for command in (["status"], ["inspect", "ID"], ["alerts"], ["report"], ["recommend", "--apply"],
                    ["top", "--once", "--worker", "WORKER"], ["status", "--json"], ["alerts", "--json"]):  # fmt: skip
        check(told(run, command, by), " ".join(command))


@given(anything, anything, anything)
def test_no_log_line_can_be_forged(job: str, text: str, worker: str) -> None:
    formatter = log.TextFormatter()
    whose = {"job": job, "job_id": text, "queue": text, "worker": worker}
    resumed = events.GaveUp(**whose, cause=text, reason=text, resumes=1)
    records = [
        logging.makeLogRecord(
            {"levelno": 30, "levelname": "WARNING", "msg": "%s", "args": (words.text(resumed),), "rqmem": {}}
        ),
        logging.makeLogRecord(
            {"levelno": 30, "levelname": "WARNING", "msg": "worker %s: job %r in %d s", "args": (worker, text, 3)}
        ),
        logging.makeLogRecord({"levelno": 30, "levelname": "WARNING", "msg": "job %(job)s", "args": {"job": job}}),
        logging.makeLogRecord(
            {"levelno": 30, "levelname": "WARNING", "msg": f"RQ puts texts of others together {text}"}
        ),
        logging.makeLogRecord(
            {
                "levelno": 30,
                "levelname": "WARNING",
                "msg": "failed: %s",
                "args": (ValueError(text),),
                "exc_info": _raised(text),
            }
        ),
    ]
    for record in records:
        first, *more = formatter.format(record).split("\n")
        check(first, "the log")
        assert all(line.startswith("  ") and line.isprintable() for line in more)
        line = log.JsonFormatter().format(record)
        check(line, "the log as JSON")
        assert json.loads(line) is not None
    assert "\n" not in formatter.format(records[0]) and "\n" not in formatter.format(records[1])


def _raised(text: str) -> Any:
    try:
        raise ValueError(text)
    except ValueError:
        return sys.exc_info()


@given(anything, anything)
def test_no_alert_that_is_sent_and_no_snapshot_can_be_forged(name: str, text: str) -> None:
    alert = Alert("1-0", 0.0, "memory-usage", "raised", name, name, name, name, f"told: {text}", suppressed=2)
    for alerts in ([alert], [alert] * 5):
        sent = message(alerts)
        check(sent.title, "title")
        assert "\n" not in sent.title
        check(sent.body, "body")
    inside = Inside(doing=name, stack=[text], threads=[(name, text)], kinds=[(name, 1, 1.0)], note=text)
    check(
        as_text(WorkerSnapshot(name, 0.0, [("job", text)], [Process(1, text, 1.0)], [text], [(1.0, text)], inside)),
        "file",
    )


@given(st.builds(Hostile, *[names] * 4, *[anything] * 4))
def test_a_breach_is_told_in_lines_of_its_own(by: Hostile) -> None:
    breach = events.Breach(
        job=by.job, job_id=by.job_id, queue=by.queue, worker=by.worker, used_mb=2, limit_mb=1, peak_mb=2, layer="kill",
        processes=2, operation=by.operation_text, where=by.file_text, grew=[(1.0, by.file_text)], next=by.error_text,
        tree=[(1, by.file_text, 1.0)],
    )  # fmt: skip
    for line in (breach.summary(), *explanation(breach)):
        assert line.isprintable()


def test_metrics_of_hostile_names_can_be_read(connection: Redis) -> None:
    pytest.importorskip("prometheus_client")
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.parser import text_string_to_metric_families

    from rqmem.prometheus import collector

    fill(connection, USUAL)
    Queue("same\nname", connection=connection).enqueue("time.sleep", 0)
    Queue(r"same\nname", connection=connection).enqueue("time.sleep", 0)
    registry = CollectorRegistry()
    registry.register(collector(connection))
    page = generate_latest(registry).decode()
    check(page, "metrics")
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    queues = [each.labels["queue"] for each in samples if each.name == "rqmem_queue_overdue_jobs"]
    assert len(queues) == len(set(queues)) == 3, "two queues never have one label"


@given(st.text() | anything)
def test_printable_text_stays_and_the_rest_is_escaped_once(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable() and printable(shown) == shown
    assert shown == text or not text.isprintable()
    assert json.loads(json_text({"a": text})) == {"a": text}


def test_the_live_view_moves_no_cursor(connection: Redis) -> None:
    from rqmem.live.record import Record
    from rqmem.live.system import read_system
    from rqmem.observe.snapshot import Before, read_news

    fill(connection, USUAL)
    seen = read_news(connection, time.time(), Before())
    record = Record(seen, read_system(), step_seconds=1, threshold_percentage=80)
    for line in block(record):
        check(line, "plain")
    for shown in view(record, Frame(time.time(), "redis://x", None, 100, 40)):
        assert all(part.isprintable() for part, _ in shown)


def test_the_log_of_a_real_worker_cannot_be_forged(connection: Redis, work_off: WorkOff) -> None:
    names = {"queue": f"q\n{FORGED}", "worker": f"w\u2028{FORGED}\x1b[2J", "text": f"t\r\n{FORGED}\n{FORGED}\x9b\u202e"}
    queue = Queue(names["queue"], connection=connection)
    queue.enqueue("operator.concat", "a", 7, description=names["text"])
    queue.enqueue(sample_jobs.fail_with, names["text"])
    queue.enqueue(sample_jobs.name_a_place, names["text"], 1)
    queue.enqueue(f"no.such.{names['text']}")
    log = work_off(names["queue"], "--name", names["worker"], "--memory", "256")
    check(log, "log")
    assert log.count("Job OK") == 1 and f"t\\r\\n{FORGED}" in log and "Warning" not in log
