"""Assigning staff in bulk: files that are fine and files that are not; split, killed, run twice, and side by side."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rq import Queue, Repeat
from rq.job import Job, JobStatus
from sqlalchemy import event, func, insert, select
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from jobs import assignment_store as store
from jobs.assignment_rules import Held, Line, Skip, decide, parse
from jobs.assignment_sources import Positioned, assignments_from
from jobs.database import session_factory
from jobs.staff import BulkAssignStaffToEventTypesJob
from jobs.tables import (
    AssignmentRequest,
    AssignmentRun,
    AssignmentSkip,
    EventType,
    Staff,
    StaffAssignment,
    StagedAssignment,
    utc_now,
)
from rqmem.errors import ConfigError
from rqmem.sources import CsvFile, JsonLines, describe_slice, open_slice
from rqmem.store import execution_reader
from rqmem.testing import wait_until
from seeds import assignments as seeds
from tests.conftest import StartWorker
from tests.reference_app.campaign_jobs import counted
from tests.reference_app.held_jobs import HOLD_DIRECTORY, HeldAssignments, SplitAssignments

STAFF, EVENT_TYPES, LINES = 60, 24, 900
COLUMNS = ("staff", "event_type", "role")


def lines(count: int = LINES, seed: int = 7) -> list[dict[str, str]]:
    return list(seeds.assignments(seed, count, staff_count=STAFF, event_type_count=EVENT_TYPES))


def write_csv(path: Path, rows: Iterable[Mapping[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def office(database: Engine) -> Engine:
    """A database with staff and event types."""
    with database.begin() as connection:
        connection.execute(insert(Staff), list(seeds.staff(7, STAFF)))
        connection.execute(insert(EventType), list(seeds.event_types(7, EVENT_TYPES)))
    return database


# What ought to come out, worked out the plain way: a line after the other, everything in memory.


class Expected:
    """``assignments``: staff and event type to role. ``reasons``: how many lines were skipped for which reason."""

    def __init__(self, rows: Iterable[Mapping[str, str]], before: Mapping[tuple[str, str], str] | None = None) -> None:
        active = {each["email"]: each["active"] for each in seeds.staff(7, STAFF)}
        groups = {each["slug"]: each["exclusive_group"] for each in seeds.event_types(7, EVENT_TYPES)}
        self.assignments = dict(before or {})
        self.reasons: Counter[str] = Counter()
        seen: set[tuple[str, str]] = set()
        for row in rows:
            pair = (row["staff"], row["event_type"])
            reason = self._reason(row, pair, active, groups, seen)
            if reason:
                self.reasons[reason] += 1
            else:
                self.assignments[pair] = row["role"]
            if reason in ("", "conflict"):
                seen.add(pair)

    def _reason(
        self, row: Mapping[str, str], pair: tuple[str, str], active: Any, groups: Any, seen: set[tuple[str, str]]
    ) -> str:
        staff, event_type = pair
        if not staff or row["role"] not in ("host", "assistant", "backup"):
            return "malformed"
        if staff not in active:
            return "unknown staff"
        if event_type not in groups:
            return "unknown event type"
        if not active[staff]:
            return "inactive staff"
        if pair in seen:
            return "duplicate"
        group = groups[event_type]
        rivals = {theirs for who, theirs in self.assignments if who == staff and groups[theirs] == group}
        return "conflict" if group and pair not in self.assignments and rivals else ""


def assignments(database: Engine) -> dict[tuple[str, str], str]:
    query = select(Staff.email, EventType.slug, StaffAssignment.role).join_from(StaffAssignment, Staff).join(EventType)
    with database.connect() as connection:
        return {(email, slug): role for email, slug, role in connection.execute(query)}


def count(database: Engine, table: Any) -> int:
    with database.connect() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def reported(database: Engine, job_id: str) -> Counter[str]:
    with database.connect() as connection:
        query = select(AssignmentSkip.reason).join(AssignmentRun, AssignmentRun.run == AssignmentSkip.run)
        return Counter(connection.execute(query.where(AssignmentRun.job == job_id)).scalars())


def assert_applied_once(database: Engine, job: Job, expected: Expected) -> None:
    """Assignments, report and figures are those of one run over the whole file; nothing is left over."""
    assert assignments(database) == expected.assignments
    assert reported(database, job.id) == expected.reasons
    assert job.return_value() == {
        "created": len(expected.assignments), "updated": 0, "unchanged": 0, "skipped": dict(expected.reasons),
    }  # fmt: skip
    assert count(database, StagedAssignment) == 0


# Lines


@pytest.mark.parametrize(
    ("record", "outcome"),
    [
        ({"staff": " Ann@X.example ", "event_type": " demo ", "role": ""}, ("ann@x.example", "demo", "host")),
        ({"staff": "a@x", "event_type": "demo"}, ("a@x", "demo", "host")),
        ({"staff": "a@x", "event_type": "demo", "role": "backup", "note": "x"}, ("a@x", "demo", "backup")),
        ({"staff": "", "event_type": "demo"}, "no staff"),
        ({"staff": "a@x", "event_type": None}, "no event_type"),
        ({"staff": 7, "event_type": "demo"}, "no staff"),
        ({"staff": "a@x", "event_type": "demo", "role": "hots"}, "role 'hots' is none of host, assistant, backup"),
        ({"staff": "a@x", "event_type": "demo", "role": ["host"]}, "is none of host, assistant, backup"),
        ({"staff": "a@x", "event_type": "demo", "role": 0}, "role '0' is none of host, assistant, backup"),
        ({"staff": "a@x", "event_type": "demo", "role": []}, "is none of host, assistant, backup"),
        ({"staff": "a@x", "event_type": "demo", "role": None}, ("a@x", "demo", "host")),
        ({"staff": "a@x", "event_type": "demo", "role": "host", None: ["x", "y"]}, "2 fields more"),
        ({"staff": "a@x\x00", "event_type": "demo"}, "cannot be shown"),
        ({"staff": "a\ud800@x", "event_type": "demo"}, "cannot be shown"),
        ({"staff": "a" * 201, "event_type": "demo"}, "longer than 200 characters"),
        (["a@x", "demo"], "a list and no object"),
        (None, "a NoneType and no object"),
    ],
)
def test_what_is_read_from_a_line(record: Any, outcome: Any) -> None:
    parsed = parse(12, record)
    if isinstance(outcome, tuple):
        assert parsed == Line(12, *outcome)
    else:
        assert isinstance(parsed, Skip)
        assert (parsed.position, parsed.reason) == (12, "malformed")
        assert outcome in parsed.detail
        for text in (parsed.staff, parsed.event_type, parsed.detail):
            assert text.isprintable()
            assert len(text) <= 300


def _staged(draws: list[tuple[int, int, str]]) -> list[Any]:
    """Lines as they come from the database: by staff, then as in the input; event types 0 to 2 exclude each other."""
    found, seen = [], set()
    for position, (staff_id, event_type_id, role) in enumerate(draws):
        found.append(
            SimpleNamespace(
                position=position, staff_id=staff_id, event_type_id=event_type_id, role=role, email=f"{staff_id}@x",
                slug=f"t{event_type_id}", exclusive_group="g" if event_type_id < 3 else None,
                repeated=(staff_id, event_type_id) in seen,
            )
        )  # fmt: skip
        seen.add((staff_id, event_type_id))
    return sorted(found, key=lambda line: (line.staff_id, line.position))


@given(
    draws=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.sampled_from(("host", "backup"))), max_size=40),
    cut=st.integers(1, 40),
)
def test_the_outcome_does_not_depend_on_the_chunks(draws: list[tuple[int, int, str]], cut: int) -> None:
    staged, active = _staged(draws), {0: True, 1: True}
    whole: dict[int, dict[int, Held]] = {0: {1: Held("t1", "g", "host")}}
    parts: dict[int, dict[int, Held]] = {0: {1: Held("t1", "g", "host")}}
    at_once = decide(staged, active, whole)
    by_chunk = [decide(staged[begin : begin + cut], active, parts) for begin in range(0, len(staged), cut)]
    assert whole == parts
    assert [skip for each in by_chunk for skip in each.skips] == at_once.skips
    assert sum(each.created for each in by_chunk) == at_once.created
    assert at_once.created + at_once.updated + at_once.unchanged + len(at_once.skips) == len(draws)
    for theirs in whole.values():
        groups = [each.exclusive_group for each in theirs.values() if each.exclusive_group]
        assert len(groups) == len(set(groups))
    assert all(skip.reason == "unknown staff" for skip in at_once.skips if skip.staff == "2@x")


def test_who_was_deleted_or_left_meanwhile_is_skipped() -> None:
    [gone, left, no_type] = _staged([(1, 3, "host"), (2, 3, "host"), (3, 4, "host")])
    no_type.slug = None
    decided = decide([gone, left, no_type], {2: False, 3: True}, {})
    assert [skip.reason for skip in decided.skips] == ["unknown staff", "inactive staff", "unknown event type"]


def test_the_database_keeps_the_rule_whoever_writes(office: Engine) -> None:
    rows = [{"staff_id": 1, "event_type_id": number, "exclusive_group": "g", "role": "host"} for number in (1, 2)]
    with pytest.raises(IntegrityError), office.begin() as connection:
        connection.execute(insert(StaffAssignment), rows)


# Files


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("items_per_slice", [1, 7, 40])
def test_positions_are_the_same_however_a_file_is_cut(tmp_path: Path, suffix: str, items_per_slice: int) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".csv":
        source = Positioned(CsvFile(write_csv(path, lines(60))))
    else:
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines(60)))
        source = Positioned(JsonLines(path))
    whole = [item for item, _ in source.items_after(None)]
    assert [record for _, record in whole] == lines(60)
    assert len({position for position, _ in whole}) == 60
    slices = [open_slice(json.loads(json.dumps(describe_slice(each)))) for each in source.slices(items_per_slice)]
    assert [item for each in slices for item, _ in each.items_after(None)] == whole
    cursor = list(source.items_after(None))[24][1]
    assert [item for item, _ in source.items_after(json.loads(json.dumps(cursor)))] == whole[25:]
    assert [item for item, _ in source.rest(cursor).items_after(None)] == whole[25:]
    assert [item for each in (slices[0], source.beyond(slices[0])) for item, _ in each.items_after(None)] == whole


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("email,event_type", "no column 'staff' among its columns ('email', 'event_type'): the first line must name"),
        ("staff,eventtype", "no column 'event_type' among its columns ('staff', 'eventtype'): rename 'eventtype'"),
        ("staff;event_type;role", "no column 'staff' among its columns ('staff;event_type;role')"),
        ("", "no column 'staff' among its columns (none)"),
        ("staff,event_type,staff", "two columns are called 'staff': which one counts?"),
    ],
)
def test_wrong_columns(tmp_path: Path, header: str, line: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\n")
    with pytest.raises(ConfigError) as failure:
        assignments_from(str(path), None)
    assert line in str(failure.value)


@pytest.mark.parametrize("begin", ["\ufeffstaff,event_type", "staff,role,event_type,note", "\n\nstaff,event_type"])
def test_columns_that_are_fine(tmp_path: Path, begin: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{begin}\n", encoding="utf-8")
    assignments_from(str(path), None)


# Queries


@pytest.mark.usefixtures("called_here")
def test_statements_do_not_grow_with_a_chunk(office: Engine, tmp_path: Path) -> None:
    job = BulkAssignStaffToEventTypesJob()
    job.sessions, job.run_id = session_factory(office), "a"
    with job.sessions.begin() as session:
        session.add(AssignmentRun(run="a", source="test"))
    numbered = list(enumerate(lines(900)))
    counts: dict[str, list[int]] = {"stage": [], "apply": []}
    for begin, end in ((0, 50), (50, 100), (100, 900)):
        with counted(office) as statements:
            job.stage(numbered[begin:end])
        counts["stage"].append(len(statements))
    with job.sessions() as session:
        staged = store.staged(job.sessions, job.run_id)._queries._rows
        found = list(session.execute(staged.order_by(StagedAssignment.staff_id, StagedAssignment.position)).all())
    for begin, end in ((0, 50), (50, 100), (100, len(found))):
        with counted(office) as statements:
            job.apply(found[begin:end])
        counts["apply"].append(len(statements))
    # Staff, event types; staged lines, skips. Then: take, lock, what they have; assignments, skips, figures.
    assert counts == {"stage": [4, 4, 4], "apply": [6, 6, 6]}


def test_what_was_staged_goes_a_few_lines_at_a_time_and_what_is_waited_for_stays(
    office: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "FORGOTTEN_AT_ONCE", 100)
    sessions, now = session_factory(office), utc_now()
    began = {"new": now, "waits": now - timedelta(days=89), "abandoned": now - timedelta(days=101)}
    deleted: list[int] = []

    @event.listens_for(office, "after_cursor_execute")
    def _note(connection: object, cursor: Any, statement: str, *rest: object) -> None:
        if statement.startswith("DELETE"):
            deleted.append(cursor.rowcount)

    for name, at in began.items():
        store.begin(sessions, name, "job", "file", at)
        with sessions.begin() as session:
            store.stage(session, name, [(Line(number, "a@x", "demo", "host"), 1, 1) for number in range(250)])
    assert store.begin(sessions, "new", "job", "file", now)
    assert deleted == [100, 100, 50]
    store.complete(sessions, "new", now)
    assert deleted == [100, 100, 50, 100, 100, 50]
    with office.connect() as connection:
        assert set(connection.execute(select(StagedAssignment.run)).scalars()) == {"waits"}
    assert not store.begin(sessions, "new", "job", "file", now)


# On workers


def run(start_worker: StartWorker, *options: str, **environ: str) -> str:
    return start_worker("staff", "--burst", *options, RQMEM_HEARTBEAT="0.5", **environ).finish()


def test_a_file_a_file_of_json_and_requests_say_the_same(
    connection: Redis, office: Engine, tmp_path: Path, start_worker: StartWorker
) -> None:
    rows, expected = lines(), Expected(lines())
    path = write_csv(tmp_path / "with a space.csv", rows)
    json_path = tmp_path / "a.jsonl"
    json_path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with office.begin() as write:
        write.execute(insert(AssignmentRequest), [{"batch": "may", **row} for row in rows])
        write.execute(insert(AssignmentRequest), [{"batch": "june", **row} for row in lines(5, seed=8)])
    arguments: list[dict[str, str]] = [{"path": str(path)}, {"path": str(json_path)}, {"batch": "may"}]
    jobs = [BulkAssignStaffToEventTypesJob.enqueue(connection=connection, **each) for each in arguments]
    log = run(start_worker, "--memory", "512", "--log-level", "debug")
    first, *others = jobs
    assert_applied_once(office, first, expected)
    for job in others:
        assert job.return_value() == {
            "created": 0, "updated": 0, "unchanged": len(expected.assignments), "skipped": dict(expected.reasons),
        }  # fmt: skip
        assert reported(office, job.id) == expected.reasons
    assert "at assignment_processing_" in log
    assert "at database_operations_" in log
    assert all(execution_reader.run(connection, job.id).peak_mb < 256 for job in jobs)
    details = _details(office, first.id)
    assert details["unknown staff"].startswith("nobody has the address nobody.")
    assert details["duplicate"] == "an earlier line is for the same two"
    assert ", and both are of group-" in details["conflict"]


def _details(database: Engine, job_id: str) -> dict[str, str]:
    with database.connect() as connection:
        query = select(AssignmentSkip.reason, AssignmentSkip.detail)
        query = query.join(AssignmentRun, AssignmentRun.run == AssignmentSkip.run).where(AssignmentRun.job == job_id)
        return dict(connection.execute(query).all())


def test_another_file_changes_roles_and_what_is_there_comes_first(
    connection: Redis, office: Engine, tmp_path: Path, start_worker: StartWorker
) -> None:
    first, second = Expected(lines(400)), Expected(lines(400, seed=9), Expected(lines(400)).assignments)
    paths = [write_csv(tmp_path / "1.csv", lines(400)), write_csv(tmp_path / "2.csv", lines(400, seed=9))]
    jobs = [BulkAssignStaffToEventTypesJob.enqueue(path=str(path), connection=connection) for path in paths]
    run(start_worker)
    assert assignments(office) == second.assignments
    figures = jobs[1].return_value()
    assert figures["created"] == len(second.assignments) - len(first.assignments)
    changed = sum(second.assignments[pair] != role for pair, role in first.assignments.items())
    assert figures["updated"] == changed > 0
    assert figures["skipped"] == second.reasons


def test_a_job_that_repeats_does_what_its_file_says_each_time(
    connection: Redis, office: Engine, tmp_path: Path, start_worker: StartWorker
) -> None:
    expected = Expected(lines(100, seed=9), Expected(lines(100)).assignments)
    path = write_csv(tmp_path / "a.csv", lines(100))
    repeat = Repeat(times=1, interval=3600)
    job = BulkAssignStaffToEventTypesJob.enqueue(path=str(path), connection=connection, repeat=repeat)
    run(start_worker)
    write_csv(path, lines(100, seed=9))
    Queue("staff", connection=connection).enqueue_job(job)  # its hour has come
    run(start_worker)
    assert assignments(office) == expected.assignments
    assert job.return_value(refresh=True)["skipped"] == expected.reasons
    assert reported(office, job.id) == Expected(lines(100)).reasons + expected.reasons, "a report for each time"


def test_split_over_two_workers_of_which_one_is_killed(
    connection: Redis, office: Engine, tmp_path: Path, start_worker: StartWorker
) -> None:
    path = write_csv(tmp_path / "a.csv", lines())
    job = SplitAssignments.enqueue(path=str(path), connection=connection)
    mark, environ = tmp_path / "staged", {HOLD_DIRECTORY: str(tmp_path), "RQMEM_HEARTBEAT": "0.5"}
    workers = [start_worker("staff", **environ) for _ in range(2)]
    wait_until(mark.exists)
    [worker] = [each for each in workers if each.pid == int(mark.read_text())]
    worker.kill()
    wait_until(lambda: job.get_status(refresh=True) == JobStatus.FINISHED)
    assert_applied_once(office, job, Expected(lines()))
    assert SplitAssignments.progress(job.id, connection).total >= 5


def test_killed_where_it_matters_most_each_line_counts_once(
    connection: Redis, office: Engine, tmp_path: Path, start_worker: StartWorker
) -> None:
    path = write_csv(tmp_path / "a.csv", lines(400))
    job = HeldAssignments.enqueue(path=str(path), connection=connection)
    environ = {HOLD_DIRECTORY: str(tmp_path), "RQMEM_HEARTBEAT": "0.5"}
    for place in ("staged", "written", "applied"):
        worker = start_worker("staff", **environ)
        wait_until((tmp_path / place).exists)
        worker.kill()
    start_worker("staff", **environ)
    wait_until(lambda: job.get_status(refresh=True) == JobStatus.FINISHED)
    assert_applied_once(office, job, Expected(lines(400)))
    assert execution_reader.run(connection, job.id).resumes == 3


def test_the_same_file_by_two_workers_at_once(
    connection: Redis, office: Engine, tmp_path: Path, start_worker: StartWorker
) -> None:
    rows = lines()
    shuffled = random.Random(3).sample(rows, len(rows))
    paths = [write_csv(tmp_path / "1.csv", rows), write_csv(tmp_path / "2.csv", shuffled)]
    jobs = [SplitAssignments.enqueue(path=str(path), connection=connection) for path in (*paths, paths[0])]
    (tmp_path / "staged").touch()  # hold nobody
    environ = {HOLD_DIRECTORY: str(tmp_path), "RQMEM_HEARTBEAT": "0.5"}
    workers = [start_worker("staff", "--burst", **environ) for _ in range(2)]
    logs = [worker.finish() for worker in workers]
    wait_until(lambda: all(job.get_status(refresh=True) == JobStatus.FINISHED for job in jobs))
    figures = [job.return_value() for job in jobs]
    found = assignments(office)
    assert sum(each["created"] for each in figures) == len(found), logs
    for each in figures:
        assert each["created"] + each["updated"] + each["unchanged"] + sum(each["skipped"].values()) == len(rows)
    groups = {each["slug"]: each["exclusive_group"] for each in seeds.event_types(7, EVENT_TYPES)}
    held = Counter((staff, groups[slug]) for staff, slug in found if groups[slug])
    assert set(held.values()) == {1}
    ordinary = {pair for pair in Expected(rows).assignments if not groups[pair[1]]}
    assert {pair for pair in found if not groups[pair[1]]} == ordinary
    assert count(office, StagedAssignment) == 0


@pytest.mark.parametrize("empty_database_url", ["sqlite"], indirect=True)
def test_what_a_person_must_mend_is_one_line_and_changes_nothing(
    connection: Redis, office: Engine, tmp_path: Path, start_worker: StartWorker
) -> None:
    good = write_csv(tmp_path / "good.csv", lines(300)).read_bytes()
    files = {
        "columns.csv": b"who,what\n" + good,
        "encoding.csv": good + "Jürgen,x,host\n".encode("latin-1"),
        "line.csv": good + b"x" * (50 * 2**20) + b"\n",
        "quotes.csv": good + b'"' + b"x,y\n" * 50_000,
        "deep.jsonl": b"[" * 50_000 + b"\n",
        "a.xlsx": b"PK",
    }
    expected = {
        "columns.csv": "no column 'staff' among its columns ('who', 'what')",
        "encoding.csv": "not utf-8 (invalid start byte): name the encoding",
        "line.csv": "line.csv: the record at byte",
        "quotes.csv": "quotes.csv: the record at byte",
        "deep.jsonl": "no line of JSON: maximum recursion depth",
        "a.xlsx": "give a file of CSV (.csv) or of JSON lines (.jsonl)",
        "missing.csv": "missing.csv does not exist",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    enqueue = BulkAssignStaffToEventTypesJob.enqueue
    jobs = [enqueue(path=str(tmp_path / name), connection=connection) for name in expected]
    jobs += [enqueue(connection=connection), enqueue(batch="none", connection=connection)]
    log = run(start_worker)
    for line in (*expected.values(), "which assignments? give either path", "no requests of a batch 'none'"):
        assert log.count(line) == 1, (line, log)
    assert "Traceback" not in log
    assert [job.get_status() for job in jobs] == [JobStatus.FAILED] * len(jobs)
    assert count(office, StaffAssignment) == 0
    assert max(execution_reader.run(connection, job.id).peak_mb for job in jobs) < 128


# The seeds


def test_seeded_assignments_are_bad_in_all_ways() -> None:
    rows = lines(3000)
    reasons = Expected(rows).reasons
    bad = reasons["malformed"] + reasons["unknown staff"] + reasons["unknown event type"]
    assert 0.8 < bad / (seeds.BAD * len(rows)) < 1.2
    assert {"inactive staff", "duplicate", "conflict"} <= reasons.keys()
