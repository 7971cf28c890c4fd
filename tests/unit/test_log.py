"""What the log says of each event, at which level, in which format; and that a library takes nothing over."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
import traceback
from logging import DEBUG, ERROR, INFO, WARNING
from typing import Any

import pytest

from rqmem import events, log, words
from rqmem.breach_words import evidence, explanation
from rqmem.log import formats, lines
from tests.conftest import ROOT

WHOSE = {"job": "jobs.x.Y", "job_id": "0123456789ab", "queue": "q", "worker": "w"}
OF_WORKER = {"job": "", "job_id": "", "queue": "", "worker": "w"}
HALF_PAST_TEN = 1754476200.7  # 2025-08-06T10:30:00Z


def checkpoint(**changes: Any) -> events.Checkpoint:
    fields: dict[str, Any] = {
        "operation": "loaded", "current_memory_mb": 145.24, "peak_memory_mb": 158.66, "memory_limit_mb": 512.0,
    }  # fmt: skip
    return events.Checkpoint(**{**WHOSE, **fields, **changes})


def collection(freed_mb: float, collections: int, operation: str = "loaded") -> events.Collection:
    return events.Collection(**WHOSE, operation=operation, freed_mb=freed_mb, memory_mb=190.5, collections=collections)


def breach(**changes: Any) -> events.Breach:
    fields: dict[str, Any] = {
        "used_mb": 271.3, "limit_mb": 256.0, "peak_mb": 274.0, "layer": "watch", "processes": 1, "operation": "",
    }  # fmt: skip
    return events.Breach(**{**WHOSE, **fields, **changes})


def resumed(cause: str) -> events.Resumed:
    return events.Resumed(**WHOSE, cause=cause, cursor="7", chunk_size=4, resumes=1, max_resumes=12, spent=1)


TOLD: list[tuple[events.Event, int, str]] = [
    (
        events.JobStarted(**WHOSE, memory_mb=40.0, memory_limit_mb=256.0),
        DEBUG,
        "jobs.x.Y (01234567) begins: memory 40.0 MB of 256",
    ),
    (checkpoint(), INFO, "jobs.x.Y (01234567) memory 145.2 MB of 512 (28 %, peak 158.7) at loaded"),
    (checkpoint(notable=False), DEBUG, "jobs.x.Y (01234567) memory 145.2 MB of 512 (28 %, peak 158.7) at loaded"),
    (
        events.UsageWarning(
            **WHOSE, operation="loaded", current_memory_mb=210.04, memory_limit_mb=256, threshold_percentage=80.0
        ),
        WARNING,
        "jobs.x.Y (01234567) memory 210.0 MB is above 80 % of 256 MB at loaded",
    ),
    (
        collection(1.0, 1),
        INFO,
        "jobs.x.Y (01234567) collected garbage at loaded: 1.0 MB freed, memory 190.5 MB (collection 1 of this run)",
    ),
    (
        collection(0.9, 9, operation=""),
        DEBUG,
        "jobs.x.Y (01234567) collected garbage: 0.9 MB freed, memory 190.5 MB (collection 9 of this run)",
    ),
    (
        collection(0.0, 20),
        INFO,
        "jobs.x.Y (01234567) collected garbage at loaded: 0.0 MB freed, memory 190.5 MB (collection 20 of this run)",
    ),
    (
        events.ChunkDone(**WHOSE, items=50, items_done=1200, memory_mb=81.25),
        DEBUG,
        "jobs.x.Y (01234567) chunk of 50 done, 1,200 items so far: memory 81.2 MB",
    ),
    (
        events.RunEnded(
            **WHOSE, outcome="ok", initial_memory_mb=40.0, peak_memory_mb=158.7, final_memory_mb=60.3,
            memory_limit_mb=512.0, freed_mb=31.0, collections=4, chunks=24, duration_seconds=12.34, items=1200,
        ),
        INFO,
        "jobs.x.Y (01234567) ended ok in 12.3 s: memory 40.0 MB at the start, 158.7 peak, 60.3 at the end, of 512; "
        "31.0 MB freed in 4 collections, 24 chunks, 1,200 items",
    ),
    (
        events.RunEnded(
            **WHOSE, outcome="ok", initial_memory_mb=40.0, peak_memory_mb=158.7, final_memory_mb=60.3,
            memory_limit_mb=512.0, freed_mb=31.0, collections=4, chunks=24, duration_seconds=12.34, items=1200,
            growth_kb_per_item=12.345,
        ),
        INFO,
        "jobs.x.Y (01234567) ended ok in 12.3 s: memory 40.0 MB at the start, 158.7 peak, 60.3 at the end, of 512; "
        "31.0 MB freed in 4 collections, 24 chunks, 1,200 items; of each item 12 KB stayed",
    ),
    (
        events.CeilingCut(**WHOSE, declared_mb=512, allowed_mb=256),
        WARNING,
        "jobs.x.Y declares 512 MB of memory; this worker allows 256 MB, so that is its ceiling here",
    ),
    (
        breach(where="jobs/x.py:58 in handle: json.dumps(rows)", next="failed"),
        ERROR,
        "MemoryLimitExceeded: jobs.x.Y used 271.3 MB of 256 MB (peak 274.0 MB, by watch, 1 process) "
        "[job 0123456789ab]\n"
        "  stopped at:    jobs/x.py:58 in handle: json.dumps(rows)\n"
        "  next:          failed",
    ),
    (
        resumed("breach"),
        DEBUG,
        f"jobs.x.Y (01234567) {words.goes_on(resumed(''))} after a memory breach",
    ),
    (
        events.Escalated(**WHOSE, from_mb=256.0, to_mb=2048.0, to_queue="big", cursor="7", escalations=1),
        WARNING,
        "jobs.x.Y (01234567) goes on from cursor 7 under 2048 MB in queue big after a memory breach of 256 MB",
    ),
    (resumed("planned stop"), INFO, f"jobs.x.Y (01234567) {words.goes_on(resumed(''))} after planned stop"),
    (
        resumed("horse lost"),
        WARNING,
        f"jobs.x.Y (01234567) {words.goes_on(resumed(''))} after horse lost",
    ),
    (
        events.GaveUp(**WHOSE, cause="breach", reason="it does not fit alone", resumes=3),
        ERROR,
        "jobs.x.Y (01234567) gave up after a memory breach and 3 resumes: it does not fit alone",
    ),
    (
        events.GaveUp(**WHOSE, cause="worker lost", reason="", resumes=0),
        ERROR,
        "jobs.x.Y (01234567) gave up after worker lost",
    ),
    (
        events.Split(**WHOSE, children=3),
        INFO,
        "jobs.x.Y (01234567) is split into 3 child jobs, each with a memory ceiling of its own",
    ),
    (
        events.LeakFound(**WHOSE, mb_per_run=0.5, runs=90, grew=[("dict", 1200, 7.04), ("str", 900, 2.0)]),
        WARNING,
        "jobs.x.Y leaks 0.5 MB a run: dict +1,200 (7 MB), str +900 (2 MB); this memory stayed, run after run, "
        "over 90 runs",
    ),
    (
        events.LeakFound(**WHOSE, mb_per_run=0.01, runs=1),
        WARNING,
        "jobs.x.Y leaks 10 KB a run: no objects that the garbage collector sees; this memory stayed, run after run, "
        "over 1 run",
    ),
    (
        events.HookFailed(**WHOSE, hook="after_job hook x.clean", error="ValueError: no", where="x.py:3 in clean: f()"),
        ERROR,
        "worker w: after_job hook x.clean failed in job jobs.x.Y (01234567): ValueError: no (x.py:3 in clean: f()); "
        "the job's outcome does not change",
    ),
    (
        events.HorseRecycled(**WHOSE, reason="it has run 9 jobs"),
        INFO,
        "worker w: new horse with fresh memory after jobs.x.Y (01234567): it has run 9 jobs",
    ),
    (
        events.RunsAgain(**WHOSE, used_mb=152.3, limit_mb=150, left_mb=96.0, layer="watch", operation="rows"),
        WARNING,
        "jobs.x.Y (01234567) used 152.3 MB of 150 MB of memory at 'rows', but others had left 96 MB in its horse: "
        "it runs once more, in a new horse; it repeats what it did before that",
    ),
    (
        events.WorkerFull(**OF_WORKER, used_mb=130.2, limit_mb=120.0, action="restart"),
        WARNING,
        "worker w itself uses 130.2 MB of 120 MB of memory: it restarts in place, between two jobs",
    ),
    (
        events.IntakePaused(**OF_WORKER, reason="only 20 MB of memory are left of 600"),
        WARNING,
        "worker w: the pool takes no jobs: only 20 MB of memory are left of 600; memory has to be freed first",
    ),
    (
        events.IntakeResumed(**OF_WORKER, reason="only 20 MB of memory are left of 600", seconds=12.3),
        INFO,
        "worker w: the pool takes jobs again after 12 s: there is memory again",
    ),
    (
        events.Evicted(
            **WHOSE, reason="the jobs of the pool use 620 MB of 600", how="stop", used_mb=210.0, reserved_mb=120.0
        ),
        WARNING,
        "jobs.x.Y (01234567) evicted: the jobs of the pool use 620 MB of 600; it used 210 MB of memory (120 MB "
        "reserved), and was told to save its work and continue later",
    ),
    (
        events.WorkerRestarted(**OF_WORKER, jobs=1),
        WARNING,
        "worker w has restarted in place, with fresh memory, after 1 job",
    ),
    (
        events.WorkerLost(**WHOSE, lost_worker="w2"),
        WARNING,
        "worker w2 is lost; it was running jobs.x.Y (01234567)",
    ),
    (
        events.AlertRaised(**WHOSE, rule="growth", text="it grew 80 MB within a minute", suppressed=1200),
        WARNING,
        "memory alert growth [jobs.x.Y]: it grew 80 MB within a minute; 1,200 more like it were not reported",
    ),
    (
        events.AlertRaised(**OF_WORKER, rule="worker lost", text="gone"),
        WARNING,
        "memory alert worker lost [worker w]: gone",
    ),
    (
        events.AlertResolved(**WHOSE, rule="usage", text="below 80 % again"),
        INFO,
        "memory alert usage [jobs.x.Y] resolved: below 80 % again",
    ),
]  # fmt: skip


@pytest.fixture
def written(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "rqmem")
    return caplog


@pytest.mark.parametrize(("event", "level", "text"), TOLD, ids=lambda value: type(value).__name__)
def test_each_event_has_its_level_and_words_and_is_json(
    event: events.Event, level: int, text: str, written: pytest.LogCaptureFixture
) -> None:
    log.write_event(event)
    [record] = written.records
    assert (record.levelno, record.getMessage()) == (level, text)
    fields = json.loads(log.JsonFormatter().format(record))
    assert fields["job"] == event.job
    assert {"job_id", "queue", "worker", "timestamp"} <= set(fields)
    if not isinstance(event, events.Checkpoint):
        assert fields["event"] == type(event).__name__


def test_the_whole_catalogue_is_worded_and_tested() -> None:
    kinds = set(events.CATALOGUE.values())
    assert set(words.WORDS) == kinds
    assert {type(event) for event, _, _ in TOLD} == kinds


def test_short_words_do_not_say_whose_the_event_is() -> None:
    of_jobs = [event for event, _, _ in TOLD if event.job]
    assert len(of_jobs) > len(words.WORDS) / 2
    for event in of_jobs:
        short = words.short(event)
        assert short and event.job not in short and event.job_id not in short and "\n" not in short


def test_a_breach_has_its_evidence_as_values_and_as_lines() -> None:
    told = breach(grew=[(3.0, "x.py:1 in f: a"), (2.0, "x.py:2 in f: b")], next="failed")
    assert evidence(told) == [
        ("where it grew:", "     3 MB  x.py:1 in f: a"), ("", "     2 MB  x.py:2 in f: b"), ("next:", "failed"),
    ]  # fmt: skip
    assert explanation(told)[1:] == ["                    2 MB  x.py:2 in f: b", "next:          failed"]
    assert told.summary() == f"{told.job} {told.what()}"


@pytest.mark.parametrize(
    ("layer", "more", "told"),
    [
        ("kernel", {}, True), ("watch", {}, True), ("watch", {"where": "x.py:1 in f: a"}, False),
        ("checkpoint", {}, False),
        ("kill", {"processes": 2}, False),
    ],
)  # fmt: skip
def test_a_breach_without_a_line_says_why_it_has_none(layer: str, more: dict[str, Any], told: bool) -> None:
    of_c_code = breach(**{"layer": layer, "operation": "", "processes": 1, "where": "", **more})
    assert ("where it grew:" in dict(evidence(of_c_code))) == told


NOT_ABOUT_MEMORY = (events.WorkerLost, events.HookFailed)


@pytest.mark.parametrize("event", [event for event, _, _ in TOLD], ids=lambda value: type(value).__name__)
def test_grep_memory_shows_every_record_about_memory(event: events.Event) -> None:
    if isinstance(event, events.Breach):
        event = breach(
            grew=[(106.0, "x.py:1 in f: a"), (64.0, "x.py:2 in f: b")], kinds=[("dict", 5, 6.0)], from_mb=50.0,
            growth_seconds=4.2, checkpoints=[("loaded", 80.0)], segments_left=[("/dev/shm/x", 20.0)], next="failed",
        )  # fmt: skip
        assert words.text(event).count("\n") == 7
    if isinstance(event, NOT_ABOUT_MEMORY) or getattr(event, "cause", "breach") != "breach":
        return
    assert "memory" in words.text(event).splitlines()[0].lower()


def test_the_json_line_of_a_checkpoint_is_the_originals(
    written: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines.time, "time", lambda: HALF_PAST_TEN)
    log.write_event(
        checkpoint(job="jobs.campaigns.ProcessRetellAICampaignJob", operation="customer_processing_123", queue="größe")
    )
    assert log.JsonFormatter().format(written.records[0]) == (
        '{"job": "jobs.campaigns.ProcessRetellAICampaignJob", "operation": "customer_processing_123", '
        '"current_memory_mb": 145.2, "peak_memory_mb": 158.7, "memory_limit_mb": 512.0, "usage_percentage": 28.4, '
        '"timestamp": "2025-08-06T10:30:00Z", "job_id": "0123456789ab", "queue": "größe", "worker": "w"}'
    )


def test_what_is_not_told_is_not_worded(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, "rqmem")
    monkeypatch.setattr(words, "text", lambda event: pytest.fail("nobody wants to know"))
    log.write_event(checkpoint(notable=False))
    assert caplog.records == []


def test_every_checkpoint_where_that_is_asked_for(
    written: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "_every_checkpoint", False)
    for every in (True, False):
        lines.tell_every_checkpoint(every)
        log.write_event(checkpoint(notable=False))
        log.write_event(collection(0.0, 1))
    assert [record.levelno for record in written.records] == [INFO, DEBUG, DEBUG, DEBUG]


def test_other_lines_in_both_formats() -> None:
    record = logging.LogRecord("rq.worker", WARNING, "", 0, "it %s", ("waits",), None)
    record.created = HALF_PAST_TEN
    assert json.loads(log.JsonFormatter().format(record)) == {
        "level": "WARNING", "logger": "rq.worker", "message": "it waits", "timestamp": "2025-08-06T10:30:00Z",
    }  # fmt: skip
    local = time.localtime(HALF_PAST_TEN)
    assert log.TextFormatter().format(record) == time.strftime("%H:%M:%S WARNING it waits", local)
    assert log.TextFormatter(dated=True).format(record) == time.strftime("%Y-%m-%d %H:%M:%S WARNING it waits", local)


HOST = """
import json, logging, logging.config, signal, sys
before = signal.getsignal(signal.SIGHUP)
class Keeping(logging.Handler):
    records = []
    def emit(self, record): self.records.append(record)
