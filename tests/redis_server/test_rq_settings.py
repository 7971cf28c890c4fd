"""RQ's settings file (``-c``), with a real Sentinel; a Redis user with few rights; a node of a Cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from redis.sentinel import Sentinel, SentinelConnectionPool
from rq import Queue

from rqmem.config.settings import Config
from rqmem.connection import connect
from rqmem.connection.looking import to_look_at
from rqmem.errors import ConfigError
from rqmem.measure.linux import die_with_parent
from rqmem.store import keys
from rqmem.testing import wait_until
from rqmem.worker.alert_sender import SenderProcess
from tests import forked
from tests.conftest import ROOT, free_port


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Start a Redis server with these options on a free port of 127.0.0.1; returns the port."""
    program = Path(sys.executable).with_name("redis-server")
    found = str(program) if program.exists() else shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server")
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str, config: str = "", sentinel: bool = False) -> int:
        for _ in range(50):
            port = free_port()
            directory = tmp_path / str(port)
            directory.mkdir(exist_ok=True)
            (directory / "redis.conf").write_text(f"bind 127.0.0.1\nport {port}\ndir {directory}\n{config}\n")
            command = [found, str(directory / "redis.conf"), *(["--sentinel"] if sentinel else []), *options]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=die_with_parent)
            started.append(process)
            wait_until(lambda: _answers(port) or process.poll() is not None)  # noqa: B023
            if process.poll() is None:
                return port
        # A Cluster's server wants the port 10,000 above too, which may be none, or be taken.
        raise AssertionError("no server starts with this configuration")

    yield start
    for process in started:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        with redis.Redis(port=port) as client:
            client.ping()
    except redis.AuthenticationError:
        return True
    except redis.RedisError:
        return False
    return True


