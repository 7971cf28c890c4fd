"""RQ's own test suite, run with `rqmem.MemoryWorker` in place of `rq.Worker`.

The tests are those of the very RQ that is installed (from its sdist, unchanged, kept in .rq-suite/), their
Redis is a server of our own, and the slow ones run too. What fails runs once more by itself (many of
these tests count on a machine with time to spare) and is named if it passes then. A test counts against
us when it passes with `rq.Worker` and not with `MemoryWorker`: what failed runs with `rq.Worker` too. Exit
code 0 only when there is no such test.
Not tested: RQ's other worker classes (they stay RQ's) and connections with TLS.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import redis

from rqmem import own_files
from rqmem.connection import embedded_files
from rqmem.testing import wait_until
from scripts import rq_suite_conftest as inside
from scripts.harness import ROOT, heading

CACHE = ROOT / ".rq-suite"
MEMORY_WORKER, RQ_WORKER = "MemoryWorker", "rq.Worker"
SHORT = (
    "test_callbacks",
    "test_commands",
    "test_executions",
    "test_intermediate_queue",
    "test_job_lifecycle",
    "test_retry",
    "test_timeouts",
    "test_worker",
    "test_worker_pool",
    "test_worker_registration",
)
LONG = (  # slow tests that sleep for 10 to 66 s each
    "tests/test_worker.py::TestWorker::test_heartbeat_busy",
    "tests/test_worker.py::TestWorker::test_max_idle_time",
    "tests/test_worker.py::WorkerShutdownTestCase::test_work_horse_force_death",
)
RACING = (  # sends its command once, after 0.25 s: a worker that begins to listen later waits for ever
    "tests/test_commands.py::TestCommands::test_shutdown_command",
)
_LEFT_BEHIND = (".rq_sentinel*", "rq-tests.txt", "rq_shutdown")  # in /tmp by RQ's tests, where it misleads the next run
_FOREIGN = ("RQ_", "RQMEM_", "MEMORY_", "REDIS_", "PYTEST_", "SUITE_")
_ENDED = (0, 1)  # exit codes of a pytest that came to its end: all passed, some failed
_RUN_SECONDS = 1800
_ATTEMPTS = 5


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--isolation", type=click.Choice(["warm", "fork"]), default="warm", show_default=True)
@click.option("--lease-max", type=int, metavar="COUNT", help="As for a worker; by default its default.")
@click.option("--short", is_flag=True, help="Only the files about workers, horses and how jobs end.")
@click.argument("pytest_args", nargs=-1, type=click.UNPROCESSED)
def main(isolation: str, lease_max: int | None, short: bool, pytest_args: tuple[str, ...]) -> None:
    """Run RQ's tests with MemoryWorker. PYTEST_ARGS go to pytest, in the folder that holds RQ's tests/."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that our Redis ends with us
    version = importlib.metadata.version("rq")
    folder = fetch(version)
    options = [argument for argument in pytest_args if not argument.startswith("tests")]
    arguments = [*pytest_args] if len(options) < len(pytest_args) else [*choose(folder, short), *options]
    settings = {"RQMEM_ISOLATION": isolation}
    if lease_max is not None:
        settings["RQMEM_LEASE_MAX"] = str(lease_max)
    ours = run_again_what_fails(folder, settings, arguments, options)
    failed = names(ours, "failed")
    theirs = run(folder, RQ_WORKER, settings, [*failed, *options]) if failed else {}
    click.echo()
    for test in names(theirs, "failed"):
        click.echo(f"failed with rq.Worker too: {test}")
    only_ours = names(theirs, "passed")
    click.secho(
        f"RQ {version}: {len(names(ours, 'passed'))} passed with MemoryWorker ({isolation}), "
        f"{len(names(ours, 'skipped'))} skipped, {len(only_ours)} failed only with it: [{', '.join(only_ours)}]",
        fg="red" if only_ours else "green",
        bold=True,
    )
    sys.exit(1 if only_ours else 0)


def names(outcomes: dict[str, str], wanted: str) -> list[str]:
    """The tests that ended so."""
    return sorted(test for test, outcome in outcomes.items() if outcome == wanted)


