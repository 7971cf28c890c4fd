"""seeds.large_dataset: the same rows however often it is cut off, skewed as promised, in the memory of one batch."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import re
import signal
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, timezone
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, event, func, insert, select, update
from sqlalchemy.orm import Session

from jobs.database import create_schema, open_database
from jobs.tables import Appointment, Base, Campaign, Customer
from jobs.tables.calls import Agent, Call
from rqmem.errors import RqmemError
from rqmem.testing import wait_until
from seeds import filling, ledger
from seeds.assignments import assignments, staff_email
from seeds.customers import customers
from seeds.dataset_parts import Wanted, parts
from seeds.filling import batches, fill_table
from seeds.large_dataset import main
from seeds.transcripts import facts, transcripts
from tests import forked
from tests.conftest import ROOT

PARTS = ("customers", "transcripts", "appointments", "assignments", "training-rows")
FEW = tuple(f"--{part}={count}" for part, count in zip(PARTS, (150, 30, 90, 130, 130), strict=True))
NONE = tuple(f"--{part}=0" for part in PARTS)
FILES = ("assignments.csv", "training-rows.csv")
NOT_MADE_UP = {"id", "campaign_id", "created_at"}  # numbers given, and times noted, by the database


def seed(url: str, folder: Path, *arguments: str) -> Result:
    options = ["--database-url", url, "--folder", str(folder), *arguments]
    return CliRunner().invoke(main, options, catch_exceptions=False)


def content(url: str, folder: Path) -> dict[str, Any]:
    """All made-up rows, in their order, and the bytes of the files."""
    engine = open_database(url)
    found: dict[str, Any] = {}
    with engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            columns = [column for column in table.columns if column.name not in NOT_MADE_UP]
            rows = connection.execute(select(*columns).order_by(*table.primary_key.columns)).all()
            found[table.name] = [tuple(row) for row in rows]
    engine.dispose()
    return found | {path.name: path.read_bytes() for path in folder.glob("*") if path.suffix != ".db"}


@pytest.fixture
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one run leaves that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    url = f"sqlite:///{folder}/whole.db"
    result = seed(url, folder, *FEW)
    assert result.exit_code == 0, result.output
    return {name: rows for name, rows in content(url, folder).items() if not name.startswith("whole.db")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "files"


# What is written


def test_what_is_stored_is_what_the_streams_yield(database_url: str, database: Engine, folder: Path) -> None:
    assert seed(database_url, folder, *FEW).exit_code == 0
    with Session(database) as session:
        stored = session.scalars(select(Customer).order_by(Customer.id)).all()
        fields = ("name", "phone", "country", "language", "notes")
        assert [{name: getattr(each, name) for name in fields} for each in stored] == list(customers(7, 150))
        calls = session.scalars(select(Call).order_by(Call.id)).all()
        assert [call.transcript for call in calls] == [row["transcript"] for row in transcripts(7, 30)]
        assert [call.started_at for call in calls] == [row["started_at"] for row in transcripts(7, 30)]
        assert session.scalars(select(Campaign.status)).all() == ["pending"]
        # PostgreSQL goes on counting after ids that were given.
        session.add(Agent(name="new"))
        session.commit()


def test_each_part_has_its_line(tmp_path: Path, folder: Path) -> None:
    result = seed(f"sqlite:///{tmp_path}/app.db", folder, *FEW)
    lines = [line.split(":")[0].split(" in ") for line in result.stdout.splitlines()]
    assert [(re.sub(r"\s+", " ", what), where.removeprefix(f"{folder}/")) for what, where in lines] == [
        ("customers 150", "table customers"),
        ("agents 40", "table agents"),
        ("transcripts 30", "table calls"),
        ("appointments 90", "table appointments"),
        ("staff 1,000", "table staff"),
        ("event types 60", "table event_types"),
        ("assignments 130", "assignments.csv"),
        ("training rows 130", "training-rows.csv"),
    ]
    assert result.stderr == ""


def test_0_leaves_a_part_out(tmp_path: Path, folder: Path) -> None:
    result = seed(f"sqlite:///{tmp_path}/app.db", folder, *NONE, "--appointments", "3")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["appointments"]
    assert list(folder.iterdir()) == []


def test_a_batch_is_bounded_in_rows_and_in_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "BATCH_ROWS", 5)
    monkeypatch.setattr(filling, "BATCH_BYTES", 100)
    texts = [1, 1, 1, 1, 1, 60, 60, 500, 1, 1]
    made = [[len(row["text"]) for row in batch] for batch in batches({"n": 1, "text": "x" * size} for size in texts)]
    assert made == [[1] * 5, [60, 60], [500], [1, 1]]


# Cut off


def _seed_and_die(url: str, folder: Path, after: int, arguments: tuple[str, ...]) -> None:
    """In a process of its own: what happens to the database and to file names is counted, and one is the last."""
    moments = count(1)

    def moment(*_: object) -> None:
        if next(moments) == after:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
        event.listen(Engine, name, moment)
    rename = Path.replace

    def replace(path: Path, target: Path) -> Path:
        moment()
        renamed = rename(path, target)
        moment()
        return renamed

    Path.replace = replace  # type: ignore[method-assign]
    filling.BATCH_ROWS = 40
    main(["--database-url", url, "--folder", str(folder), "--resume", *arguments])


def run_until_it_dies(url: str, folder: Path, after: int, *arguments: str) -> int:
    process = multiprocessing.get_context("fork").Process(target=_seed_and_die, args=(url, folder, after, arguments))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


@pytest.mark.parametrize("number", [1, 2])
def test_killed_again_and_again_it_leaves_what_one_run_leaves(
    empty_database_url: str, folder: Path, whole: dict[str, Any], number: int
) -> None:
    """Before and after any statement, commit and renaming: whatever the moments, each row is there once."""
    rng = Random(number)
    codes = [run_until_it_dies(empty_database_url, folder, rng.randrange(1, 260), *FEW)]
    while codes[-1] != 0:
        assert codes[-1] == -signal.SIGKILL
        assert len(codes) < 200, "it does not get on"
        codes.append(run_until_it_dies(empty_database_url, folder, rng.randrange(1, 260), *FEW))
    assert len(codes) > 3
    assert content(empty_database_url, folder) == whole


def test_killed_from_outside_in_the_middle(tmp_path: Path, folder: Path) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    options = ["--database-url", url, "--folder", str(folder), *NONE, "--customers", "20000", "--resume"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    engine = open_database(url)
    create_schema(engine, ledger.METADATA)
    process = forked.Popen([sys.executable, "-m", "seeds.large_dataset", *options], env=environ, cwd=tmp_path)

    def done() -> int:
        with engine.connect() as connection:
            return sum(entry.done for entry in ledger.entries(connection))

    try:
        wait_until(lambda: done() > 0 or process.poll() is not None)
    finally:
        process.kill()
        process.wait()
    with engine.connect() as connection:
        stored = connection.execute(select(func.count()).select_from(Customer)).scalar()
        assert stored == done() < 20_000
        assert connection.execute(select(Campaign.status)).scalars().all() == ["seeding"]
    assert seed(url, folder, *NONE, "--customers", "20000", "--resume").exit_code == 0
    with engine.connect() as connection:
        names = connection.execute(select(Customer.name, Customer.phone).order_by(Customer.id)).all()
        assert connection.execute(select(Campaign.status)).scalars().all() == ["pending"]
    assert [tuple(row) for row in names] == [(row["name"], row["phone"]) for row in customers(7, 20_000)]


def test_a_dataset_grows(database_url: str, folder: Path, whole: dict[str, Any]) -> None:
    smaller = ("--customers", "70", "--transcripts", "10", "--appointments", "45", "--assignments", "99")
    assert seed(database_url, folder, *smaller, "--training-rows", "1").exit_code == 0
    grown = seed(database_url, folder, *FEW, "--resume")
    assert grown.exit_code == 0, grown.output
    assert "150 in table customers: 80 of them now" in grown.stdout
    assert "40 in table agents: all of them from before" in grown.stdout
    assert content(database_url, folder) == whole


def test_appointments_stay_in_the_weeks_that_the_first_run_named(tmp_path: Path, folder: Path) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    assert seed(url, folder, *NONE, "--appointments", "20", "--appointments-from", "2026-03-20").exit_code == 0
    assert seed(url, folder, *NONE, "--appointments", "40", "--resume").exit_code == 0
    engine = open_database(url)
    with engine.connect() as connection:
        days = [begins.date() for begins in connection.scalars(select(Appointment.starts_at))]
    assert len(days) == 40
    assert date(2026, 3, 19) <= min(days) and max(days) <= date(2026, 4, 3), "in UTC"


def test_again_with_fewer_changes_nothing(tmp_path: Path, folder: Path, whole: dict[str, Any]) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    seed(url, folder, *FEW)
    again = seed(url, folder, *(f"--{part}=15" for part in PARTS), "--resume")
    assert again.exit_code == 0
    assert all(line.endswith("all of them from before") for line in again.stdout.splitlines())
    assert "150 in table customers" in again.stdout
    assert content(url, folder) == whole


@pytest.mark.parametrize("harm", ["deleted", "cut", "appended", "left as a part"])
def test_a_file_is_mended(tmp_path: Path, folder: Path, whole: dict[str, Any], harm: str) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    seed(url, folder, *NONE, "--training-rows", "100")
    path = folder / "training-rows.csv"
    if harm == "deleted":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:500])
    elif harm == "appended":
        path.write_bytes(path.read_bytes() + b"half a li")
    else:
        path.replace(folder / "training-rows.csv.part")
    result = seed(url, folder, *NONE, "--training-rows", "130", "--resume")
    assert result.exit_code == 0, result.output
    assert [each.name for each in folder.iterdir()] == [path.name]
    assert path.read_bytes() == whole[path.name]


def test_what_was_cleared_away_is_written_anew(database_url: str, database: Engine, folder: Path) -> None:
    few = (*NONE, "--customers", "20", "--appointments", "5")
    seed(database_url, folder, *few)
    with database.begin() as connection:
        for table in ("customers", "campaigns", "appointments"):
            connection.execute(Base.metadata.tables[table].delete())
    assert seed(database_url, folder, *few, "--resume").exit_code == 0
    found = content(database_url, folder)
    assert [len(found[table]) for table in ("customers", "campaigns", "appointments")] == [20, 1, 5]


# Refused


def test_two_at_once_write_no_row_twice(database_url: str, database: Engine, folder: Path) -> None:
    create_schema(database, ledger.METADATA)
    [(part, wanted)] = parts(Wanted(customers=6000), folder)
    told: list[int] = []

    def meanwhile(rows: int) -> None:
        told.append(rows)
        if len(told) == 1:
            fill_table(database, part, 7, wanted, lambda rows: None)  # type: ignore[arg-type]

    with pytest.raises(RqmemError, match="another run of the seeder"):
        fill_table(database, part, 7, wanted, meanwhile)  # type: ignore[arg-type]
    assert told == [2000]
    assert len(content(database_url, folder)["customers"]) == wanted


def test_a_file_that_another_run_writes(tmp_path: Path, folder: Path) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    seed(url, folder, *NONE, "--training-rows", "10")
    with (folder / "training-rows.csv").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = seed(url, folder, *NONE, "--training-rows", "20", "--resume")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "training rows: another run of the seeder" in result.stderr


def _first(url: str, folder: Path) -> None:
    assert seed(url, folder, *NONE, "--customers", "5").exit_code == 0


def _running(url: str, folder: Path) -> None:
    _first(url, folder)
    with open_database(url).begin() as connection:
        connection.execute(update(Campaign).values(status="running"))


def _foreign_file(url: str, folder: Path) -> None:
    folder.mkdir()
    (folder / "training-rows.csv").write_text("mine\n")


def _other_agents(url: str, folder: Path) -> None:
    engine = open_database(url)
    create_schema(engine)
    with engine.begin() as connection:
        connection.execute(insert(Agent), [{"id": 7, "name": "mine"}])


def _nothing(url: str, folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("before", "arguments", "code", "line"),
    [
        (_first, ("--customers", "5"), 2, "holds a dataset of seed 7: --resume goes on with it"),
        (_first, ("--customers", "9", "--resume", "--seed", "8"), 2, "a dataset of seed 7, not 8"),
        (_running, ("--customers", "9", "--resume"), 1, "campaign 1 is running: it gets no more customers"),
        (
            _foreign_file,
            ("--customers", "5", "--training-rows", "5"),
            2,
            "training-rows.csv is there, and this database knows nothing of it",
        ),
        (_other_agents, ("--transcripts", "5"), 1, "database: UNIQUE constraint failed: agents.id"),
        (_nothing, ("--customers", "-1"), 2, "-1 is not in the range"),
        (_nothing, ("--database-url", "sqlite:////no/such/app.db"), 2, "unable to open"),
        (_nothing, ("--folder", "/proc/none", "--training-rows", "1"), 1, "/proc/none: No such file or directory"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path, folder: Path, before: Callable[[str, Path], None], arguments: tuple[str, ...], code: int, line: str
) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    before(url, folder)
    result = seed(url, folder, *NONE, *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert line in result.stderr.splitlines()[-1]
    mine = folder / "training-rows.csv"
    assert not mine.exists() or mine.read_text() == "mine\n"


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path, folder: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    options = ["--database-url", f"sqlite:///{tmp_path}/app.db", "--folder", str(folder), *NONE, "--customers", "5"]
    command = [sys.executable, "-m", "seeds.large_dataset", *options]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_full_disk_is_one_line_and_goes_on_later(tmp_path: Path, folder: Path, whole: dict[str, Any]) -> None:
    """The limit on the size of files stands in for the disk: it hits the database or the file, whichever is longer."""
    url = f"sqlite:///{tmp_path}/app.db"
    options = ["--database-url", url, "--folder", str(folder), *NONE, "--training-rows", "60000", "--resume"]
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20)); "
        "from seeds.large_dataset import main; main(sys.argv[1:])"
    )
    done = forked.run_code(limited, *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert seed(url, folder, *NONE, "--training-rows", "12000", "--resume").exit_code == 0
    lines = (folder / "training-rows.csv").read_bytes().splitlines()
    assert lines[:131] == whole["training-rows.csv"].splitlines()
    assert len(lines) == 12_001


# Skew and memory


def test_some_transcripts_are_a_thousand_times_longer_than_the_median(tmp_path: Path, folder: Path) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    assert seed(url, folder, *NONE, "--transcripts", "1100").exit_code == 0
    with open_database(url).connect() as connection:
        lengths = sorted(connection.execute(select(Call.transcript_length)).scalars())
        agents = Counter(connection.execute(select(Call.agent_id)).scalars())
    assert lengths[-1] > 1000 * statistics.median(lengths)
    assert lengths[-2] < 100 * statistics.median(lengths)
    assert sum(agents[each] for each in range(1, 11)) > 0.4 * 1100, "a quarter of the agents takes nearly half"
    assert 3 <= sum(facts(7, index).characters > 2_000_000 for index in range(20_000)) <= 5


def test_assignments_are_unbalanced() -> None:
    named = Counter(row["staff"] for row in assignments(7, 20_000))
    assert sum(named[staff_email(index)] for index in range(100)) > 0.25 * 20_000, "a tenth of the staff"


MEASURED = """
import sys
from seeds.large_dataset import main
main(sys.argv[1:], standalone_mode=False)
lines = open("/proc/self/status").read().splitlines()
print(*[line.split()[1] for line in lines if line.startswith("VmHWM")])
"""


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    def peak_kb(rows: int) -> int:
        options = ["--database-url", f"sqlite:///{tmp_path}/{rows}.db", "--folder", str(tmp_path / str(rows))]
        options += [f"--{part}={rows}" for part in PARTS if part != "transcripts"] + ["--transcripts=0"]
        return int(forked.run_code(MEASURED, *options).stdout.split()[-1])

    few, many = peak_kb(2_000), peak_kb(12_000)
    assert many < few + 4096, f"{few} KB for 2,000 rows of each, {many} KB for 12,000"


def test_moments_are_the_same_in_both_databases(database_url: str, database: Engine, folder: Path) -> None:
    assert seed(database_url, folder, *NONE, "--transcripts", "3").exit_code == 0
    with Session(database) as session:
        first = session.scalars(select(Call).order_by(Call.id)).first()
    assert first is not None and isinstance(first.started_at, datetime)
    assert first.started_at.tzinfo == timezone.utc
    assert first.started_at == next(transcripts(7, 1))["started_at"]