@dataclass(frozen=True)
class Commands:
    """Runs rqmem in a directory with a settings file ``rq_settings.py``; no variable names a Redis."""

    directory: Path

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        names = ("RQMEM_", "MEMORY_", "RQ_", "REDIS_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(names)}
        return forked.run(
            [sys.executable, "-m", "rqmem", *arguments], cwd=self.directory, timeout=60,
            env={**clean, "PYTHONPATH": str(ROOT), **environ},
        )  # fmt: skip

    def settings(self, text: str) -> None:
        (self.directory / "rq_settings.py").write_text(text)


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    (tmp_path / "project").mkdir()
    return Commands(tmp_path / "project")


def test_a_worker_and_the_other_commands_find_redis_by_a_sentinel(
    serve: Callable[..., int], commands: Commands
) -> None:
    port = serve()
    sentinel = serve(config=f"sentinel monitor shop 127.0.0.1 {port} 1", sentinel=True)
    commands.settings(
        f'SENTINEL = {{"INSTANCES": [("127.0.0.1", {sentinel})], "MASTER_NAME": "shop", "DB": 2}}\n'
        'QUEUES = ["mail"]\nNAME = "worker-of-the-settings"\n'
    )
    job = Queue("mail", connection=redis.Redis(port=port, db=2)).enqueue("tests.sample_jobs.with_hooks")
    done = commands.run("worker", "-c", "rq_settings", "--burst")
    assert done.returncode == 0, done.stderr
    assert job.return_value() == "done"
    assert "worker-of-the-settings" in done.stderr
    for command in (["status"], ["inspect", job.id], ["report"], ["alerts"], ["recommend"], ["config", "--jobs"]):
        looked = commands.run(*command, "-c", "rq_settings")
        assert looked.stderr == "", (command, looked)
        assert looked.returncode == int(command == ["status"])  # no worker is running
    assert "no worker is running" in commands.run("status", RQ_CONFIG="rq_settings").stdout
    assert f"shop of the Sentinels 127.0.0.1:{sentinel}" in commands.run("config", "-c", "rq_settings").stdout
    again = commands.run("enqueue", "tests.sample_jobs.with_hooks", "-c", "rq_settings", "--queue", "mail")
    assert again.returncode == 0, again.stderr


def test_a_workers_sender_of_alerts_finds_redis_by_a_sentinel(serve: Callable[..., int]) -> None:
    pytest.importorskip("apprise", reason="Apprise is not installed")
    port = serve()
    sentinel = serve(config=f"sentinel monitor shop 127.0.0.1 {port} 1", sentinel=True)
    connection = Sentinel([("127.0.0.1", sentinel)]).master_for("shop")
    process = SenderProcess(Config(alert_urls=("json://127.0.0.1:1",)), connection, "w1")
    process.start()
    try:
        process.wait_until_ready()
        [group] = connection.xinfo_groups(keys.ALERTS)
        assert group["consumers"] == 1
    finally:
        process.stop()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('SENTINEL = {"INSTANCES": [("127.0.0.1", 1)], "MASTER_NAME": "shop"}', "shop of the Sentinels 127.0.0.1:1"),
        ('REDIS_HOST = "127.0.0.1"; REDIS_PORT = 1', "redis://127.0.0.1:1"),
        ('REDIS_URL = "redis://:hunter2@127.0.0.1:1"', "redis://:***@127.0.0.1:1"),
    ],
)
def test_a_redis_of_the_settings_that_does_not_answer_is_one_line(commands: Commands, text: str, words: str) -> None:
    commands.settings(text)
    done = commands.run("worker", "-c", "rq_settings", "--burst")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"rqmem: Redis at {words} (-c rq_settings) cannot be used: ")
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("module", "text", "words"),
    [
        ("rq_setings", "", "-c rq_setings (or RQ_CONFIG) cannot be imported: there is no module"),
        ("rq_settings", "1/0", "cannot be imported: ZeroDivisionError"),
        ("rq_settings", "SENTINEL = 3", "-c rq_settings names no Redis that can be used"),
        ("rq_settings", 'REDIS_HOST = "h"; REDIS_SSL = "perhaps"', "names no Redis that can be used: ValueError"),
        ("rq_settings", 'REDIS_URL = "localhost:6379"', "it must start with one of redis://"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line(commands: Commands, module: str, text: str, words: str) -> None:
    commands.settings(text)
    done = commands.run("status", "-c", module)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert words in done.stderr


def test_the_order_in_which_a_redis_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "order_settings.py").write_text('REDIS_URL = "redis://module"')
    (tmp_path / "empty_settings.py").write_text('QUEUES = ["mail"]')
    monkeypatch.syspath_prepend(str(tmp_path))
    environ = {"RQMEM_REDIS_URL": "redis://a", "RQ_CONFIG": "order_settings", "RQ_REDIS_URL": "redis://b"}
    sources = []
    for gone in ("", "RQMEM_REDIS_URL", "RQ_CONFIG"):
        environ.pop(gone, None)
        choice = connect.choose_url(None, environ)
        assert choice is not None
        sources.append(choice.source)
    assert sources == ["RQMEM_REDIS_URL", "-c order_settings", "RQ_REDIS_URL"]
    choice = connect.choose_url(None, {"RQ_CONFIG": "empty_settings", "REDIS_URL": "redis://c"})
    assert choice is not None and choice.source == "REDIS_URL"
    with pytest.raises(ConfigError):
        connect.choose_url(None, {"RQ_CONFIG": "no_such_settings"})


def test_a_user_that_may_use_rqs_keys_only_is_told_which_are_missing(
    serve: Callable[..., int], commands: Commands
) -> None:
    port = serve(config="user default off\nuser admin on >secret ~* &* +@all\nuser shop on >pw ~rq:* &* +@all")
    url = f"redis://shop:pw@127.0.0.1:{port}"
    for arguments in (["worker", "--burst"], ["status"]):
        done = commands.run(*arguments, "--url", url)
        assert done.returncode == 1
        [line] = [line for line in done.stderr.splitlines() if line.startswith("rqmem: ")]
        assert "rqmem:* as well as rq:*" in line and "~rqmem:*" in line
    found = json.loads(commands.run("doctor", "--no-self-test", "--json", "--url", url).stdout)
    assert "rqmem's keys are refused" in json.dumps(found)
    done = forked.run_module("rq.cli", "worker", "--burst", "-w", "rqmem.MemoryWorker", "--url", url)
    assert "rqmem:* as well as rq:*" in done.stdout + done.stderr


def test_doctor_tells_a_cluster_and_a_server_without_info(serve: Callable[..., int], commands: Commands) -> None:
    cluster = serve(config="cluster-enabled yes")
    done = commands.run("doctor", "--no-self-test", "--url", f"redis://127.0.0.1:{cluster}")
    said = " ".join(done.stdout.split())
    assert "is a node of a Redis Cluster" in said
    assert "RQ does not support a Cluster" in said
    port = serve(config="user default on nopass ~* &* +@all -info")
    done = commands.run("doctor", "--no-self-test", "--json", "--url", f"redis://127.0.0.1:{port}")
    [server] = [each for each in json.loads(done.stdout)["findings"] if each["name"] == "server"]
    assert server["mark"] == "note"
    assert "refuses INFO" in server["text"]


@pytest.mark.parametrize(
    ("options", "there", "missing"),
    [
        (("-q",), [], ["Listening on"]),
        (("-v",), ["performing job"], []),
        (("-q", "--log-level", "debug"), ["performing job"], []),
        (("--logging_level", "WARNING"), [], ["Listening on"]),
        (("--logging-level", "debug"), ["performing job"], []),
        (("--date-format", "at %H o'clock"), ["o'clock Worker", "o'clock worker"], []),
        (("--log-format", "%(levelname)s|%(message)s", "--date-format", "%H"), ["INFO|Worker", "INFO|worker"], []),
    ],
)
def test_options_of_rq_for_the_log(
    connection: redis.Redis, redis_url: str, commands: Commands, options: tuple[str, ...], there: list[str],
    missing: list[str],
) -> None:  # fmt: skip
    Queue(connection=connection).enqueue("tests.sample_jobs.with_hooks")
    done = commands.run("worker", "--burst", "--url", redis_url, *options)
    assert done.returncode == 0, done.stderr
    assert all(words in done.stderr for words in there), done.stderr
    assert not any(words in done.stderr for words in missing), done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-v", "-q"), "--verbose and --quiet exclude each other"),
        (("--log-format", "xml"), "--log-format 'xml': give text, json, or a format with %(message)s in it"),
        (("--connection-class", "json.JSONDecoder"), "is no subclass of redis.Redis"),
    ],
)
def test_options_that_cannot_be_used(commands: Commands, options: tuple[str, ...], words: str) -> None:
    done = commands.run("worker", "--burst", *options)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert words in done.stderr


