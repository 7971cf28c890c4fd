"""What a worker remembers for others, read as commands read it."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from rqmem import events
from rqmem.observe.job_read import read_case
from rqmem.policy import histogram
from rqmem.store import execution_reader, executions, keys
from rqmem.store.alerts.alert_records import Alert
from rqmem.store.alerts.alert_writer import raise_alert
from rqmem.store.history import history_reader, history_writer
from rqmem.store.history.history_records import Grown, Run
from rqmem.store.history.kept_types import KEPT_TYPES, OTHERS, kept_as
from rqmem.store.history.known_peaks import KnownPeaks
from rqmem.store.history.samples import RINGS
from rqmem.store.keys import DAY_SECONDS, HOUR_SECONDS
from rqmem.testing import wait_until
from tests import sample_jobs
from tests.conftest import ROOT, StartWorker, WorkOff, wait_for_key

SQUARES, PLAIN = "tests.sample_jobs.Squares", "tests.sample_jobs.Plain"


def told(connection: Redis, job_id: str) -> list[str]:
    return [type(each.event).__name__ for each in history_reader.story(connection, job_id)]


def last_hour(connection: Redis, job_type: str) -> history_reader.Tally:
    now = time.time()
    return history_reader.tally(connection, job_type, now - HOUR_SECONDS, now)


def a_run(job: str, ended_at: float, **more: Any) -> Run:
    values = {"job_id": "j", "queue": "q", "worker": "w", "seconds": 1, "initial_mb": 20, "peak_mb": 30, **more}
    return Run(job=job, ended_at=ended_at, outcome="ok", limit_mb=256, **values)


def test_a_run_stands_in_the_journal(connection: Redis, work_off: WorkOff) -> None:
    job = sample_jobs.Plain.enqueue(number=1, connection=connection)
    log = work_off("plain", "--memory", "256", "--name", "ada")
    [run] = history_reader.runs(connection, PLAIN)
    assert (run.job_id, run.queue, run.worker, run.outcome, run.limit_mb) == (job.id, "plain", "ada", "ok", 200)
    assert 0 < run.initial_mb <= run.peak_mb < 200
    assert told(connection, job.id) == ["JobStarted", "Checkpoint", "RunEnded"]
    story = history_reader.story(connection, job.id)
    assert all(before.at <= after.at for before, after in pairwise(story))
    assert story[0].event.queue == "plain" and story[0].event.worker == "ada" and story[0].event.job == PLAIN
    assert last_hour(connection, PLAIN).runs == 1
    ended = story[-1].event
    assert isinstance(ended, events.RunEnded) and f"{ended.peak_memory_mb:.1f} peak" in log, "log and journal agree"
    assert run.peak_mb >= ended.peak_memory_mb, "RQ stores the result after the job has told its end"
    assert list(history_reader.types(connection)) == [PLAIN]


def test_functions_are_remembered_too(connection: Redis, work_off: WorkOff) -> None:
    queue = Queue(connection=connection)
    for _ in range(3):
        queue.enqueue("tests.sample_jobs.add", 1)
    failing = queue.enqueue("tests.sample_jobs.add", "x")
    work_off()
    runs = history_reader.runs(connection, "tests.sample_jobs.add")
    assert [run.outcome for run in runs] == ["TypeError", "ok", "ok", "ok"]
    assert runs[0].job_id == failing.id and runs[0].peak_mb > 0
    tally = last_hour(connection, "tests.sample_jobs.add")
    assert (tally.runs, tally.failed, tally.breached) == (4, 1, 0)
    assert sum(tally.peaks.values()) == sum(tally.durations.values()) == 4


def test_a_breach_its_resume_and_the_end(connection: Redis, work_off: WorkOff) -> None:
    job = sample_jobs.Squares.enqueue(count=24, item_mb=30, heavy_from=8, connection=connection)
    work_off("--memory", "200")
    assert job.latest_result().return_value == [n * n for n in range(24)]
    last, first = history_reader.runs(connection, SQUARES)
    assert (first.outcome, first.resumed, first.chunks, first.layer != "") == ("MemoryLimitExceeded", True, 1, True)
    assert (last.outcome, last.resumed, last.items, last.largest_chunk) == ("ok", False, 16, 4)
    assert first.peak_mb > 200 >= last.peak_mb
    assert last.mb_per_item == pytest.approx(30, abs=3)
    names = told(connection, job.id)
    assert names.count("JobStarted") == 2 and names.count("Breach") == 1 and names.count("Resumed") == 1
    assert names.index("Breach") < names.index("Resumed") < names.index("RunEnded", names.index("Resumed"))
    tally = last_hour(connection, SQUARES)
    assert (tally.runs, tally.failed, tally.resumed, tally.breached, tally.items) == (2, 0, 1, 1, 24)
    assert (histogram.percentile(tally.peaks, 1.0) or 0) >= first.peak_mb
    costs = history_reader.decayed_costs(connection, SQUARES, time.time())
    assert sum(costs.values()) == pytest.approx(2, abs=0.1)  # ages count from the middle of the hour


@pytest.mark.parametrize(
    ("path", "outcome", "layer"),
    [
        ("tests.sample_jobs.grow_in_c", "MemoryLimitExceeded", ("kill", "kernel")),
        ("tests.sample_jobs.grow_lists", "MemoryLimitExceeded", ("watch",)),
        ("tests.sample_jobs.killed_by_somebody", "HorseLost", ("",)),
    ],
)
def test_other_ends(connection: Redis, work_off: WorkOff, path: str, outcome: str, layer: tuple[str, ...]) -> None:
    job = Queue(connection=connection).enqueue(path)
    work_off("--memory", "128")
    [run] = history_reader.runs(connection, path)
    assert (run.job_id, run.outcome, run.resumed) == (job.id, outcome, False)
    assert run.layer in layer
    assert told(connection, job.id).count("Breach") == (layer != ("",))


def test_who_may_not_go_on_is_told(connection: Redis, work_off: WorkOff) -> None:
    job = sample_jobs.Squares.enqueue(count=4, item_mb=300, heavy_from=2, connection=connection)
    log = work_off("--memory", "200")
    told_events = [each.event for each in history_reader.story(connection, job.id)]
    [gave_up] = [event for event in told_events if isinstance(event, events.GaveUp)]
    assert "does not fit alone" in gave_up.reason, log
    assert last_hour(connection, SQUARES).failed == 1


def test_a_running_job_is_seen(connection: Redis, start_worker: StartWorker) -> None:
    Queue(connection=connection).enqueue("tests.sample_jobs.say_hello_and_sleep", 600)
    worker = start_worker("--memory", "128", "--name", "ada")
    wait_for_key(connection, "asleep")

    def live_job() -> object:
        lives = history_reader.workers(connection, ["ada", "nobody"])
        return lives and lives[0].job is not None and lives[0].job.usage_mb and lives[0].job.job

    wait_until(lambda: live_job() == "tests.sample_jobs.say_hello_and_sleep")
    [live] = history_reader.workers(connection, ["ada"])
    assert (live.pid, live.limit_mb, live.queues) == (worker.pid, 128, ["default"])
    assert live.job is not None and 0 < live.job.usage_mb <= live.job.peak_mb < live.job.limit_mb == 128
    assert live.horse_pid == int(connection.get("asleep") or 0)
    wait_until(lambda: len(history_reader.samples(connection, "ada", time.time())) >= 2)
    for ring in RINGS:
        newest = history_reader.samples(connection, "ada", time.time(), ring)[-1]
        assert newest.usage_mb > 0 and newest.limit_mb == 128 and newest.worker_mb > 0
        assert newest.at % ring.step_seconds == 0


def test_a_journal_of_another_version_is_left_alone(connection: Redis, work_off: WorkOff) -> None:
    connection.set(keys.VERSION, "99")
    sample_jobs.Plain.enqueue(number=1, connection=connection)
    log = work_off("plain")
    assert log.count("the journal on this Redis is of another version of rqmem and is left alone") == 1
    assert history_reader.runs(connection, PLAIN) == []
    with pytest.raises(history_reader.JournalVersionError, match="has version 99, this rqmem reads 1"):
        history_reader.check_version(connection)


def test_a_journal_that_is_refused_harms_no_job(connection: Redis, work_off: WorkOff) -> None:
    connection.set(keys.runs(PLAIN), "not a list")
    job = sample_jobs.Plain.enqueue(number=1, connection=connection)
    log = work_off("plain")
    assert job.get_status() == "finished"
    assert "Redis refused" in log and "Traceback" not in log
    assert told(connection, job.id), "what is not refused is written"


def test_without_a_journal_there_is_none(connection: Redis, work_off: WorkOff) -> None:
    sample_jobs.Plain.enqueue(number=1, connection=connection)
    work_off("plain", RQMEM_JOURNAL="off")
    assert history_reader.size(connection) == {}


def test_five_thousand_job_types_stay_within_64_mb(connection: Redis) -> None:
    types, begin = 5000, time.time() - 40 * DAY_SECONDS
    lines = tuple((9.0, f"a line of code, the {number}th, of some length {'x' * 60}") for number in range(8))
    history_writer.version_is_ours(connection)
    for day in range(3):
        now = begin + day * DAY_SECONDS
        for start in range(0, types, 500):
            numbers = range(start, start + 500)
            names = {number: f"jobs.generated.of_some_length.Job{number}" for number in numbers}
            runs = [
                a_run(names[n], now, job_id=f"job{n}", seconds=n % 60, peak_mb=30 + n % 200, items=9, largest_chunk=3)
                for n in numbers
            ]
            alerts = {(names[n], rule): 1 for n in numbers for rule in ("memory-usage", "ceiling-exceeded")}
            kept = kept_as(connection, names.values(), now)
            with connection.pipeline(transaction=False) as pipeline:
                history_writer.write_runs(pipeline, runs, alerts, now, kept=kept)
                grown = [Grown(names[n], f"job{n}", "w", time.time(), 99.0, 256, lines) for n in numbers]
                history_writer.write_grown(pipeline, grown, kept)
                pipeline.execute()
            for n in numbers[:50]:
                whose = {"job": names[n], "job_id": f"job{n}", "queue": "q", "worker": "w"}
                raise_alert(connection, Alert("", now, "memory-usage", "raised", **whose, text="x"), 300, can_end=False)
            history_writer.trim(connection)
    size = history_reader.size(connection)
    assert sum(taken for _, taken in size.values()) < 16 * 2**20, size
    known = history_reader.types(connection)
    assert len(known) <= KEPT_TYPES and OTHERS in known
    for family, most in (("tally", 2 * 3), ("totals", 1), ("runs", 1), ("grew", 2)):
        assert size[family][0] <= most * KEPT_TYPES, (family, size[family])
    assert sum(each.runs for each in history_reader.totals(connection, known).values()) == 3 * types, "none is lost"
    assert size["alerts"][0] <= KEPT_TYPES + 2


def test_a_type_that_runs_each_night_keeps_its_place(connection: Redis) -> None:
    now = time.time()

    def see(*names: str, at: float) -> dict[str, str]:
        kept = kept_as(connection, names, at)
        with connection.pipeline() as pipeline:
            for name in names:
                run = a_run(name, at)
                history_writer.write_runs(pipeline, [run], {}, at, kept=kept)
            pipeline.execute()
        return kept

    early = now - 3 * DAY_SECONDS
    see("once", at=early - 9)
    see("nightly", *(f"type{number}" for number in range(KEPT_TYPES - 3)), at=early)
    for night in range(1, 3):
        at = early + night * DAY_SECONDS
        assert see(f"new{night}", at=at - 60)[f"new{night}"] == (OTHERS if night == 1 else "new2")
        assert see("nightly", at=at)["nightly"] == "nightly"
    known = history_reader.types(connection)
    assert "nightly" in known and "once" not in known and "new2" in known
    others = history_reader.totals(connection, [OTHERS])[OTHERS]
    assert others.runs == 2, "new1, and once, which has made room for new2"
    assert history_reader.tally(connection, OTHERS, early - DAY_SECONDS, now).runs == 2
    assert kept_as(connection, ["", OTHERS], now) == {}


def test_runs_of_types_beyond_the_bound_are_told_by_their_own_name(connection: Redis, work_off: WorkOff) -> None:
    connection.zadd(keys.TYPES, {f"type{number}": time.time() for number in range(KEPT_TYPES)})
    job = Queue(connection=connection).enqueue("tests.sample_jobs.add", 1)
    work_off()
    assert [run.job for run in history_reader.runs(connection, OTHERS)] == ["tests.sample_jobs.add"]
    case = read_case(connection, job.id, time.time())
    assert (case.job, len(case.runs), case.outcome) == ("tests.sample_jobs.add", 1, "ok")


def test_the_journal_does_not_grow_for_ever(connection: Redis) -> None:
    now, last = time.time(), 2 * history_writer.KEPT_STORIES - 1
    for start in range(0, last + 1, 100):
        with connection.pipeline(transaction=False) as pipeline:
            for number in range(start, start + 100):
                run = a_run(f"type{number}", now, job_id=f"job{number}", worker=f"w{number}")
                times = 110 if number == last else 3
                history_writer.write_runs(pipeline, [run] * times, {}, now)
                line = {"at": now, "job": "x", "event": "JobStarted"}
                history_writer.write_story(pipeline, f"job{number}", [line] * times, now + number)
            pipeline.execute()
        history_writer.trim(connection)
    for _ in range(20):
        history_writer.trim(connection)
    size = history_reader.size(connection)
    assert size["story:*"[:5]][0] == history_writer.KEPT_STORIES
    types = history_reader.types(connection)
    assert size["runs"][0] + 1 == len(types) == KEPT_TYPES and OTHERS in types
    assert history_reader.totals(connection, [OTHERS])[OTHERS].runs == 3 * (1600 - (KEPT_TYPES - 1)) + 107
    assert connection.llen(keys.story(f"job{last}")) == history_writer.KEPT_STORY_LINES
    assert all(connection.ttl(key) > 0 for key in connection.scan_iter(f"{keys.PREFIX}:tally:*"))


def test_runs_that_redis_refuses_to_read_say_nothing_of_peaks(connection: Redis) -> None:
    """A worker whose heartbeat came during the job logged a traceback."""
    connection.set(keys.runs(PLAIN), "not a list")
    assert KnownPeaks().of(connection, PLAIN, 40.0, time.time()) == 0


def test_a_breach_is_kept_once_and_the_story_refers_to_it(connection: Redis, work_off: WorkOff) -> None:
    job = Queue(connection=connection).enqueue(sample_jobs.grow_lists)
    log = work_off("--memory", "100")
    [kept] = execution_reader.breaches(connection, job.id)
    [told] = [each.event for each in history_reader.story(connection, job.id) if isinstance(each.event, events.Breach)]
    assert told == kept and kept.curve and kept.execution, log
    lines = [json.loads(line) for line in connection.lrange(keys.story(job.id), 0, -1)]
    [line] = [line for line in lines if line["event"] == "Breach"]
    assert set(line) == {"at", "event", *events.WHOSE, "execution"}


def test_a_story_tells_all_breaches_of_a_job_and_the_newest_keep_their_evidence(connection: Redis) -> None:
    numbers = range(executions.KEPT_EVIDENCE + 3)
    whose = {"job": SQUARES, "job_id": "j", "queue": "q", "worker": "w"}
    for number in numbers:
        breach = events.Breach(
            **whose, used_mb=300.25 + number, limit_mb=256, peak_mb=310.5, layer="watch", processes=1, operation="",
            curve=[(0.5, 300.0)], execution=f"e{number}",
        )  # fmt: skip
        for _ in range(2):  # the reply to the first was lost
            executions.save_breach(connection, breach)
        with connection.pipeline() as pipeline:
            history_writer.write_story(pipeline, "j", [history_writer.story_line(number, breach)], number)
            pipeline.execute()
    told = [each.event for each in history_reader.story(connection, "j")]
    assert [each.used_mb for each in told if isinstance(each, events.Breach)] == [300.25 + each for each in numbers]
    assert [bool(each.curve) for each in told if isinstance(each, events.Breach)] == [False] * 3 + [True] * 8
    assert [each.execution for each in execution_reader.breaches(connection, "j")] == [f"e{n}" for n in numbers[:2:-1]]


def test_a_story_of_before_breaches_were_referred_to_is_read(connection: Redis) -> None:
    written = json.loads((ROOT / "tests" / "unit" / "texts_in_redis.json").read_text())
    connection.rpush(keys.story("j"), *written["story"])
    connection.lpush(keys.breaches("j"), written["texts"]["Breach"])
    assert told(connection, "j") == ["JobStarted", "Breach", "LeakFound", "Resumed", "RunEnded"]
    [kept] = execution_reader.breaches(connection, "j")
    [shown] = [each.event for each in history_reader.story(connection, "j") if isinstance(each.event, events.Breach)]
    assert shown == kept.without_evidence()


def test_breaches_of_a_job_that_had_the_id_before_are_in_its_story_only(connection: Redis) -> None:
    whose = {"job": SQUARES, "job_id": "j", "queue": "q", "worker": "w"}
    breach = events.Breach(
        **whose, used_mb=300, limit_mb=256, peak_mb=310, layer="watch", processes=1, operation="", execution="e0"
    )
    executions.save_breach(connection, breach)
    with connection.pipeline() as pipeline:
        history_writer.write_story(pipeline, "j", [history_writer.story_line(1.0, breach)], 1.0)
        pipeline.execute()
    assert execution_reader.breaches(connection, "j") == [breach]
    opening = executions.opening(SQUARES, "fail", "", "now", "e1")
    executions.RunWriter(connection, "j", "e1").open(opening, anew=True)
    assert execution_reader.breaches(connection, "j") == []
    assert told(connection, "j") == ["Breach"]