logging.config.dictConfig({
    "version": 1, "disable_existing_loggers": False, "root": {"level": "INFO", "handlers": ["own"]},
    "handlers": {"own": {"()": Keeping}},
})
import rqmem, rqmem.log, rqmem.cli
from tests.sample_jobs import Plain
rqmem.MemoryWorker
Plain.run(3)
ours = [logging.getLogger(name) for name in logging.Logger.manager.loggerDict if name.partition(".")[0] == "rqmem"]
print(json.dumps({
    "handlers": [type(each).__name__ for each in logging.getLogger().handlers],
    "root": logging.getLogger().level,
    "ours": [[each.name, each.level, len(each.handlers), each.propagate] for each in ours],
    "signal": before == signal.getsignal(signal.SIGHUP),
    "messages": [each.getMessage() for each in Keeping.records],
    "fields": [each.rqmem["operation"] for each in Keeping.records if "operation" in getattr(each, "rqmem", {})],
}))
"""


def test_a_traceback_that_rq_logs_stays_readable_and_forges_no_line() -> None:
    try:
        raise ValueError("bad\n12:00:00 ERROR forged\x1b[2J")
    except ValueError:
        text = traceback.format_exc()
    record = logging.LogRecord("rq.worker", ERROR, "x.py", 1, "[Job %s]: failed (%s)\n%s", ("j", "a\nb", text), None)
    first, *more = formats.formatter("text").format(record).splitlines()
    assert first.endswith("[Job j]: failed (a\\nb)")
    assert more[0] == "  Traceback (most recent call last):"
    assert more[-1] == "  12:00:00 ERROR forged\\x1b[2J"
    assert all(line.startswith("  ") for line in more)


def test_the_host_applications_logging_is_used_and_left_as_it_is() -> None:
    done = subprocess.run([sys.executable, "-c", HOST], cwd=ROOT, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert told["handlers"] == ["Keeping"]
    assert told["root"] == logging.INFO
    assert told["signal"]
    assert told["ours"] and all(each[1:] == [logging.NOTSET, 0, True] for each in told["ours"])
    assert [message for message in told["messages"] if "at begun" in message] != []
    assert "begun" in told["fields"]
    assert done.stderr == ""
