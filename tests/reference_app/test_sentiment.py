"""Calls are scored once and agents' figures are right: by real workers, at once, killed, split; odd transcripts."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq.job import Job, JobStatus
from sqlalchemy import delete, event, func, insert, select
from sqlalchemy.engine import Engine
from sqlalchemy.orm import defer

from jobs.database import open_database, session_factory
from jobs.sentiment import AnalyzeCallSentimentJob, record, summary
from jobs.sentiment_scores import CallScore, analyzer, compound, days, score_call
from jobs.tables import Agent, AgentSentiment, Call, CallSentiment
from jobs.unscored_calls import LONG_CHARACTERS, length
from jobs.unscored_calls import transcripts as read_transcripts
from rqmem.errors import ConfigError
from rqmem.store import execution_reader
from rqmem.store.history import history_reader
from rqmem.testing import wait_until
from seeds.transcripts import FIRST_DAY, agents, transcripts
from tests.conftest import StartWorker, WorkOff

JOB = "jobs.sentiment.AnalyzeCallSentimentJob"
BEAT = {"RQMEM_HEARTBEAT": "0.5"}


def put(database: Engine, rows: Iterable[dict[str, Any]]) -> None:
    """Calls, and on the first time their agents."""
    with database.begin() as connection:
        if connection.scalar(select(func.count()).select_from(Agent)) == 0:
            connection.execute(insert(Agent), list(agents()))
        connection.execute(insert(Call), list(rows))


def call(transcript: str | None, form: str = "text", agent_id: int = 1, day: int = 0) -> dict[str, Any]:
    started_at = FIRST_DAY + timedelta(days=day)
    return {
        "agent_id": agent_id, "started_at": started_at, "transcript_format": form, "transcript": transcript
    }  # fmt: skip


def scored(database: Engine) -> int:
    with database.connect() as connection:
        return connection.scalar(select(func.count()).select_from(CallSentiment)) or 0


def stored(database: Engine) -> dict[int, CallSentiment]:
    with session_factory(database)() as session:
        return {each.call_id: each for each in session.scalars(select(CallSentiment))}


def assert_each_call_scored_once(database: Engine) -> None:
    """Each call's scores are those of its transcript in one piece; figures are what they are when made from scratch."""
    rows = stored(database)
    series: dict[tuple[int, str], list[tuple[float, float]]] = defaultdict(list)
    with session_factory(database)() as session:
        calls = {each.id: each for each in session.scalars(select(Call)) if each.transcript is not None}
        known = {(each.agent_id, each.voice): each for each in session.scalars(select(AgentSentiment))}
    assert rows.keys() == calls.keys()
    for each in calls.values():
        expected, row = score_call(each, [each.transcript or ""]), rows[each.id]
        assert (row.outcome, row.problem, row.sentences) == (expected.outcome, expected.problem, expected.sentences)
        assert row.score == expected.scores.get("all")
        assert (row.agent_score, row.customer_score) == (expected.scores.get("agent"), expected.scores.get("customer"))
        for voice, score in (("all", row.score), ("agent", row.agent_score), ("customer", row.customer_score)):
            if score is not None:
                series[each.agent_id, voice].append((days(each.started_at), score))
    assert known.keys() == series.keys()
    for key, points in series.items():
        assert_figures(known[key], points)


def assert_figures(found: AgentSentiment, points: list[tuple[float, float]]) -> None:
    """By Python's own statistics, which go over all points again."""
    moments, (times, scores) = found.moments, zip(*points, strict=True)
    assert moments.count == len(points)
    assert moments.mean == pytest.approx(statistics.fmean(scores), rel=1e-9, abs=1e-12)
    if len(points) > 1:
        assert moments.variance == pytest.approx(statistics.variance(scores), rel=1e-7, abs=1e-12)
        assert moments.slope == pytest.approx(statistics.linear_regression(times, scores).slope, rel=1e-6, abs=1e-12)
    else:
        assert moments.variance is None


def enqueue(connection: Redis) -> Job:
    return AnalyzeCallSentimentJob.enqueue(connection=connection)


