"""``rqmem dashboard`` as a process."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
from redis import Redis

from rqmem.units import MB
from tests import forked
from tests.conftest import ROOT

MOST_MB = 70


@pytest.fixture
def start(redis_url: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def run(*options: str, url: str = redis_url, popen: Any = forked.Popen) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-m", "rqmem", "dashboard", "--port", "0", "--url", url, *options]
        started.append(popen(arguments, env=forked.environ(), cwd=ROOT, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    said = []
    while line := process.stderr.readline():
        said.append(line)
        if found := re.search(r"is at (http://127\.0\.0\.1:\d+/)", line):
            return found[1]
    raise AssertionError("".join(said))


def test_it_serves_within_its_memory_and_ends_when_asked(
    connection: Redis, filled: Redis, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start(popen=subprocess.Popen)  # a start of its own: its memory is measured
    url = address(process)
    for path in ("", "live", "jobs", "types", "trends", "queues", "workers", "api/v1/live"):
        with urlopen(url + path, timeout=60) as answer:
            assert answer.status == 200
            assert "Server" not in answer.headers
    with urlopen(f"{url}api/v1/events", timeout=60) as stream:
        assert stream.readline().startswith(b"data: {")
        assert psutil.Process(process.pid).memory_info().rss < MOST_MB * MB
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0  # also with a page open


def test_it_starts_while_redis_is_away(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start(url="redis://127.0.0.1:1")
    assert address(process).startswith("http://127.0.0.1:")


def test_it_refuses_to_be_open_to_others(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("--host", "0.0.0.0")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.startswith("rqmem: --host 0.0.0.0 is reached by others: set RQMEM_DASHBOARD_PASSWORD")


def test_a_port_that_is_taken_is_named(start: Callable[..., subprocess.Popen[str]]) -> None:
    port = address(start()).rstrip("/").rpartition(":")[2]
    process = start("--port", port)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"port {port} on 127.0.0.1 is in use" in errors
