"""What is wrong, how a screen fits, and what follows from all that is known of a job: pure functions over values."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqmem import events
from rqmem.child_ids import short_id
from rqmem.errors import UnknownName
from rqmem.observe.as_json import of_snapshot
from rqmem.observe.curve import Point, executions
from rqmem.observe.find import named
from rqmem.observe.job import Case
from rqmem.observe.model import JobRow, JobType, Kind, Pool, Queue, RedisMemory, Snapshot, Worker
from rqmem.observe.next_step import outlook
from rqmem.observe.problems import Finding, healthy, problems
from rqmem.observe.timeline import lines
from rqmem.show.job_text import offset, story
from rqmem.show.plot import plot
from rqmem.show.status_text import screen
from rqmem.store.alerts.alert_records import Alert, Open
from rqmem.store.execution_records import Owner, RunRecord
from rqmem.store.history.history_records import Live, LiveJob, Run, Tally, Told
from rqmem.text import span

NOW = 1_790_000_000.0
MB = 2**20


def plainly(text: str, mood: str) -> str:
    return text


def live(worker: str = "ada", usage_mb: float = 100, job: bool = True) -> Live:
    running = LiveJob("jobs.mail.Send", "1f3a9c20-1", "mail", NOW - 14, usage_mb, usage_mb, 256, "items 1-50", 50)
    return Live(
        worker=worker, host="h", pid=1, at=NOW, started_at=NOW - 7300, worker_mb=38, worker_limit_mb=512, limit_mb=256,
        horse_pid=2, kept_by="watcher", jobs=412, breaches=3, recycled=0, queues=["mail"], job=running if job else None,
    )  # fmt: skip


IDLE = Worker("ada", "rqmem", "idle", ("mail",), live=live(job=False), started_at=NOW - 7300)
BUSY = Worker("bob", "rqmem", "busy", ("mail",), live=live("bob"), started_at=NOW - 7300)
WELL = Snapshot(
    NOW, "redis://here", workers=[IDLE], queues=[Queue("mail", 3)], memory=RedisMemory(10 * MB, 0, "noeviction")
)


def said(snapshot: Snapshot, name: str) -> Finding:
    [found] = [each for each in problems(snapshot) if each.name == name]
    assert found.advice, "what is wrong says what to do"
    return found


# What is wrong


def test_a_narrow_screen_tells_all_that_a_wide_one_does_and_names_move_no_cursor() -> None:
    snapshot = replace(WELL, workers=[replace(BUSY, name="a\nb")], queues=[Queue("m\x1b[31m", 1234, 12, failed=10)])
    shown = screen(snapshot, problems(snapshot), 60, None, plainly)
    assert all(len(line) <= 60 and line.isprintable() for line in shown)
    assert shown[:2] == ["rqmem: running", "1 worker (1 busy), 1,234 queued, 12 started, 10 failed"]
    assert shown[4].split() == ["workers", "state", "usage", "of", "ceiling", "jobs", "breaches", "up"]
    assert shown[5].split() == [r"a\nb", "busy", "39", "%", "of", "256", "412", "3", "2", "h"]


def test_nothing_is_wrong() -> None:
    assert problems(WELL) == []
    assert healthy([])


RUN = Run(
    job="jobs.mail.Send", job_id="1f3a9c20", queue="mail", worker="ada", ended_at=NOW, outcome="MemoryLimitExceeded",
    seconds=3.0, initial_mb=20, peak_mb=271.3, limit_mb=256, layer="watch",
)  # fmt: skip
BREACHED = JobType("jobs.mail.Send", Tally(runs=9, breaches={"watch": 2, "kernel": 1}), RUN)
LEAKING = JobType(
    "jobs.mail.Send", Tally(runs=90, leaks=2, leak_mb=0.04),
    last_leak=Alert("1-1", NOW, "memory-leak", "raised", "jobs.mail.Send", "1f3a9c20", "mail", "ada",
                    "leaks 1.2 MB a run: dict +900 (2 MB)"),
)  # fmt: skip


FULL = Pool(
    pool="p", host="h", at=NOW, workers=1, least_workers=1, most_workers=1, budget_mb=100, reserved_mb=90, usage_mb=50,
    waiting=3, waiting_since=NOW - 5, read_at=NOW,
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ({"workers": []}, "no-workers", "problem: no worker is running, and 3 jobs wait -> rqmem worker mail"),
        ({"workers": [], "queues": []}, "no-workers", "problem: no worker is running -> rqmem worker"),
        ({"suspended": True}, "suspended", "problem: RQ is suspended: no worker takes a job, and 3 jobs wait -> 'rq r"),
        (
            {"queues": [Queue("big one", 1)]},
            "unserved-queue",
            "problem: 1 job waits in queue 'big one', which no worker serves -> rqmem worker 'big one'",
        ),
        ({"workers": [BUSY]}, "busy-queue", "note: 3 jobs wait in queue 'mail': its only worker is busy -> another"),
        ({"workers": [BUSY, BUSY]}, "busy-queue", "all its 2 workers are busy"),
        (
            {"workers": [BUSY, replace(BUSY, name="p-1")], "pools": [FULL]},
            "busy-queue",
            "all its 2 workers are busy",
        ),
        (
            {"queues": [Queue("mail", 0, scheduled=4, due=2)]},
            "no-scheduler",
            "problem: jobs scheduled for queue 'mail' are due (2), and no worker moves them there "
            "-> rqmem worker mail --",
        ),
        (
            {"workers": [IDLE, replace(BUSY, kind="silent", host="h", pid=7, live=None, job_id="abc")]},
            "silent-worker",
            "problem: worker bob (pid 7 on h) is registered and has not been heard of for two heartbeats -> see "
            "whether that process and its machine live; its job abc is taken over by another rqmem worker",
        ),
        (
            {"workers": [replace(BUSY, live=live("bob", 240)), IDLE]},
            "near-ceiling",
            "note: jobs.mail.Send uses 94 % of its 256 MB: it is stopped at the ceiling -> rqmem inspect 1f3a9c20-1",
        ),
        (
            {"job_types": [BREACHED]},
            "breaches",
            "problem: 3 breaches of jobs.mail.Send lately (the last: peak 271.3 of 256 MB) -> raise its ceiling or "
            "let it work in chunks; rqmem inspect 1f3a9c20",
        ),
        (
            {"job_types": [replace(BREACHED, tally=replace(BREACHED.tally, chunks=4))]},
            "breaches",
            "of 256 MB) -> raise its ceiling or lower chunk_size; rqmem inspect 1f3a9c20",
        ),
        (
            {"job_types": [LEAKING]},
            "leak",
            "problem: jobs.mail.Send leaks 1.2 MB a run: dict +900 (2 MB) -> something outlives its runs (a global, a "
            "cache without bound); horses are replaced meanwhile; rqmem inspect 1f3a9c20",
        ),
        (
            {"job_types": [replace(LEAKING, last_leak=None)]},
            "leak",
            "problem: jobs.mail.Send leaks 20 KB a run -> something outlives its runs (a global, a cache",
        ),
        (
            {"open_alerts": [Open("usage", "jobs.mail.Send", NOW, "ada", "above 80 %")]},
            "alert",
            "problem: open alert usage of jobs.mail.Send: above 80 % -> rqmem alerts",
        ),
        (
            {"journal_error": "the journal has version 9"},
            "journal-version",
            "problem: the journal has version 9 -> use the rqmem that wrote it, or forget it",
        ),
        ({"dropped": {"runs": 1200, "events": 3}}, "journal-dropped", "take everything: 3 events, 1,200 runs -> "),
        ({"memory": RedisMemory(1, 9 * MB, "allkeys-lru")}, "eviction", "(maxmemory-policy allkeys-lru) -> CONFIG SET"),
        (
            {"memory": RedisMemory(95 * MB, 100 * MB, "noeviction")},
            "redis-full",
            "95 % of its maxmemory (100 MB) -> when it",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_what_is_wrong_and_what_to_do(change: dict[str, Any], name: str, words: str) -> None:
    found = said(replace(WELL, **change), name)
    assert words in f"{found.mark}: {found.text} -> {found.advice}"
    assert healthy([found]) == (found.mark == "note")


@pytest.mark.parametrize(
    "change",
    [
        {"workers": [BUSY, IDLE]},
        {"queues": [Queue("mail", 0, scheduled=4, due=2, scheduler=1)]},
        {"workers": [IDLE, replace(BUSY, live=live("bob", 229))]},
        {"job_types": [replace(BREACHED, tally=Tally(runs=9, breaches={"watch": 2}))]},
        {"memory": RedisMemory(89 * MB, 100 * MB, "noeviction")},
        {"memory": None},
        {"workers": [replace(BUSY, name="p-1")], "pools": [FULL]},
    ],
    ids=[
        "one is idle",
        "a scheduler",
        "below 90 %",
        "two breaches",
        "below 90 % of Redis",
        "INFO forbidden",
        "a pool has no room",
    ],
)
def test_what_is_not_wrong(change: dict[str, Any]) -> None:
    assert problems(replace(WELL, **change)) == []


def test_problems_stand_before_notes_and_one_cause_is_told_once() -> None:
    both = replace(WELL, workers=[BUSY], open_alerts=[Open("usage", "x", NOW, "ada", "t")])
    assert [each.mark for each in problems(both)] == ["problem", "note"]
    assert [each.name for each in problems(replace(WELL, workers=[]))] == ["no-workers"]
    assert [each.name for each in problems(replace(WELL, workers=[BUSY], suspended=True))] == ["suspended"]


# The screen


def many(count: int) -> Snapshot:
    workers = [replace(BUSY, name=f"machine-{number}-ab12") for number in range(count)]
    queues = [Queue(f"queue{number}", 1) for number in range(count)]
    types = [
        JobType(f"jobs.a_package.a_module.Job{number}", Tally(runs=5, breaches={"watch": 3})) for number in range(9)
    ]
    return replace(WELL, workers=workers, queues=queues, job_types=types)


def test_a_small_setup_fits_on_80_by_24() -> None:
    types = [replace(BREACHED, job_type=f"jobs.reports.of.many.words.RebuildOfTheIndex{number}") for number in range(2)]
    snapshot = replace(WELL, workers=[BUSY, IDLE], queues=[Queue("mail", 14), Queue("reports", 0, 1)], job_types=types)
    shown = screen(snapshot, problems(snapshot), 80, 24, plainly)
    assert len(shown) <= 24
    assert max(map(len, shown)) <= 80
    text = "\n".join(shown)
    assert "rqmem: running   2 workers (1 busy), 14 queued, 1 started, 0 failed" in text
    assert "39 % of 256" in text and "jobs.mail.Send 1f3a9c20, at items 1-50, 50 items done, 14 s" in text
    assert "more" not in text


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (60, 30), (200, 50)])
def test_a_large_setup_is_shortened_where_there_is_most_and_troubles_last(columns: int, rows: int) -> None:
    snapshot = many(40)
    shown = screen(snapshot, problems(snapshot), columns, rows, plainly)
    assert max(map(len, shown)) <= columns
    assert len(shown) <= max(rows, 30)  # two of each table stay
    counted = [int(line.split()[1]) for line in shown if line.startswith("  and ")]
    assert counted and all(counted)
    assert "what is wrong" in shown
    assert len(screen(snapshot, problems(snapshot), columns, None, plainly)) > 100


def test_workers_that_nothing_is_known_of() -> None:
    workers = [Worker("stock", "rq", "busy", ("mail",), job_id="abc", jobs=9), replace(BUSY, kind="silent", live=None)]
    text = "\n".join(screen(replace(WELL, workers=workers), [], 80, None, plainly))
    assert "not watched (rq's own)" in text and "  job abc" in text
    assert text.index("silent") < text.index("stock")
    assert "nothing is wrong" in text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-1, "0.0 s"), (0.44, "0.4 s"), (9.96, "9 s"), (61, "61 s"), (185, "3 min"), (7300, "2 h"), (2e5, "2 d")],
)
def test_spans_of_time(seconds: float, shown: str) -> None:
    assert span(seconds) == shown


# One job

WHOSE = {"job": "jobs.mail.Send", "job_id": "1f3a", "queue": "mail", "worker": "ada"}


def breach(at_mb: float = 271.3, **more: Any) -> events.Breach:
    return events.Breach(
        **WHOSE, used_mb=at_mb, limit_mb=256, peak_mb=274, layer="watch", processes=1, operation="items 9-16", **more
    )


def checkpoint(mb: float, name: str = "loaded", peak_mb: float | None = None) -> events.Checkpoint:
    return events.Checkpoint(
        **WHOSE, operation=name, current_memory_mb=mb, peak_memory_mb=peak_mb or mb, memory_limit_mb=256
    )


def started(mb: float = 20) -> events.JobStarted:
    return events.JobStarted(**WHOSE, memory_mb=mb, memory_limit_mb=256)


def ended(outcome: str = "ok") -> events.RunEnded:
    return events.RunEnded(
        **WHOSE, outcome=outcome, initial_memory_mb=20, peak_memory_mb=130, final_memory_mb=30, memory_limit_mb=256,
        freed_mb=0, collections=0, chunks=4, duration_seconds=4, items=16,
    )  # fmt: skip


def rq_row(status: str, call: str, queue: str, worker: str = "", **more: Any) -> JobRow:
    return JobRow("1f3a", status, "", call, queue, worker, **more)


RESUMED = events.Resumed(**WHOSE, cause="breach", cursor="8", chunk_size=4, resumes=1, max_resumes=30, spent=1)
STORY = [
    Told(NOW, started()), Told(NOW + 1, checkpoint(60)), Told(NOW + 2, breach()), Told(NOW + 2, RESUMED),
    Told(NOW + 60, started()), Told(NOW + 63, checkpoint(90, "items 9-12", 120)), Told(NOW + 64, ended()),
]  # fmt: skip
CASE = Case("1f3a", NOW + 100, rq_row("finished", "jobs.mail.Send(7)", "mail", "ada"), told=STORY, breaches=[breach()])


def test_what_follows_from_a_story() -> None:
    assert (CASE.job, CASE.call, CASE.queue, CASE.worker) == ("jobs.mail.Send", "jobs.mail.Send(7)", "mail", "ada")
    assert (CASE.executions, CASE.breached, CASE.resumes) == (2, 1, 1)
    assert (CASE.outcome, CASE.error, CASE.well, CASE.ceiling_mb, CASE.peak_mb) == ("ok", "", True, 256, 274)
    assert (CASE.began_at, CASE.ended_at) == (NOW, NOW + 64)
    assert CASE.last_checkpoint is not None and CASE.last_checkpoint.operation == "items 9-12"


def test_that_a_job_waits_for_its_children_is_no_error() -> None:
    case = Case(
        "1f3a", NOW, rq_row("deferred", "jobs.mail.Send(7)", "mail"), runs=[replace(RUN, outcome="ok", layer="")]
    )
    assert (case.outcome, case.error) == ("ok, goes on", "")


def test_between_two_executions_a_job_goes_on() -> None:
    waiting = replace(CASE, told=STORY[:4], in_rq=rq_row("queued", "", "mail", position=2))
    assert waiting.goes_on and waiting.well and waiting.ended_at is None
    assert outlook(waiting) == (
        "number 3 in queue 'mail'; then goes on from cursor 8 with chunk size 4 (resume 1, 1 of 30 spent)"
    )


OWNER = Owner("x1", "ada", "mail", "h", 1, 1)
SILENT = {"owner": OWNER, "silent": True}
RESUMED = {"record": RunRecord(on_breach="resume")}


@pytest.mark.parametrize(
    ("in_rq", "more", "words", "well"),
    [
        (None, {}, "nothing: it ended, and RQ has forgotten it", True),
        (rq_row("finished", "", "mail"), {}, "nothing: it is finished", True),
        (rq_row("failed", "", "mail"), {}, "nothing by itself; 'rqmem retry 1f3a' runs it again", False),
        (rq_row("stopped", "", "mail"), {}, "it is stopped; 'rqmem retry 1f3a' runs it again", False),
        (rq_row("canceled", "", "mail"), {}, "nothing: it is canceled", False),
        (rq_row("deferred", "", "mail", waits_for=("a", "b")), {"told": []}, "waits for a, b", True),
        (rq_row("scheduled", "", "mail", due_at=NOW + 900), {"told": []}, "moved to queue 'mail' at 20", True),
        (rq_row("scheduled", "", "mail", due_at=NOW), {"told": []}, "does a worker run --with-scheduler?", True),
        (rq_row("started", "", "mail", "ada"), {"owner": OWNER}, "runs on ada", True),
        (rq_row("started", "", "mail", "ada"), SILENT | RESUMED, "takes the job", False),
        (rq_row("started", "", "mail", "ada"), SILENT, "another rqmem worker ends the job", False),
        (rq_row("started", "", "mail", "ada"), {"silent": True}, "RQ fails the job when its heartbeat has run", False),
    ],
    ids=str,
)  # fmt: skip
def test_what_becomes_of_a_job(in_rq: JobRow | None, more: dict[str, Any], words: str, well: bool) -> None:
    case = replace(CASE, in_rq=in_rq, **more)
    assert words in outlook(case)
    assert case.well is well


def test_a_job_that_gave_up_says_why() -> None:
    reason = "item 12 does not fit alone"
    told = [*STORY[:3], Told(NOW + 2, events.GaveUp(**WHOSE, cause="breach", reason=reason, resumes=3))]
    case = replace(CASE, told=told, in_rq=None, runs=[RUN])
    assert (case.error, case.well, case.outcome) == (reason, False, "MemoryLimitExceeded")


def test_a_function_has_no_story_and_its_runs_tell() -> None:
    case = Case("1f3a", NOW, runs=[RUN], record=RunRecord())
    assert (case.executions, case.peak_mb, case.ceiling_mb, case.queue, case.job) == (1, 271.3, 256, "mail", RUN.job)
    first, last = lines(case)
    assert (first.at, first.memory_mb, first.text) == (NOW - 3, 20, "started on ada")
    assert (last.text, last.mood) == ("ended MemoryLimitExceeded after 3.0 s, peak 271.3 MB", "bad")


def test_every_event_has_a_line() -> None:
    """No kind of event is left to its bare name, but those that are about no job."""
    whose = {**WHOSE}
    values = {"str": "x", "float": 1.0, "int": 1, "bool": True, "Layer": "watch"}
    for kind in events.CATALOGUE.values():
        fields = {name: values[f.type] for name, f in kind.__dataclass_fields__.items() if f.type in values}
        [line] = lines(replace(CASE, told=[Told(NOW, kind(**{**fields, **whose}))], record=RunRecord(job="j"), runs=[]))
        assert line.text and (line.text != kind.__name__ or kind in (events.WorkerFull, events.WorkerRestarted)), kind


@pytest.mark.parametrize(
    ("job_id", "shown"),
    [
        ("6c9736c4-f7b7-48f6-a653-d7dd8fd209c5", "6c9736c4"),
        ("6c9736c4-f7b7-48f6-a653-d7dd8fd209c5-child-12-child-3", "6c9736c4-child-12-child-3"),
        ("nightly", "nightly"),
    ],
)
def test_a_short_id_tells_children_apart(job_id: str, shown: str) -> None:
    assert short_id(job_id) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(-1, "+0.0 s"), (12.34, "+12.3 s"), (187, "+3:07"), (3727, "+1:02:07")])
def test_offsets(seconds: float, shown: str) -> None:
    assert offset(seconds) == shown


def test_the_whole_story_fits_its_width() -> None:
    for columns in (60, 80, 133):
        text = story(CASE, columns, plainly)
        assert max(map(len, text)) <= columns
    joined = " ".join(" ".join(text).split())
    for words in (
        "2 executions, 1 breach, 1 resume",
        "memory over time",
        "BREACH: used 271.3 MB of 256 MB at 'items 9-16'",
        "+1:04",
    ):
        assert words in joined
    assert "\n".join(story(CASE, 80, plainly, plain=True)).isascii()


# Which job is meant


def test_ids_and_their_beginnings() -> None:
    known = {"1f3a", "1f3b", "2c", "2c9"}
    assert named("1f3a", known) == "1f3a"
    assert named("2c", known) == "2c", "an id that others begin with"
    assert named("2c9", known) == "2c9"
    assert named("3", known) is None
    with pytest.raises(UnknownName, match=r"'1f' is the beginning of 2 job ids: give more of it: 1f3a, 1f3b$"):
        named("1f", known)
    with pytest.raises(UnknownName, match="and 1 more"):
        named("", known)


PARENT = "1f3a9c20-04c2-4a53-a4f5-6f6e21d8d7c5"
FAMILY = {PARENT, *(f"{PARENT}-child-{number}" for number in range(12)), f"{PARENT}-child-3-child-0", "2c9a"}


def test_a_job_that_has_split_is_found_by_the_beginning_that_logs_show() -> None:
    assert named("1f3a9c20", FAMILY) == PARENT
    assert named("1f3a9c20", FAMILY - {PARENT}) == PARENT, "also where it is forgotten, and its children are not"
    assert named("1f", FAMILY) == PARENT
    for job_id in FAMILY:
        assert named(short_id(job_id), FAMILY) == job_id, "as the log shows it"
    with pytest.raises(UnknownName, match="is the beginning of 2 job ids"):
        named("1f3a9c20", {*FAMILY, "1f3a9c20-another"} - {f"{PARENT}-child-{n}" for n in range(12)}
              - {f"{PARENT}-child-3-child-0"})  # fmt: skip
    with pytest.raises(UnknownName, match="is the beginning of"):
        named(f"{PARENT}-child-1", FAMILY - {f"{PARENT}-child-1"})


# A screen of very much


def very_much(count: int, wrong: bool) -> Snapshot:
    kind: Kind = "silent" if wrong else "rqmem"
    workers = [
        replace(BUSY, name=f"worker-{n}", host=f"host-{n}", kind=kind if n % 2 else "rqmem", live=live(f"worker-{n}"))
        for n in range(count)
    ]
    queues = [Queue("mail", 3), *(Queue(f"q{n}", n * wrong, due=wrong * (n % 3)) for n in range(count))]
    tally = Tally(runs=9, failed=float(wrong), breaches={"watch": 4.0} if wrong else {})
    types = [JobType(f"jobs.Type{n}", tally) for n in range(count)]
    alerts = [Open("memory-usage", f"jobs.Type{n}", NOW, "ada", "uses much " * 9) for n in range(count * wrong)]
    return replace(WELL, workers=workers, queues=queues, job_types=types, open_alerts=alerts)


@pytest.mark.parametrize("wrong", [False, True])
def test_very_much_is_one_screen(wrong: bool) -> None:
    snapshot = very_much(1000, wrong)
    found = problems(snapshot)
    for columns, rows in itertools.product((60, 100), (24, 50)):
        shown = screen(snapshot, found, columns, rows, plainly)
        assert len(shown) <= rows + 4 * wrong  # the worst trouble is told, however little room there is
        assert all(len(line) <= columns for line in shown)
        told = "\n".join(shown)
        assert ("more, all well" in told) == (not wrong)
        if wrong:
            assert re.search(r"and \d{3} more, \d{3} not heard of", told)
            assert re.search(r"and \d,\d{3} more, \S*\d{3} \S+, \S*\d{3} \S+", told), "of what kinds the others are"
    whole = of_snapshot(snapshot, found)
    assert len(whole["workers"]) == 1000 and len(whole["problems"]) == len(found)


def test_the_worst_are_shown() -> None:
    workers = [replace(IDLE, name=f"w{n}") for n in range(1000)]
    workers[700] = replace(BUSY, name="full", live=live("full", usage_mb=250))
    workers[900] = replace(workers[900], name="gone", kind="silent", live=None)
    snapshot = replace(WELL, workers=workers)
    told = "\n".join(screen(snapshot, problems(snapshot), 100, 24, plainly))
    assert "\nfull " in told and "\ngone " in told and re.search(r"and 9\d\d more, all well", told)


def test_no_advice_names_a_thousand_queues() -> None:
    snapshot = replace(WELL, workers=[], queues=[Queue(f"q{n}", 1) for n in range(1000)])
    [nobody] = [each for each in problems(snapshot) if each.name == "no-workers"]
    assert nobody.advice == "rqmem worker q0 q1 q2 q3 q4 and 995 more queues"


def test_a_text_of_many_mb_takes_some_lines() -> None:
    text = "x y" * 10_000_000
    snapshot = replace(WELL, open_alerts=[Open("memory-usage", text, NOW, "ada", text)], queues=[Queue(text, 3)])
    assert len(screen(snapshot, problems(snapshot), 100, None, plainly)) < 40


# The plot


def test_executions_stand_apart_and_peaks_are_not_lost() -> None:
    first, second = executions(CASE)
    assert [point.memory_mb for point in first.points] == [20, 60, 271.3]
    assert [point.memory_mb for point in second.points] == [20, 120, 90, 130, 30]
    assert second.points[1].at == NOW + 61.5, "halfway between the readings around it"


def test_a_breach_brings_its_curve_but_not_what_was_before_its_execution() -> None:
    curve = [(14_481.8, 0.0), (5.0, 200.0), (0.5, 150.0), (0.2, 220.0)]
    told = [Told(NOW, started()), Told(NOW + 2, breach(curve=curve))]
    [drawn] = executions(replace(CASE, told=told))
    assert [point.memory_mb for point in drawn.points] == [20, 150, 220, 271.3]


def test_the_peak_of_a_breach_is_where_its_curve_has_it_and_not_halfway_too() -> None:
    """The run's end is told first, with a peak that no reading had yet; the breach's curve comes after it."""
    end = replace(ended("MemoryLimitExceeded"), peak_memory_mb=271.3, final_memory_mb=250)
    told = [Told(NOW, started()), Told(NOW + 8, end), Told(NOW + 8.1, breach(curve=[(6, 100.0), (0.2, 260.0)]))]
    [drawn] = executions(replace(CASE, told=told))
    assert [point.memory_mb for point in drawn.points] == [20, 100, 260, 250, 271.3]


def test_one_reading_is_no_plot() -> None:
    assert executions(replace(CASE, told=STORY[:1])) == []
    assert plot([], 256, 80) == []
    assert plot([[Point(0, 1), Point(1, 2)]], 256, 5) == []


def test_the_plot_shows_ceiling_breach_and_break() -> None:
    text = plot([each.points for each in executions(CASE)], 256, 60)
    assert len(text) == 9 and max(map(len, text)) <= 60
    [ceiling] = [line for line in text if "╌" in line]
    assert ceiling.startswith(" 256 MB ")
    assert text[0].startswith(" 271 MB ") and "█" in ceiling, "the breach goes through the ceiling"
    assert sum("╎" in line for line in text) == 8
    assert text[-1].split() == ["0", "s", "6.0", "s", "at", "work,", "2", "executions"]
    assert text[-2].endswith(tuple("▁▂▃▄▅▆▇█"))


@given(
    st.lists(
        st.lists(st.tuples(st.floats(0, 1e6), st.floats(0.1, 1e5)), min_size=2, max_size=20), min_size=1, max_size=5
    ),
    st.none() | st.floats(0.1, 1e5),
    st.integers(40, 200),
)
def test_any_plot_is_nine_lines_that_fit(
    drawn: list[list[tuple[float, float]]], limit: float | None, width: int
) -> None:
    segments = [sorted((Point(at, mb) for at, mb in points), key=lambda point: point.at) for points in drawn]
    segments = [points for points in segments if points[-1].at - points[0].at > 0.01]
    text = plot(segments, limit, width)
    assert len(text) == (9 if segments else 0)
    assert all(len(line) <= width for line in text)
    assert (
        any("█" in line for line in text)
        or not segments
        or max(p.memory_mb for s in segments for p in s) < (limit or 0)
    )


def test_what_users_code_says_moves_no_cursor() -> None:
    case = replace(
        CASE, in_rq=rq_row("failed", "jobs.mail.Send('\x1b[2J')", "mail", error="ValueError: \x1b[31mred\x07")
    )
    assert all(line.isprintable() for line in story(case, 100, plainly))