@contextmanager
def nobody_can_write(database: Engine) -> Iterator[None]:
    """Whoever wants to write a score waits."""
    with database.connect() as connection:
        if database.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql("LOCK TABLE call_sentiments IN SHARE ROW EXCLUSIVE MODE")
        yield
        connection.rollback()


def wait_until_about_to_write(connection: Redis, *workers: str) -> None:
    """A chunk is scored and not yet written, in each of these workers."""

    def waiting() -> bool:
        lives = history_reader.workers(connection, workers)
        return [live.job.operation for live in lives if live.job] == ["sentiment_analysis"] * len(workers)

    wait_until(waiting)


# On workers


def test_calls_are_scored_and_a_second_run_finds_nothing_to_do(
    connection: Redis, database: Engine, work_off: WorkOff
) -> None:
    put(database, [*transcripts(7, 120), call(None)])
    first, second = enqueue(connection), enqueue(connection)
    log = work_off("analysis", "--log-level", "debug")
    assert first.return_value() == second.return_value() == summary(session_factory(database)), log
    assert first.return_value()["scored"] + first.return_value()["empty"] == scored(database) == 120
    assert [items_of(connection, job) for job in (first, second)] == [120, 0]
    for checkpoint in ("sentiment_analysis", "metrics_updates"):
        assert f"at {checkpoint}\n" in log
    assert_each_call_scored_once(database)


def items_of(connection: Redis, job: Job) -> int:
    """How many calls it dealt with."""
    return sum(execution_reader.run(connection, job.id).items.values())


def test_two_workers_at_once_count_each_call_once(
    connection: Redis, database: Engine, start_worker: StartWorker
) -> None:
    put(database, transcripts(11, 160))
    jobs = [enqueue(connection), enqueue(connection)]
    with nobody_can_write(database):
        workers = [start_worker("analysis", "--burst", "--name", name, **BEAT) for name in ("ada", "ben")]
        wait_until_about_to_write(connection, "ada", "ben")
    logs = [worker.finish() for worker in workers]
    assert [job.get_status() for job in jobs] == [JobStatus.FINISHED] * 2, logs
    assert sum(items_of(connection, job) for job in jobs) > 160  # both had the same calls
    assert_each_call_scored_once(database)


def test_a_killed_worker_and_another_one_count_each_call_once(
    connection: Redis, database: Engine, start_worker: StartWorker
) -> None:
    put(database, transcripts(5, 400))
    job = enqueue(connection)
    with nobody_can_write(database):
        worker = start_worker("analysis", "--name", "ada", **BEAT)
        wait_until_about_to_write(connection, "ada")
        worker.kill()
    assert scored(database) == 0
    worker = start_worker("analysis", **BEAT)
    wait_until(lambda: scored(database) > 0)
    worker.kill()
    start_worker("analysis", **BEAT)
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    assert scored(database) == 400
    assert_each_call_scored_once(database)


def test_a_split_run_finds_what_an_unsplit_one_finds(
    connection: Redis, database: Engine, start_worker: StartWorker, tmp_path: Path
) -> None:
    put(database, transcripts(9, 120))
    config = tmp_path / "rqmem.ini"
    config.write_text(f"[job {JOB}]\nsplit_above_items = 100\nitems_per_child = 50\n")
    job = enqueue(connection)
    start_worker("analysis", "--burst", RQMEM_CONFIG=str(config)).finish()
    assert AnalyzeCallSentimentJob.progress(job.id, connection).total == 3
    assert job.return_value() == summary(session_factory(database))
    assert_each_call_scored_once(database)


