"""A real ``rqmem worker`` of the script's own, and the traces that it and its jobs leave in Redis.

Everything that is made has a mark in its name: the queue, the worker, each job, and so each key. The Redis may belong
to somebody else, so nothing without the mark is touched.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, cast

from redis import Redis
from rq import Queue
from rq.group import Group
from rq.worker_registration import REDIS_WORKER_KEYS

from rqmem.doctor.selftest import last_words
from rqmem.errors import RqmemError
from rqmem.store import keys
from rqmem.store.history import clearing
from rqmem.testing import wait_until
from rqmem.units import show_mb
from scripts.harness import running, without_settings


def new_mark() -> str:
    """A name that nothing else on any Redis has."""
    return f"mechanisms-{secrets.token_hex(4)}"


@dataclass(frozen=True)
class OwnWorker:
    """A worker that runs, and the file that it writes its log to."""

    process: subprocess.Popen[Any]
    log_file: IO[str]

    def wait_for(self, condition: Callable[[], object], seconds: float) -> bool:
        """Whether the condition came true within that time. Raises `RqmemError` if the worker has ended."""
        try:
            wait_until(lambda: self.process.poll() is not None or condition(), seconds)
        except AssertionError:
            return False
        if self.process.poll() is not None and not condition():
            raise RqmemError(f"the worker ended with {self.process.returncode}: {last_words(self.log())}")
        return True

    def log(self) -> str:
        self.log_file.seek(0)
        return self.log_file.read()


@contextmanager
def own_worker(mark: str, memory_mb: float) -> Iterator[OwnWorker]:
    """A worker with default settings on the queue ``mark``. It and its jobs are ended when the block is left."""
    command = ["rqmem", "worker", mark, "--memory", show_mb(memory_mb), "--name", f"{mark}-worker"]
    chosen = {name: value for name, value in os.environ.items() if name == "RQMEM_REDIS_URL"}
    options: Any = {"env": without_settings() | chosen, "cwd": None, "stderr": subprocess.STDOUT}
    with (
        tempfile.TemporaryFile("w+") as log,
        running(*command, "--path", os.curdir, "--log-level", "info", stdout=log, **options) as process,
    ):
        yield OwnWorker(process, log)


def forget(connection: Redis, mark: str, job_types: list[str]) -> None:
    """Remove what the jobs and the worker of this mark have left, and the history of these job types."""
    Queue(mark, connection=connection).delete(delete_jobs=True)
    for job_type in job_types:
        clearing.clear_type(connection, job_type)
    for name in cast("Iterator[bytes]", connection.scan_iter(f"*{mark}*", count=1000)):
        connection.unlink(name)
    for shared in (Queue.redis_queues_keys, REDIS_WORKER_KEYS, Group.REDIS_GROUP_KEY, keys.SPLITS):
        connection.srem(shared, *_marked(connection.smembers(shared), mark))
    for shared in (keys.SAMPLED, keys.STORIES, keys.DELAYED):
        connection.zrem(shared, *_marked(connection.zrange(shared, 0, -1), mark))
    connection.hdel(keys.RUNNING, *_marked(connection.hkeys(keys.RUNNING), mark))
    for ended in _marked(connection.lrange(keys.ENDED_SPLITS, 0, -1), mark):
        connection.lrem(keys.ENDED_SPLITS, 0, ended.decode())


def _marked(members: object, mark: str) -> list[bytes]:
    """The members with the mark in them. If there is none, the mark itself: Redis refuses an empty list."""
    return [member for member in cast("set[bytes]", members) if mark.encode() in member] or [mark.encode()]
