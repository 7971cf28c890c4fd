"""Jobs whose workers the tests kill, and callbacks of those."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from rq import get_current_job

from rqmem import MemoryAwareJob
from tests.sample_jobs import redis


def wait_for(key: str) -> str:
    """Says that it runs, and ends when told to."""
    job = get_current_job()
    redis().rpush("began", job.id)
    while not redis().exists(key):
        time.sleep(0.01)
    return key


def remember_abandoned(job: Any, connection: Any, kind: type, value: BaseException, trace: Any) -> None:
    """A failure callback."""
    connection.rpush("failures", f"{kind.__name__}: {value}")


def kill_who_settles(job: Any, connection: Any, kind: type, value: BaseException, trace: Any) -> None:
    """A failure callback whose process, and the one above it, are killed the first time."""
    if connection.rpush("failures", kind.__name__) == 1:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)


class Waits(MemoryAwareJob):
    """A parent of two children that wait until they are told to end."""

    queue = "jobs"
    on_child_failure = "continue"

    def handle(self, items: Any = None) -> Any:
        if items is None:
            return self.split_into_child_jobs(range(2), items_per_child=1)
        return wait_for("go on")

    def gather(self, results: Any) -> Any:
        return [each.error for each in results.failures], list(results)