def test_ten_megabytes_are_read_in_pieces_and_empty_or_broken_ones_are_an_outcome(
    connection: Redis, database: Engine, work_off: WorkOff
) -> None:
    listed = f"The list is this: {'item ' * 70}. "
    said = [("agent", listed), ("user", "I love it. But the bill is wrong! Why?")] * 24_000
    turns = [{"role": role, "content": words} for role, words in said]
    text, as_json = "".join(f"{role.capitalize()}: {words}\n" for role, words in said), json.dumps(turns)
    one_turn = json.dumps([{"role": "user", "content": listed * 29_000}])
    assert min(len(text), len(as_json), len(one_turn)) > 10**7
    put(database, [
        call(text),
        call(as_json, "json"),
        call(one_turn, "json"),
        call(as_json[:-5], "json"),
        call(""),
        call("[ ]", "json"),
        call("Agent: \nUser:\n"),
        call('{"role": "agent"}', "json"),
        call('[{"role": "agent", "content": "Fine."}, {"role": "user", "content": 7}]', "json"),
        call("Agent: Good.\nUser: Bad.\n"),
    ])  # fmt: skip
    job = enqueue(connection)
    log = work_off("analysis")
    assert job.get_status() == JobStatus.FINISHED, log
    run = execution_reader.run(connection, job.id)
    assert (run.breaches, run.chunks) == (0, 1)
    assert run.peak_mb < 110  # all four at once would take as much again as the job
    rows = [row for _, row in sorted(stored(database).items())]
    assert [(row.outcome, row.sentences, row.problem) for row in rows] == [
        ("scored", 96_000, None),
        ("scored", 96_000, None),
        ("scored", 29_000, None),
        ("unreadable", 0, "broken JSON: parse error: premature EOF"),
        ("empty", 0, None),
        ("empty", 0, None),
        ("empty", 0, None),
        ("unreadable", 0, "its JSON is no list of turns"),
        ("unreadable", 0, "turn 2 of its JSON has no content"),
        ("scored", 2, None),
    ]
    love, bill = compound("I love it."), compound("But the bill is wrong!")
    assert rows[0].customer_score == rows[1].customer_score == pytest.approx((love + bill) / 3)
    assert rows[0].agent_score == rows[1].agent_score == rows[2].score == 0


# Without workers


