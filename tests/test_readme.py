"""README's examples run, and its table of settings is the code's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from redis import Redis
from rq import Queue
from rq.job import Job

from rqmem.config.settings import SETTINGS, Config
from scripts import readme_tables
from tests import forked
from tests.conftest import ROOT, StartWorker

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_example_job_runs(connection: Redis, redis_url: str, tmp_path: Path, start_worker: StartWorker) -> None:
    module, script, *_ = blocks("python")
    name = module.splitlines()[0].removeprefix("# ")
    (tmp_path / name).write_text(module)
    environ = {"RQMEM_REDIS_URL": redis_url, "PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""}
    ending = "\nprint(job.id, later.id)"
    done = subprocess.run(
        [sys.executable, "-c", script + ending], env=environ, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    start_worker("invoices", "night", "--burst", "--memory", "256", directory=tmp_path).finish()
    for queue, job_id in zip(("invoices", "night"), done.stdout.split(), strict=True):
        job = Queue(queue, connection=connection).fetch_job(job_id)
        assert job is not None
        assert job.return_value() == 1000


def test_the_example_that_splits_runs(
    connection: Redis, redis_url: str, tmp_path: Path, start_worker: StartWorker
) -> None:
    (tmp_path / "squares.py").write_text(blocks("python")[2])
    job = Queue("squares", connection=connection).enqueue("squares.SumOfSquares.run", numbers=2600)
    start_worker("squares", "--burst", directory=tmp_path).finish()
    assert job.return_value() == sum(number * number for number in range(2600))
    assert len(Job.fetch(job.id, connection=connection).fetch_dependencies()) == 6


def test_the_example_of_enqueueing_runs(
    connection: Redis, redis_url: str, tmp_path: Path, start_worker: StartWorker
) -> None:
    (tmp_path / "squares.py").write_text(blocks("python")[2])
    [arguments] = re.findall(r"^\$ rqmem (enqueue .*)$", README, re.MULTILINE)
    worker = start_worker("squares", directory=tmp_path)
    environ = {"RQMEM_REDIS_URL": redis_url, "PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""}
    command = [sys.executable, "-m", "rqmem", *arguments.split()]
    done = forked.run(command, env=environ, cwd=tmp_path)
    worker.process.terminate()
    assert done.returncode == 0, done.stderr
    assert str(sum(number * number for number in range(2600))) in done.stdout


def test_the_example_function_runs() -> None:
    """In a process of its own: this one may use more than 200 MB."""
    code = blocks("python")[3] + "\nprint(build_report(2026))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "1000\n"


def test_the_example_tests_pass(tmp_path: Path) -> None:
    (tmp_path / "test_reports.py").write_text(blocks("python")[4])
    environ = {"PYTHONPATH": str(ROOT), "PATH": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = forked.run(command, env=environ, cwd=tmp_path)
    assert "2 passed" in done.stdout, done.stdout


def test_the_json_line_is_json_with_the_keys_in_their_order() -> None:
    [line] = blocks("json")
    assert list(json.loads(line))[-3:] == ["job_id", "queue", "worker"]


def test_the_tables_are_as_they_are_declared() -> None:
    for name, table in readme_tables.TABLES.items():
        assert readme_tables.in_readme(name, README) == table(), "python -m scripts.readme_tables --update"


def test_every_setting_has_a_row_and_its_default_is_the_one_that_is_read() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", README, re.MULTILINE))
    assert set(rows) == {setting.variable for setting in SETTINGS.values()}
    for field, setting in SETTINGS.items():
        value, shown = getattr(Config(), field), rows[setting.variable]
        assert not value if shown == "none" else setting.parse(shown, setting.variable) == value


def test_every_make_target_is_real() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^\$ |`)make ([a-z0-9 -]+)", README, re.MULTILINE)
    assert {word for words in named for word in words.split()} <= targets
    assert {"help", "demo", "test", "lint", "typecheck", "bench", "clean"} <= targets
