"""One real Redis server for the whole run, emptied between tests; workers as real processes."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import redis
from rq import Queue

from rqmem.connection import embedded
from rqmem.testing import wait_until
from tests import forked
from tests.receiver import Receiver

if TYPE_CHECKING:
    from tests.postgres import PostgresServer

ROOT = Path(__file__).parents[1]

os.environ.pop("PYTHONUNBUFFERED", None)  # else commands write each line at once, and so fail at once on a closed pipe

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell has started us in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else what we start would ignore it too

hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine fails no test
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--redis",
        choices=["bundled", "path"],
        default="bundled",
        help="server to test on: the embedded extra's, or redis-server on PATH (skipped where there is none)",
    )

    parser.addoption(
        "--isolation", choices=["warm", "fork"], default="warm", help="how the tests' workers keep their horses"
    )

    parser.addoption("--lease-max", default="", help="how many jobs the tests' workers lease; by default the default")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A run of the few tests with one mark imports no file without it: that would take longer than some of them."""
    mark = config.option.markexpr
    if mark not in ("alone", "races") or collection_path.suffix != ".py":
        return None
    return f"pytest.mark.{mark}" not in collection_path.read_text() or None


def pytest_collection() -> None:
    gc.disable()  # hardly anything of what is collected is garbage, and a fifth of the time goes into looking for it


def pytest_collection_finish() -> None:
    gc.enable()
    gc.freeze()  # thousands of collected tests: each gc.collect() of a test would take most of a second to walk them


@pytest.fixture(scope="module", autouse=True)
def libraries(request: pytest.FixtureRequest) -> Iterator[None]:
    """What processes of a module's tests have imported when they start, besides rqmem: the module's ``LIBRARIES``."""
    with forked.preloading(*getattr(request.module, "LIBRARIES", ())):
        yield


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server of our own."""
    directory = tmp_path_factory.mktemp("redis of the tests")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        if request.config.getoption("--redis") == "bundled":
            patch.setenv("PATH", str(directory))
        elif not shutil.which("redis-server"):
            pytest.skip("no redis-server on PATH")
        url = embedded.start(directory).url
    yield url
    embedded.stop(directory)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for the whole run. Skips, with the reason, where none can be had."""
    from tests import postgres as postgres_server  # it needs SQLAlchemy, which not all tests do

    if reason := postgres_server.missing():
        pytest.skip(reason)
    with postgres_server.running() as server:
        yield server


@pytest.fixture
def connection(redis_url: str) -> Iterator[redis.Redis]:
    """A connection to our own server, which is empty."""
    with redis.Redis.from_url(redis_url) as connection:
        connection.flushall()
        yield connection


@dataclass
class OwnRedis:
    """A server of one test's own, to stop and to kill."""

    directory: Path
    server: embedded.Server

    @property
    def connection(self) -> redis.Redis:
        return redis.Redis.from_url(self.server.url)

    @property
    def queue(self) -> Queue:
        return Queue("jobs", connection=self.connection)

    def kill(self) -> None:
        os.kill(self.server.pid, signal.SIGKILL)
        wait_until(lambda: embedded.status(self.directory) is None)

    def start_again(self) -> None:
        url = self.server.url
        self.server = embedded.start(self.directory)
        assert self.server.url == url
        self.keep_all()

    def keep_all(self) -> None:
        """Nothing that was answered is lost when it is killed. Else Redis writes later while the disk is busy."""
        self.connection.config_set("appendfsync", "always")


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    own = OwnRedis(tmp_path, embedded.start(tmp_path))
    own.keep_all()
    yield own
    embedded.stop(own.directory)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A service of alerts."""
    pytest.importorskip("apprise", reason="Apprise is not installed")
    made = Receiver()
    yield made
    made.close()


class WorkerProcess:
    """A ``rqmem worker`` (or another command) running beside the test.

    Its output goes to a file: a pipe that nobody reads would stop it after 64 KB. ``apart``: stderr has one of its own.
    """

    def __init__(
        self, arguments: list[str], environ: dict[str, str], directory: Path, *, apart: bool = False, **options: Any
    ) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the test)
        self._errors = tempfile.TemporaryFile() if apart else self._output  # noqa: SIM115
        self.process = forked.Popen(
            arguments, env=environ, cwd=directory, stdout=self._output, stderr=self._errors, **options
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def finish(self, timeout_seconds: float = 300) -> str:
        """Wait for its end and return what it printed."""
        self.process.wait(timeout_seconds)
        return self.printed

    @property
    def printed(self) -> str:
        """Up to now."""
        return Path(f"/proc/self/fd/{self._output.fileno()}").read_text()

    @property
    def errors(self) -> str:
        """The same of stderr."""
        return Path(f"/proc/self/fd/{self._errors.fileno()}").read_text()

    def wait_for(self, words: str, times: int = 1) -> None:
        """Until it has printed these words so often. It must not end before."""

        def there() -> bool:
            has_ended = self.process.poll() is not None
            found = self.printed.count(words) >= times
            assert found or not has_ended, self.printed + self.errors
            return found

        wait_until(there)

    def end(self, by: signal.Signals = signal.SIGINT) -> int:
        """Send a signal, wait for its end, and return its exit code."""
        self.process.send_signal(by)
        return self.process.wait(90)

    def stop(self) -> str:
        """Send SIGTERM, wait for its end, and return what it printed."""
        self.process.terminate()
        return self.finish()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            print(self.printed)  # pytest shows it if the test has failed
        self._output.close()
        self._errors.close()


StartCommand = StartWorker = Callable[..., WorkerProcess]
WorkOff = Callable[..., str]


@pytest.fixture
def start_command(redis_url: str, connection: redis.Redis) -> Iterator[StartCommand]:
    """Start ``rqmem`` with these arguments on our server; whatever still runs at the end is killed.

    ``module``: another program, as ``python -m`` takes it. ``prefix``: what begins the command. Settings are named.
    """
    started: list[WorkerProcess] = []

    def start(
        *arguments: str, module: str = "rqmem", directory: Path = ROOT, prefix: Sequence[str] = (),
        apart: bool = False, start_new_session: bool = False, **environ: str,
    ) -> WorkerProcess:  # fmt: skip
        command = [*prefix, sys.executable, "-m", module, *arguments]
        full = forked.environ(**{"RQMEM_REDIS_URL": redis_url, **environ})
        started.append(WorkerProcess(command, full, directory, apart=apart, start_new_session=start_new_session))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture
def start_worker(start_command: StartCommand, request: pytest.FixtureRequest) -> StartWorker:
    """Start ``rqmem worker`` with these options, and with those that this run of the tests was given."""
    own = {"RQMEM_ISOLATION": request.config.getoption("--isolation")}
    if lease_max := request.config.getoption("--lease-max"):
        own["RQMEM_LEASE_MAX"] = lease_max
    return lambda *options, **more: start_command("worker", *options, **{**own, **more})


@pytest.fixture
def work_off(start_worker: StartWorker) -> WorkOff:
    """Run a worker until its queues are empty; returns its log."""

    def run(*options: str, **environ: Any) -> str:
        worker = start_worker("--burst", *options, **environ)
        output = worker.finish()
        assert worker.process.returncode == 0, output
        return output

    return run


def wait_for_key(connection: redis.Redis, key: str, timeout_seconds: float = 90) -> None:
    """Jobs of the tests say where they are by setting a key."""
    wait_until(lambda: connection.exists(key), timeout_seconds)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
