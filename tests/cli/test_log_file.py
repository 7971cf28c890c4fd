"""``--log-file``: by itself, and under a real worker: rotation, SIGHUP, a full disk, a directory that is not there."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue, Worker
from rq.job import JobStatus

from rqmem import MemoryAwareJob
from rqmem.log.file import LogFile
from rqmem.testing import wait_until
from tests import sample_jobs
from tests.conftest import ROOT, StartWorker, WorkOff, wait_for_key

# The file by itself


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "worker.log"


@pytest.fixture
def written(path: Path) -> Iterator[LogFile]:
    handler = LogFile(str(path))
    yield handler
    handler.close()


def write(handler: LogFile, text: str) -> None:
    handler.handle(logging.LogRecord("rqmem", logging.INFO, "", 0, text, None, None))


def test_it_is_appended_to(path: Path, written: LogFile) -> None:
    path.write_text("before\n")
    write(written, "first")
    write(written, "größe \ud800")
    assert path.read_text() == "before\nfirst\ngröße \\ud800\n"


def test_lines_go_to_what_the_path_names_now(path: Path, written: LogFile) -> None:
    write(written, "old")
    path.rename(path.with_suffix(".1"))
    written.reopen()
    assert path.read_text() == "", "at once, not with the next line"
    write(written, "new")
    path.unlink()
    write(written, "newer")
    assert path.with_suffix(".1").read_text() == "old\n"
    assert path.read_text() == "newer\n"


def test_a_change_of_directory_does_not_move_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    handler = LogFile("worker.log")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (tmp_path / "worker.log").unlink()
    write(handler, "here")
    handler.close()
    assert (tmp_path / "worker.log").read_text() == "here\n"


def test_where_it_cannot_be_opened_again_lines_go_to_the_file_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    handler = LogFile(str(folder / "worker.log"))
    folder.rename(tmp_path / "moved")
    for text in ("one", "two"):
        write(handler, text)
    [complaint] = capfd.readouterr().err.splitlines()
    assert "cannot be opened again (No such file or directory)" in complaint
    assert (tmp_path / "moved" / "worker.log").read_text() == "one\ntwo\n"
    folder.mkdir()
    write(handler, "three")
    handler.close()
    assert (folder / "worker.log").read_text() == "three\n"
    assert capfd.readouterr().err == ""


def test_after_its_end_it_begins_anew_or_is_silent(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    handler = LogFile(str(path))
    handler.close()
    handler.reopen()
    write(handler, "late")  # as after `logging.config`, which closes all handlers
    assert path.read_text() == "late\n"
    handler.close()
    handler.path = path / "nowhere"
    write(handler, "lost")
    assert path.read_text() == "late\n"
    assert capfd.readouterr().err == ""


FULL = """
import logging, resource, signal, sys
from rqmem import log
log.configure("info", "text", sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
for number in range(20):
    logging.getLogger("rqmem.test").info("line %d", number)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for number in range(20, 22):
    logging.getLogger("rqmem.test").info("line %d", number)
"""


def test_what_a_full_disk_does_not_take_is_counted_and_told_once(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == f"rqmem: log file {path} cannot be written (File too large); lines are lost until it can\n"
    lines = path.read_text().splitlines()
    assert len(lines[3]) == 100 - 3 * len(lines[0] + "\n"), "the fourth was torn, and no line is stuck to it"
    assert [line[20:] for line in lines[:3]] == ["line 0", "line 1", "line 2"]
    assert [line[20:] for line in lines[4:]] == [
        "WARNING 17 lines before this one could not be written", "line 20", "line 21",
    ]  # fmt: skip


ROTATED = """
import logging, os, signal, sys, threading
from rqmem import log
path, lines, length = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
log.configure("info", "text", path)
here = os.getpid()
child = os.fork()
who = "child" if child == 0 else "parent"
written = threading.Event()

def rotate():
    number = 0
    while not written.is_set():
        if os.path.exists(path):
            os.rename(path, f"{path}.{number}")
            number += 1
        os.kill(here, signal.SIGHUP)
        os.kill(child, signal.SIGHUP)

if child:
    threading.Thread(target=rotate).start()
for number in range(lines):
    logging.getLogger("rqmem.test").info("%s %d %s", who, number, "x" * length)
if child == 0:
    os._exit(0)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
written.set()
for thread in threading.enumerate()[1:]:
    thread.join()
os.waitpid(child, 0)
"""


def test_two_processes_lose_and_mix_no_line_while_it_is_rotated_and_signals_rain(path: Path) -> None:
    lines, length = 300, 20_000
    command = [sys.executable, "-c", ROTATED, path, str(lines), str(length)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    files = list(path.parent.iterdir())
    assert len(files) > 1
    found = [line.split()[2:] for file in files for line in file.read_text().splitlines()]
    assert all(text == "x" * length for _, _, text in found)
    assert sorted((who, int(number)) for who, number, _ in found) == [
        (who, number) for who in ("child", "parent") for number in range(lines)
    ]


# Under a worker


def test_lines_of_worker_and_horse_are_in_it_once_and_nowhere_else(
    connection: Redis, start_worker: StartWorker, path: Path
) -> None:
    job = sample_jobs.Plain.enqueue(number=1, connection=connection)
    worker = start_worker("plain", "--burst", "--name", "ada", "--log-file", str(path))
    assert worker.finish() == ""
    assert worker.process.returncode == 0
    text = path.read_text()
    assert all(re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in text.splitlines())
    for words in (
        "worker ada: memory ceiling",
        f"({job.id[:8]}) ended ok in ",
        f"Job OK ({job.id})",
    ):  # worker, horse, RQ
        assert text.count(words) == 1


def test_all_of_it_is_json_where_that_is_asked_for(connection: Redis, start_worker: StartWorker, path: Path) -> None:
    sample_jobs.Plain.enqueue(number=1, connection=connection)
    start_worker("plain", "--burst", "--log-file", str(path), "--log-format", "json").finish()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert "begun" in [line.get("operation") for line in lines]
    assert "RunEnded" in [line.get("event") for line in lines]


def test_logrotate_and_a_hangup_disturb_neither_worker_nor_job(
    connection: Redis, start_worker: StartWorker, path: Path
) -> None:
    queue = Queue("jobs", connection=connection)
    worker = start_worker("jobs", "--log-file", str(path))
    slow = queue.enqueue(sample_jobs.say_hello_and_sleep, 0.5)
    wait_for_key(connection, "asleep")
    horse = int(connection.get("asleep") or 0)
    path.rename(path.with_suffix(".1"))
    for pid in (worker.pid, horse):
        os.kill(pid, signal.SIGHUP)
    wait_until(path.exists)
    after = sample_jobs.Plain.enqueue("jobs", number=1, connection=connection)
    wait_until(lambda: after.get_status() == JobStatus.FINISHED)
    assert slow.get_status() == JobStatus.FINISHED
    assert "Plain" not in path.with_suffix(".1").read_text()
    assert slow.id in path.with_suffix(".1").read_text()
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.finish() == ""
    assert worker.process.returncode == 0
    text = path.read_text()
    assert "tests.sample_jobs.Plain" in text and " ended ok in " in text


def test_a_worker_that_restarts_in_place_goes_on_with_it(
    connection: Redis, start_worker: StartWorker, path: Path
) -> None:
    queue = Queue("jobs", connection=connection)
    jobs = [queue.enqueue(sample_jobs.add, 1) for _ in range(16)]
    fattening = ("--queue-class", "tests.workers.FatteningQueue", "--worker-memory", "120")
    worker = start_worker("jobs", "--burst", "--log-file", str(path), *fattening)
    assert worker.finish() == ""
    assert all(job.get_status() == JobStatus.FINISHED for job in jobs)
    text = path.read_text()
    assert text.count("restarts in place, between two jobs") == text.count("has restarted in place") >= 1


class Ticks(MemoryAwareJob):
    """Passes many checkpoints, and needs next to nothing."""

    def handle(self, count: int) -> None:
        for number in range(count):
            self.check_memory_usage(f"tick {number}")
            if number >= 3:
                self.check_memory_usage(f"customer_processing_{number}")
        self.check_memory_usage("all done")


@pytest.mark.parametrize("every", [False, True])
def test_checkpoints_are_thinned_unless_all_are_asked_for(
    connection: Redis, start_worker: StartWorker, path: Path, every: bool
) -> None:
    Ticks.enqueue("jobs", count=200, connection=connection)
    options = ["--log-every-checkpoint"] if every else []
    start_worker("jobs", "--burst", "--log-file", str(path), "--log-format", "json", *options).finish()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    told = [line["operation"] for line in lines if "operation" in line and "event" not in line]
    assert told[0] == "tick 0"
    assert told[-1] == "all done"
    assert next(place for place in told if place.startswith("customer_")) == "customer_processing_3"
    assert (len(told) >= 200 + 197 + 1) is every, told
    assert every or len(told) < 20


def test_a_full_disk_ends_neither_worker_nor_job(connection: Redis, start_worker: StartWorker) -> None:
    jobs = [sample_jobs.Plain.enqueue("jobs", number=number, connection=connection) for number in range(3)]
    jobs.append(Queue("jobs", connection=connection).enqueue(sample_jobs.grow_lists))
    worker = start_worker("jobs", "--burst", "--memory", "128", "--log-file", "/dev/full")
    [line] = worker.finish().splitlines()
    assert line == "rqmem: log file /dev/full cannot be written (No space left on device); lines are lost until it can"
    assert worker.process.returncode == 0
    statuses = [job.get_status() for job in jobs]
    assert statuses == [JobStatus.FINISHED] * 3 + [JobStatus.FAILED]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no/such/worker.log", "No such file or directory"),
        ("a file/worker.log", "Not a directory"),
        ("", "Is a directory"),
        ("~nobody of that name/worker.log", "Could not determine home directory"),
    ],
    ids=["missing", "not a directory", "a directory", "no home"],
)
def test_a_file_that_cannot_be_is_found_before_anything_starts(
    connection: Redis, start_worker: StartWorker, tmp_path: Path, name: str, reason: str
) -> None:
    (tmp_path / "a file").touch()
    file = name if name.startswith("~") else str(tmp_path / name)
    worker = start_worker("--burst", "--log-file", file)
    [line] = worker.finish().splitlines()
    assert line.startswith(f"rqmem: --log-file {file!r}: {reason}")
    assert "give a file that can be written" in line
    assert worker.process.returncode == 2
    assert not Worker.all(connection)


def test_without_it_lines_go_to_stderr_once(connection: Redis, work_off: WorkOff) -> None:
    sample_jobs.Plain.enqueue(number=1, connection=connection)
    log = work_off("plain", "--name", "ada")
    assert log.count("worker ada: memory ceiling") == log.count(" ended ok in ") == 1