def fetch(version: str) -> Path:
    """The folder with RQ's tests/ and its settings for pytest; downloaded the first time."""
    folder, name = CACHE / f"rq-{version}", f"rq-{version}"
    if (folder / "tests").exists():
        return folder
    own_files.make_holder(CACHE, "remove it")
    heading(f"Downloading {name}.tar.gz to {CACHE}")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", str(CACHE)]
    subprocess.run([*pip, "--no-deps", "--no-binary", ":all:", f"rq=={version}"], check=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as unpacked:
        with tarfile.open(CACHE / f"{name}.tar.gz") as archive:
            # Without rq/ itself, which would be imported from here.
            wanted = (f"{name}/tests/", f"{name}/pyproject.toml")
            members = [member for member in archive if member.name.startswith(wanted)]
            archive.extractall(unpacked, members, filter="data")
        (Path(unpacked) / name).rename(folder)
    return folder


def choose(folder: Path, short: bool) -> list[str]:
    """What to run, as arguments of pytest: test files, without those that import what is not installed."""
    modules = SHORT if short else sorted(path.stem for path in folder.glob("tests/test_*.py"))
    files = []
    for name in modules:
        if missing := missing_imports((folder / "tests" / f"{name}.py").read_text()):
            click.echo(f"left out: tests/{name}.py (not installed: {', '.join(missing)})")
        else:
            files.append(f"tests/{name}.py")
    return [*files, *(f"--deselect={test}" for test in (*LONG, *RACING))] if short else files


def missing_imports(source: str) -> list[str]:
    """The packages that a module imports at its top and that are not installed."""
    imported = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported.add(node.module.partition(".")[0])
    return sorted(name for name in imported - {"tests"} if importlib.util.find_spec(name) is None)


def run_again_what_fails(
    folder: Path, settings: dict[str, str], arguments: list[str], options: list[str]
) -> dict[str, str]:
    """As `run` with `MemoryWorker`; what fails runs once more by itself, and is named if it passes then."""
    outcomes = run(folder, MEMORY_WORKER, settings, arguments)
    if failed := names(outcomes, "failed"):
        again = run(folder, MEMORY_WORKER, settings, [*failed, *options])
        for test in names(again, "passed"):
            click.echo(f"failed, then passed by itself: {test}")
        outcomes |= again
    return outcomes


def run(folder: Path, worker: str, settings: dict[str, str], arguments: list[str]) -> dict[str, str]:
    """Run pytest in ``folder``; how each test ended: passed, skipped or failed."""
    heading(f"RQ's tests with {worker}")
    with tempfile.TemporaryDirectory(prefix="rq-suite-") as name, redis_server(Path(name)) as port:
        site, outcomes = Path(name) / "site", Path(name) / "outcomes"
        site.mkdir()
        outcomes.touch()
        (site / "sitecustomize.py").symlink_to(inside.__file__)
        clean = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)}
        own = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",  # tests call rqworker
            "PYTHONPATH": f"{site}{os.pathsep}{folder}",  # whose worker imports the tests
            inside.PORT: str(port),
            inside.WORKER: worker,
            inside.OUTCOMES: str(outcomes),
            **settings,
            "RUN_SLOW_TESTS_TOO": "1",
        }
        pytest = [sys.executable, "-m", "pytest", "-p", "sitecustomize", "-p", "no:cacheprovider", "-q", *arguments]
        clean_up()
        started = time.monotonic()
        try:
            exit_code = subprocess.run(
                pytest, cwd=folder, env={**clean, **own}, timeout=_RUN_SECONDS, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            sys.exit(f"rq_suite: pytest was ended after {_RUN_SECONDS} s")
        click.echo(f"{time.monotonic() - started:.0f} s with {worker}")
        if exit_code not in _ENDED:
            sys.exit(f"rq_suite: pytest did not come to its end (exit code {exit_code})")
        return worst_outcomes(outcomes.read_text())


def clean_up() -> None:
    """Remove what an earlier run of RQ's tests left in /tmp (their names for it are fixed)."""
    for path in (path for pattern in _LEFT_BEHIND for path in Path("/tmp").glob(pattern)):
        if path.lstat().st_uid == os.geteuid():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def worst_outcomes(lines: str) -> dict[str, str]:
    """The worst of what was written down for each test (its teardown may fail, or one of its subtests)."""
    rank = ("passed", "skipped", "failed")
    worst: dict[str, str] = {}
    for line in lines.splitlines():
        outcome, _, test = line.partition(" ")
        worst[test] = max(outcome, worst.get(test, "passed"), key=rank.index)
    return worst


@contextmanager
def redis_server(folder: Path) -> Iterator[int]:
    """The port of an empty Redis on loopback that nobody else uses (a test tells its clients apart by port)."""
    settings = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    for _ in range(_ATTEMPTS):
        port = free_port()
        command = [embedded_files.find_program(), "--port", str(port), *settings]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            wait_until(lambda: server.poll() is not None or answers(port, server.pid), 30)  # noqa: B023
            if server.poll() is None:
                yield port
                return
        finally:
            server.terminate()
            server.wait()
    sys.exit(f"rq_suite: {command[0]} does not start")


def answers(port: int, pid: int) -> bool:
    """Whether the server at ``port`` answers, and is the one we started."""
    try:
        with redis.Redis(port=port) as client:
            return client.info("server")["process_id"] == pid
    except redis.RedisError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    main()
