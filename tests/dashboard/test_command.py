"""``rqmem dashboard`` as a process."""

from __future__ import annotations

import re
import signal
from urllib.request import urlopen

import psutil
import pytest
from redis import Redis

from rqmem.units import MB
from tests import forked
from tests.conftest import StartCommand, WorkerProcess

MOST_MB = 70


@pytest.fixture
def start(redis_url: str, start_command: StartCommand) -> StartCommand:
    return lambda *options, url=redis_url: start_command("dashboard", "--port", "0", "--url", url, *options)


def address(process: WorkerProcess) -> str:
    process.wait_for("; Ctrl-C ends it")
    found = re.search(r"is at (http://127\.0\.0\.1:\d+/)", process.printed)
    assert found, process.printed
    return found[1]


def test_it_serves_within_its_memory_and_ends_when_asked(connection: Redis, filled: Redis, start: StartCommand) -> None:
    with forked.starting_anew():  # its memory is measured
        process = start()
    url = address(process)
    for path in ("", "live", "jobs", "types", "trends", "queues", "workers", "api/v1/live"):
        with urlopen(url + path, timeout=60) as answer:
            assert answer.status == 200
            assert "Server" not in answer.headers
    with urlopen(f"{url}api/v1/events", timeout=60) as stream:
        assert stream.readline().startswith(b"data: {")
        assert psutil.Process(process.pid).memory_info().rss < MOST_MB * MB
        assert process.end(signal.SIGTERM) == 0  # also with a page open


def test_it_starts_while_redis_is_away(start: StartCommand) -> None:
    process = start(url="redis://127.0.0.1:1")
    assert address(process).startswith("http://127.0.0.1:")


def test_it_refuses_to_be_open_to_others(start: StartCommand) -> None:
    refused = start("--host", "0.0.0.0")
    errors = refused.finish()
    assert refused.process.returncode == 2
    assert errors.startswith("rqmem: --host 0.0.0.0 is reached by others: set RQMEM_DASHBOARD_PASSWORD")


def test_a_port_that_is_taken_is_named(start: StartCommand) -> None:
    port = address(start()).rstrip("/").rpartition(":")[2]
    refused = start("--port", port)
    errors = refused.finish()
    assert refused.process.returncode == 2
    assert f"port {port} on 127.0.0.1 is in use" in errors
