"""A real ``rqmem worker`` of the script's own, and the traces that it and its jobs leave in Redis.

Whatever is made has the mark in its name: the queue, the worker, each job, and so each key. It may be somebody's
Redis: nothing else is touched.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, cast

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
from scripts.harness import end, without_settings

_WHICH_REDIS = "RQMEM_REDIS_URL"


def new_mark() -> str:
    """A name that nothing else on any Redis has."""
    return f"mechanisms-{secrets.token_hex(4)}"


class OwnWorker:
    """A worker that runs; `wait_for` notices when it does not any more."""

    def __init__(self, process: subprocess.Popen[str], log: IO[str]) -> None:
        self._process = process
        self._log = log

    def wait_for(self, condition: Callable[[], object], seconds: float) -> bool:
        """Whether the condition came true within that time. Raises `RqmemError` when the worker has ended."""
        try:
            wait_until(lambda: self._process.poll() is not None or condition(), seconds)
        except AssertionError:
            return False
        if self._process.poll() is not None and not condition():
            code = self._process.returncode
            raise RqmemError(f"the worker ended with {code}: {last_words(self.log())}")
        return True

    def log(self) -> str:
        """What it has said so far."""
        self._log.seek(0)
        return self._log.read()


@contextmanager
def own_worker(mark: str, memory_mb: float) -> Iterator[OwnWorker]:
    """A worker on the queue ``mark`` with default settings; ended, with all it runs, when the block is left."""
    command = [sys.executable, "-m", "rqmem", "worker", mark, "--memory", show_mb(memory_mb)]
    options = ["--name", f"{mark}-worker", "--path", os.curdir, "--log-level", "info"]
    environ = without_settings() | {name: os.environ[name] for name in (_WHICH_REDIS,) if name in os.environ}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([*command, *options], env=environ, stdout=log, stderr=subprocess.STDOUT, text=True)
        try:
            yield OwnWorker(process, log)
        finally:
            end(process)


def forget(connection: Redis, mark: str, job_types: list[str]) -> None:
    """Remove what jobs and worker of this mark have left, and what the journal has of these job types."""
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


def _marked(members: object, mark: str) -> list[bytes]:
    """Those of ours; never none, which Redis would refuse."""
    return [member for member in cast("set[bytes]", members) if mark.encode() in member] or [mark.encode()]
