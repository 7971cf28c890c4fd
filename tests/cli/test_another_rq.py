"""Real processes on a copy of RQ in which something is renamed throughout, as a later version may do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import rq

from tests.conftest import ROOT

Renamed = Callable[[str], Path]


@pytest.fixture
def renamed(tmp_path: Path) -> Renamed:
    """Makes the copy, and returns the directory to import it from."""

    def rename(name: str) -> Path:
        shutil.copytree(Path(rq.__file__).parent, tmp_path / "rq", dirs_exist_ok=True)
        for path in (tmp_path / "rq").rglob("*.py"):
            renamed, found = re.subn(rf"\b{name}\b", f"{name}_renamed", path.read_text())
            if found:  # the others keep their bytecode
                path.write_text(renamed)
        return tmp_path

    return rename


def run(where: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": f"{where}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *command], env=environ, cwd=where, capture_output=True, text=True, timeout=60
    )


def assert_refused(done: subprocess.CompletedProcess[str], name: str) -> None:
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("rqmem: the installed RQ ") and name in line and "pip install" in line


@pytest.mark.parametrize(
    "name",
    [
        "handle_job_success",  # overridden
        "WORKERS_BY_QUEUE_KEY",  # a constant that is imported
        "NoSuchJobError",  # a class
        "started_job_registry",  # a parameter too
    ],
)
def test_a_worker_does_not_start(name: str, renamed: Renamed) -> None:
    done = run(renamed(name), "-m", "rqmem", "worker", "--burst", "--memory", "256")
    assert_refused(done, name)


def test_a_worker_starts_on_an_unchanged_copy(renamed: Renamed, redis_url: str) -> None:
    done = run(renamed("no_such_name"), "-m", "rqmem", "worker", "--burst", "--memory", "256", "--url", redis_url)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["status", "monitor", "enqueue a.b", "cancel 1", "doctor"])
def test_no_command_that_works_with_rq_starts(command: str, renamed: Renamed) -> None:
    assert_refused(run(renamed("handle_job_success"), "-m", "rqmem", *command.split()), "handle_job_success")


@pytest.mark.parametrize("name", ["get_redis_from_config", "parse_function_args"])
def test_what_only_rqs_command_line_has_is_looked_for_when_it_is_needed(name: str, renamed: Renamed) -> None:
    where = renamed(name)
    (where / "settings_of_rq.py").write_text("REDIS_HOST = '127.0.0.1'\n")
    (where / "code.py").write_text("def f(n): pass\n")
    command = ("status", "-c", "settings_of_rq") if name == "get_redis_from_config" else ("enqueue", "code.f", ":7")
    assert_refused(run(where, "-m", "rqmem", *command), name)


@pytest.mark.parametrize("program", ["from rqmem import MemoryWorker", "from rqmem import MemoryAwareJob"])
def test_python_code_gets_a_named_error(program: str, renamed: Renamed) -> None:
    program = (
        f"from rqmem.errors import UnsupportedRq\ntry:\n  {program}\nexcept UnsupportedRq as error:\n  print(error)"
    )
    done = run(renamed("handle_job_success"), "-c", program)
    assert "rq.worker.Worker.handle_job_success" in done.stdout, done.stderr


def test_an_rq_that_sentry_has_patched_is_taken(renamed: Renamed) -> None:
    pytest.importorskip("sentry_sdk", reason="sentry-sdk is not installed")
    program = (
        "import rq, sentry_sdk\n"
        "from sentry_sdk.integrations.rq import RqIntegration\n"
        "none = {'auto_enabling_integrations': False, 'default_integrations': False}\n"
        "sentry_sdk.init(dsn='http://key@127.0.0.1:9/1', integrations=[RqIntegration()], **none)\n"
        "assert rq.Worker.handle_exception.__module__.startswith('sentry_sdk')\n"
        "import rqmem; rqmem.MemoryWorker; rqmem.MemoryAwareJob\n"
    )
    assert run(renamed("no_such_name"), "-c", program).returncode == 0
    assert "handle_job_retry" in run(renamed("handle_job_retry"), "-c", program).stderr


def test_rqs_own_command_does_not_start_our_worker(renamed: Renamed, redis_url: str) -> None:
    command = ("-m", "rq.cli", "worker", "-w", "rqmem.MemoryWorker", "--burst", "--url", redis_url)
    done = run(renamed("handle_job_success"), *command)
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert last.startswith("rqmem.errors.UnsupportedRq: ") and "handle_job_success" in last
