"""What `scripts.rq_suite` changes in each Python process of RQ's tests. PYTEST_DONT_REWRITE

Put on their path as ``sitecustomize``, so that it runs before any import of theirs, in pytest and in what
the tests start (``rqworker``, spawned horses): the standard address of Redis leads to a server of our own,
and `rq.Worker` is `rqmem.MemoryWorker`. RQ's other worker classes stay RQ's. In pytest it is a plugin too
(a fault in here then ends the run), which says what is tested and writes down how each test ended.
"""

from __future__ import annotations

import multiprocessing
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import redis.connection

PORT, WORKER, OUTCOMES = "SUITE_REDIS_PORT", "SUITE_WORKER", "SUITE_OUTCOMES"


def redirect_connections(port: int) -> None:
    """Connect to ``port`` wherever 127.0.0.1:6379 is named; what a connection says of itself stays."""
    connect = redis.connection.Connection._connect

    def connect_to_ours(self: Any) -> Any:
        named = self.port
        if int(named) == 6379 and self.host in ("localhost", "127.0.0.1", "::1"):
            self.port = port
        try:
            return connect(self)
        finally:
            self.port = named

    redis.connection.Connection._connect = connect_to_ours  # type: ignore[method-assign]


def replace_worker() -> None:
    """Let `rq.Worker` be `rqmem.MemoryWorker` wherever RQ offers or starts it; RQ's subclasses keep their base."""
    import rq
    import rq.worker
    import rq.worker_pool

    from rqmem import MemoryWorker

    for module in (rq, rq.worker, rq.worker_pool):
        setattr(module, "Worker", MemoryWorker)  # noqa: B010  mypy knows no such attribute of a module


def pytest_report_header() -> str:
    import rq

    worker = rq.Worker
    return f"rq {version('rq')} from {Path(rq.__file__).parent}, rq.Worker is {worker.__module__}.{worker.__name__}"


def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "call" or report.outcome != "passed":
        with Path(os.environ[OUTCOMES]).open("a") as file:
            file.write(f"{report.outcome} {report.nodeid}\n")


def pytest_unconfigure() -> None:
    """Workers that a failed test left running would keep this process from its end."""
    for process in multiprocessing.active_children():
        process.kill()


if __name__ == "sitecustomize":
    redirect_connections(int(os.environ[PORT]))
    if os.environ[WORKER] == "MemoryWorker":
        replace_worker()
