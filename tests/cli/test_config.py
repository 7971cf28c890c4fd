"""``rqmem config`` as people run it, and its config file with real workers."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue

from rqmem.config.settings import FIELDS, SETTINGS
from rqmem.store.history import history_reader
from rqmem.store.history.history_records import Run
from tests import sample_jobs
from tests.cli.test_commands import rqmem
from tests.conftest import ROOT, StartWorker
from tests.journal_filling import a_run, remember

PLAIN, SQUARES, COUNTED = (f"tests.sample_jobs.{name}" for name in ("Plain", "Squares", "Counted"))
Config = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """``rqmem config`` in a directory of its own, with the tests' jobs in reach."""

    def run(*options: str, file: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        if file:
            (tmp_path / "rqmem.ini").write_text(file)
        return rqmem("config", *options, directory=tmp_path, **{"XDG_RUNTIME_DIR": str(tmp_path), **environ})

    return run


def rows(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
    """Name -> value and origin, of the table of settings."""
    assert done.returncode == 0, done.stderr
    cells = [line.split("  ") for line in done.stdout.splitlines()[5:]]
    return {name: (value.strip(), origin.strip()) for name, value, origin in ([c for c in row if c] for row in cells)}


def test_each_setting_with_its_origin(config: Config) -> None:
    file = "[rqmem]\nreserve = 16\nmemory = 100\nmemory_default_chunk_size = 7\n"
    done = config("--memory", "512", "--preload", "jobs.a", "--preload", "b", file=file, RQMEM_TIMEOUT="60")
    assert done.stdout.startswith("config file: rqmem.ini\nintegrations: ")
    shown = rows(done)
    assert list(shown) == ["redis", *FIELDS]
    assert shown["memory"] == ("512 MB", "--memory")
    assert shown["preload"] == ("jobs.a b", "--preload")
    assert shown["timeout"] == ("60 seconds", "RQMEM_TIMEOUT")
    assert shown["reserve"] == ("16 MB", "rqmem.ini")
    assert shown["memory_default_chunk_size"] == ("7", "rqmem.ini")
    assert shown["cgroup"] == ("auto", "default")
    assert shown["max_jobs_per_horse"] == ("none", "default")


@pytest.mark.parametrize(
    ("options", "leases"),
    [
        ((), "on"),
        (("--lease-max", "0"), "off: --lease-max is 0"),
        (("--isolation", "fork"), "off: each job has a horse of its own"),
        (("--profile", "memray"), "off: runs are profiled"),
    ],
)
def test_it_says_whether_leases_are_on(config: Config, options: tuple[str, ...], leases: str) -> None:
    assert f"\nleases: {leases}\n" in config(*options).stdout
    assert json.loads(config(*options, "--json").stdout)["leases"] == leases


def test_what_it_says_is_what_a_worker_does(
    connection: Redis, redis_url: str, tmp_path: Path, start_worker: StartWorker, config: Config
) -> None:
    (tmp_path / "rqmem.ini").write_text("[rqmem]\nmemory = 97\nheartbeat = 1\n")
    assert rows(config())["memory"] == ("97 MB", "rqmem.ini")
    here = start_worker("--burst", directory=tmp_path)
    above = start_worker("--burst", "--memory", "99", directory=tmp_path, RQMEM_MEMORY="98")
    assert "memory ceiling 97 MB for each job" in here.finish()
    assert "memory ceiling 99 MB" in above.finish()


def test_the_same_as_json(config: Config) -> None:
    done = config("--json", "--alert-url", "json://hunter2/x", "--url", "redis://:hunter2@localhost:1/0",
                  RQMEM_GROWTH_RATE="8000")  # fmt: skip
    shown = json.loads(done.stdout)
    assert list(shown) == ["version", "config_file", "integrations", "leases", "settings"]
    assert (shown["version"], shown["config_file"]) == (2, None)
    by_name = {each["name"]: each for each in shown["settings"]}
    assert {each["variable"] for each in shown["settings"]} == {
        None,
        *(setting.variable for setting in SETTINGS.values()),
    }
    assert by_name["growth_rate"] == {
        "name": "growth_rate", "variable": "RQMEM_GROWTH_RATE", "value": 8000, "origin": "environment",
        "source": "RQMEM_GROWTH_RATE",
    }  # fmt: skip
    assert by_name["alert_urls"]["value"] == ["***"]
    assert by_name["redis"]["value"] == "redis://:***@localhost:1/0"
    assert "hunter2" not in done.stdout + done.stderr


def test_the_embedded_redis_is_named_and_not_started(config: Config, tmp_path: Path) -> None:
    done = config(RQMEM_REDIS_URL="", REDIS_URL="")
    assert rows(done)["redis"] == ("embedded, of this directory", "default")
    assert not (tmp_path / ".rqmem").exists()


@pytest.mark.parametrize(
    ("options", "environ", "file", "message"),
    [
        (["--memory", "0"], {}, "", "--memory='0': give a number of MB greater than 0"),
        ([], {"RQMEM_CONFIG": "gone.ini"}, "", "RQMEM_CONFIG='gone.ini': there is no such file"),
        ([], {}, "[rqmem]\nmemroy = 1", "rqmem.ini: [rqmem] memroy is not known: did you mean memory?"),
        (["--url", "http://x"], {}, "", "--url 'http://x' cannot be used"),
        (["jobs"], {}, "", "jobs: modules go with --jobs: rqmem config --jobs jobs"),
        (["--jobs", "no.such"], {}, "", "no.such cannot be imported: there is no module no: "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_and_exit_code_2(
    config: Config, options: list[str], environ: dict[str, str], file: str, message: str
) -> None:
    done = config(*options, file=file, **environ)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("rqmem: ") and message in line


def test_a_worker_refuses_a_bad_config_file_too(tmp_path: Path, start_worker: StartWorker) -> None:
    (tmp_path / "rqmem.ini").write_text("[rqmem]\nmemory = much\n")
    worker = start_worker("--burst", directory=tmp_path)
    [line] = worker.finish().splitlines()
    assert line == "rqmem: rqmem.ini: memory='much': give a number of MB greater than 0, for example 256"
    assert worker.process.returncode == 2


def test_no_config_file_is_named_by_dev_null(tmp_path: Path, start_worker: StartWorker) -> None:
    """As for many programs. The scripts of this repository do so."""
    (tmp_path / "rqmem.ini").write_text("[rqmem]\nno-such-setting = 1\n")
    worker = start_worker("--burst", directory=tmp_path, RQMEM_CONFIG="/dev/null")
    worker.finish(60)
    assert worker.process.returncode == 0


@pytest.mark.parametrize("environ", [{}, {"RQMEM_CONFIG": "rqmem.ini"}, {"RQMEM_CONFIG": "/dev/zero"}])
def test_a_config_file_that_never_ends_is_not_waited_for(
    tmp_path: Path, start_worker: StartWorker, environ: dict[str, str]
) -> None:
    os.mkfifo(tmp_path / "rqmem.ini")
    worker = start_worker("--burst", directory=tmp_path, **environ)
    [line] = worker.finish(60).splitlines()
    assert line.endswith("cannot be read: it is a pipe, a device or a socket")
    assert worker.process.returncode == 2


# Job types


def table(done: subprocess.CompletedProcess[str]) -> dict[str, list[str]]:
    """Job type -> the cells of its row."""
    lines = done.stdout.split("\n\n")[0].splitlines()
    assert lines[0].split() == ["job", "type", "declared", "applies", "recommended", "chunk", "splits"]
    return {line.split()[0]: [cell.strip() for cell in line.split("  ") if cell.strip()][1:] for line in lines[1:]}


def test_job_types_of_modules_with_what_applies(config: Config, connection: Redis, redis_url: str) -> None:
    file = f"[job {PLAIN}]\nmemory_limit_mb = 400\n[job {SQUARES}]\nchunk_size = 5\n"
    done = config("--jobs", "tests.sample_jobs", "--memory", "300", file=file, RQMEM_REDIS_URL=redis_url)
    assert done.returncode == 0, done.stderr
    shown = table(done)
    assert shown[PLAIN] == ["200 MB", "300 MB", "-", "100", "-"]
    assert shown[SQUARES] == ["-", "300 MB", "-", "5", "-"]
    assert shown[COUNTED][-1] == "by what items were seen to cost"
    assert f"{PLAIN}: the config file says memory_limit_mb 400, its class 200" in done.stdout
    assert f"{PLAIN}: 400 MB cut to 300 MB by --memory" in done.stdout
    assert "nothing is recommended" not in done.stdout


def a_history(job_type: str) -> list[Run]:
    return [a_run(job_type, f"j{number}", time.time()) for number in range(30)]


def test_job_types_that_the_journal_knows_with_what_it_recommends(
    config: Config, connection: Redis, redis_url: str
) -> None:
    remember(connection, *a_history(PLAIN), a_run(SQUARES, "s", time.time()), a_run("gone.jobs.Job", "g", time.time()))
    file = f"[job {PLAIN}]\nmemory_limit_mb = 256\n"
    done = config("--jobs", "--path", str(ROOT), file=file, RQMEM_REDIS_URL=redis_url)
    assert done.returncode == 0, done.stderr
    shown = table(done)
    assert list(shown) == ["gone.jobs.Job", PLAIN, SQUARES]
    recommended = rqmem("recommend", "--json", RQMEM_REDIS_URL=redis_url)
    advice = {each["job_type"]: each for each in json.loads(recommended.stdout)["job_types"]}
    assert shown[PLAIN][:3] == ["200 MB", "256 MB", f"{advice[PLAIN]['recommended']['ceiling_mb']:.0f} MB"]
    assert shown[SQUARES][2] == "-"  # too little is known
    assert shown["gone.jobs.Job"] == ["?", "?", "-", "?", "?"]
    assert "gone.jobs.Job cannot be imported: there is no module gone" in done.stdout

    fields = json.loads(config("--jobs", "--json", RQMEM_REDIS_URL=redis_url).stdout)
    assert list(fields) == ["version", "config_file", "note", "job_types"]
    by_job = {each["job_type"]: each for each in fields["job_types"]}
    assert by_job[PLAIN]["applies"]["ceiling_mb"] == {
        "value": 256, "origin": "config file", "source": "rqmem.ini",
    }  # fmt: skip
    assert by_job[PLAIN]["recommended_ceiling_mb"] == advice[PLAIN]["recommended"]["ceiling_mb"]
    assert (by_job[SQUARES]["recommended"], by_job[SQUARES]["runs_needed"]) == (None, 20)
    assert by_job["gone.jobs.Job"]["problem"].startswith("gone.jobs.Job cannot be imported")


def test_a_section_about_no_job_is_told_and_exit_code_1(config: Config, redis_url: str, connection: Redis) -> None:
    file = "[job tests.sample_jobs.Plane]\nchunk_size = 5\n"
    done = config("--jobs", "tests.sample_jobs", file=file, RQMEM_REDIS_URL=redis_url)
    assert done.returncode == 1
    assert "module 'tests.sample_jobs' has no attribute 'Plane'" in done.stdout


def test_without_redis_the_table_of_modules_is_shown(config: Config) -> None:
    done = config("--jobs", "tests.sample_jobs", RQMEM_REDIS_URL="redis://127.0.0.1:1/0")
    assert done.returncode == 0
    assert table(done)[PLAIN][0] == "200 MB"
    assert "nothing is recommended: Redis at redis://127.0.0.1:1/0" in done.stdout
    nothing = config("--jobs", RQMEM_REDIS_URL="redis://127.0.0.1:1/0")
    assert nothing.returncode == 1
    [line] = nothing.stderr.splitlines()
    assert "the job types that the journal knows cannot be read" in line


def test_nothing_known_says_what_to_do(config: Config, connection: Redis, redis_url: str) -> None:
    done = config("--jobs", RQMEM_REDIS_URL=redis_url)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "rqmem: no job type is known yet: name the modules where they are, as in rqmem config --jobs jobs"
    ]


# What the file says of a job type, in a real worker


def run_of(connection: Redis, job_type: str) -> Run:
    [run] = history_reader.runs(connection, job_type)
    return run


def in_directory(start_worker: StartWorker, directory: Path, file: str, *options: str, **environ: str) -> str:
    (directory / "rqmem.ini").write_text(file)
    worker = start_worker("plain", "default", "jobs", "--burst", *options, directory=directory, **environ)
    log = worker.finish()
    assert worker.process.returncode == 0, log
    return log


def test_the_file_stands_above_the_class_and_below_the_worker(
    connection: Redis, tmp_path: Path, start_worker: StartWorker
) -> None:
    file = f"[job {PLAIN}]\nmemory_limit_mb = 300\n[job tests.sample_jobs.aware]\nmemory_limit_mb = 150\n"
    sample_jobs.Plain.enqueue(number=1, connection=connection)
    Queue(connection=connection).enqueue("tests.sample_jobs.aware", 1)
    in_directory(start_worker, tmp_path, file, "--memory", "400")
    assert run_of(connection, PLAIN).limit_mb == 300  # the class says 200
    assert run_of(connection, "tests.sample_jobs.aware").limit_mb == 150  # the decorator says 100
    connection.flushall()
    sample_jobs.Plain.enqueue(number=1, connection=connection)
    log = in_directory(start_worker, tmp_path, file, "--memory", "250")
    assert run_of(connection, PLAIN).limit_mb == 250
    assert f"{PLAIN} declares 300 MB of memory; this worker allows 250 MB" in log


SUMS = """
from rqmem import MemoryAwareJob

class Sums(MemoryAwareJob):
    queue = "plain"
    chunk_size = 8
    adaptive = False
    split_above_items = 100

    def handle(self, count, items=None):
        if items is None and self.should_split_job(count):
            return self.split_into_child_jobs(range(count))
        return [len(chunk) for chunk in self.chunks(range(count) if items is None else items)]
"""


@pytest.mark.parametrize(
    ("file", "chunks"),
    [
        ("", [8] * 5),
        ("[job sums.Sums]\nchunk_size = 5\n", [5] * 8),
        ("[job sums.Sums]\nsplit_above_items = 30\nitems_per_child = 20\n", [8, 8, 4] * 2),
    ],
)
def test_chunks_and_splits_follow_the_file(
    connection: Redis, tmp_path: Path, start_worker: StartWorker, file: str, chunks: list[int]
) -> None:
    (tmp_path / "sums.py").write_text(SUMS)
    job = Queue("plain", connection=connection).enqueue("sums.Sums.run", count=40)
    log = in_directory(start_worker, tmp_path, file)
    assert job.return_value() == chunks, log