def _record_and_die(url: str, score: CallScore, statements: int) -> None:
    """Dies of SIGKILL after so many statements, or after the commit."""
    engine = open_database(url)
    seen: list[str] = []

    def die(*about: Any) -> None:
        seen.append("one more")
        if len(seen) == statements:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(engine, "after_cursor_execute", die)
    record(session_factory(engine), [score])
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("statements", "committed"), [(1, False), (2, False), (3, True)])
def test_a_score_and_its_share_in_the_figures_are_there_together_or_not_at_all(
    database: Engine, database_url: str, statements: int, committed: bool
) -> None:
    put(database, [call("Agent: Good.")])
    database.dispose()
    score = CallScore(1, 1, FIRST_DAY, "scored", {"all": 0.5, "agent": 0.25}, 2)
    process = multiprocessing.get_context("fork").Process(
        target=_record_and_die, args=(database_url, score, statements)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert scored(database) == len(figures(database)) / 2 == int(committed)
    assert record(session_factory(database), [score]) == int(not committed)
    assert figures(database) == [("agent", 1, 0.25), ("all", 1, 0.5)]


def figures(database: Engine) -> list[tuple[str, int, float]]:
    """Of the first agent: voice, count and mean."""
    with session_factory(database)() as session:
        rows = session.scalars(select(AgentSentiment).order_by(AgentSentiment.voice))
        return [(row.voice, row.count, row.mean) for row in rows]


READ_THROUGH = """
from pathlib import Path
from jobs.sources import shared_sessions
from jobs.unscored_calls import transcripts, unscored_calls
calls = [call for call, _ in unscored_calls().items_after(None)]
print(sum(len(piece) for _, pieces in transcripts(shared_sessions(), calls) for piece in pieces))
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
"""


@pytest.mark.skipif(not hasattr(sqlite3.Connection, "blobopen"), reason="SQLite's values in pieces need Python 3.11")
@pytest.mark.usefixtures("database_url")
def test_reading_takes_no_more_for_a_longer_transcript(database: Engine) -> None:
    """A load test with 1,000,000 calls took a third more than one with 10,000: its longest was longer."""
    peaks_mb = []
    for megabytes in (2, 30):
        with database.begin() as connection:
            connection.execute(delete(Call))
        put(database, [call("word " * (megabytes * 200_000))])
        done = subprocess.run([sys.executable, "-c", READ_THROUGH], capture_output=True, text=True, check=True)
        characters, peak_kb = done.stdout.split()
        assert int(characters) == megabytes * 10**6
        peaks_mb.append(int(peak_kb) / 1024)
    assert peaks_mb[1] < peaks_mb[0] + 20


@pytest.mark.usefixtures("called_here")
def test_a_chunk_costs_the_same_queries_however_large_it_is(database: Engine) -> None:
    put(database, transcripts(13, 220))
    with session_factory(database)() as session:
        calls = list(session.scalars(select(Call).order_by(Call.id)))
    job = AnalyzeCallSentimentJob()
    job.sessions = session_factory(database)
    assert all(length(each) <= LONG_CHARACTERS for each in calls)
    statements: list[str] = []

    def count(connection: Any, cursor: Any, statement: str, parameters: Any, *about: Any) -> None:
        statements.extend([statement] * (len(parameters) if isinstance(parameters, list) else 1))

    event.listen(database, "before_cursor_execute", count)
    for chunk in calls[:20], calls[20:]:
        job.score_all(chunk)
        assert [statement.split()[0] for statement in statements] == ["SELECT", "INSERT", "INSERT"]
        reading = statements[0]
        statements.clear()
    job.score_all(calls)
    assert statements == [reading]  # which says that all are scored
    assert scored(database) == 220


def test_of_calls_that_are_read_together_those_between_them_are_left_out(database: Engine) -> None:
    put(database, map(call, ["Agent: One.", "Agent: Two.", "Agent: Three."]))
    with session_factory(database)() as session:
        first, _, last = session.scalars(select(Call).order_by(Call.id))
    found = read_transcripts(session_factory(database), [first, last])
    assert {each.id: "".join(pieces) for each, pieces in found} == {first.id: "Agent: One.", last.id: "Agent: Three."}


def test_a_long_transcript_is_one_query_for_each_piece(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in ("LONG_CHARACTERS", "CUT_OFF_CHARACTERS"):
        monkeypatch.setattr(f"jobs.unscored_calls.{each}", 100)
    texts = ["é" * 100, "b" * 250, "", "d" * 60, "e" * 60, "f" * 300, "日" * 99]
    put(database, map(call, texts))
    with session_factory(database)() as session:
        calls = list(session.scalars(select(Call).order_by(Call.id)))
    read = read_transcripts(session_factory(database), calls)
    pieces = {call.id: list(found) for call, found in read}
    assert ["".join(pieces[call.id]) for call in calls] == texts
    assert [len(pieces[call.id]) for call in calls] == [1, 3, 1, 1, 1, 3, 1]


@pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)
def test_bytes_that_are_no_text_stop_no_other_call(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite takes any, and reading them as text raised an error: for the whole chunk, and for ever."""
    put(database, map(call, ["Agent: One.", "Agent: Two.", "long"]))
    monkeypatch.setattr("jobs.unscored_calls.LONG_CHARACTERS", 100)
    with database.begin() as connection:
        for call_id, text in (2, "User: Sch\xf6n."), (3, "User: Sch\xf6n. " * 10):
            statement = "UPDATE calls SET transcript = CAST(? AS TEXT) WHERE id = ?"
            connection.exec_driver_sql(statement, (text.encode("latin-1"), call_id))
    with session_factory(database)() as session:
        calls = list(session.scalars(select(Call).options(defer(Call.transcript)).order_by(Call.id)))
    read = {call.id: "".join(pieces) for call, pieces in read_transcripts(session_factory(database), calls)}
    assert read == {1: "Agent: One.", 2: "User: Sch\ufffdn.", 3: "User: Sch\ufffdn. " * 10}


@pytest.mark.usefixtures("called_here")
def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ijson", None)
    analyzer.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install 'rqmem\[sentiment\]'$"):
        AnalyzeCallSentimentJob().handle()