def test_a_client_class_and_a_log_of_the_settings_are_used(
    connection: redis.Redis, redis_url: str, commands: Commands
) -> None:
    (commands.directory / "own.py").write_text(
        "import redis\nclass Client(redis.Redis):\n    pass\ndef client():\n"
        "    from rq import get_current_job\n    return type(get_current_job().connection).__name__\n"
    )
    commands.settings(
        f"REDIS_URL = {redis_url!r}\nDICT_CONFIG = {{'version': 1, 'handlers': {{'out': {{'class':"
        " 'logging.StreamHandler', 'formatter': 'own'}}, 'formatters': {'own': {'format': 'OWN %(message)s'}},"
        " 'root': {'handlers': ['out']}}\n"
    )
    job = Queue(connection=connection).enqueue("own.client")
    done = commands.run("worker", "--burst", "-c", "rq_settings", "--connection-class", "own.Client")
    assert job.return_value() == "Client"
    assert "OWN worker " in done.stderr


def test_whoever_looks_at_a_redis_of_sentinels_waits_for_no_sentinel_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "looking_settings.py").write_text('SENTINEL = {"INSTANCES": [("127.0.0.1", 1)], "MASTER_NAME": "shop"}')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("RQMEM_REDIS_URL", raising=False)
    monkeypatch.setenv("RQ_CONFIG", "looking_settings")
    connection, _ = to_look_at(None, 1.5)
    pool = connection.connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    [sentinel] = pool.sentinel_manager.sentinels
    for options in (pool.connection_kwargs, sentinel.connection_pool.connection_kwargs):
        assert (options["socket_timeout"], options["socket_connect_timeout"]) == (1.5, 1.5)
