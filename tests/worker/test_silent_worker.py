"""A worker that was killed: all displays say the same about it, also where it kept no journal."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from redis import Redis
from rq import Queue
from rq.utils import now, utcformat

from rqmem.cli import main
from rqmem.store import keys
from rqmem.testing import wait_until
from tests import sample_jobs
from tests.conftest import StartWorker


def test_all_displays_agree_about_a_worker_that_was_killed(
    redis_url: str, connection: Redis, start_worker: StartWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RQMEM_REDIS_URL", redis_url)
    gate, report = tmp_path / "gate", tmp_path / "report.json"

    def kinds() -> set[str]:
        def asked(*arguments: str) -> Any:
            return json.loads(CliRunner().invoke(main, arguments).stdout)

        CliRunner().invoke(main, ["monitor", "--duration", "1", "--plain", "--output-file", str(report)])
        [by_status] = asked("status", "--json")["workers"]
        [by_monitor] = json.loads(report.read_text())["workers"]
        found = [by_status, by_monitor, asked("top", "--once", "--json")["worker"]]
        return {each["kind"] for each in [*found, asked("status", "--worker", "ada", "--json")]}

    Queue("q", connection=connection).enqueue(sample_jobs.wait_for_file, str(gate))
    worker = start_worker("q", "--name", "ada", RQMEM_JOURNAL="off", RQMEM_HEARTBEAT="1")
    wait_until(lambda: connection.zcard("rq:wip:q"))
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: not connection.exists(keys.alive("ada")))
    connection.hset("rq:worker:ada", "birth", utcformat(now()))
    assert kinds() == {"rqmem"}, "a worker that has just been born may not have made its first heartbeat"
    connection.hset("rq:worker:ada", "birth", "2026-01-01T00:00:00.000000Z")
    assert kinds() == {"silent"}
    gate.touch()
