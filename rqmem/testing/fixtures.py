"""pytest fixtures: your jobs on a real worker, over a Redis of their own. Only this module needs pytest.

::

    pytest_plugins = ["rqmem.testing.fixtures"]  # in the conftest.py at the root

    def test_export_fits(memory_worker):
        outcome = memory_worker.run(ExportCustomers, tenant_id=7, memory_mb=256)
        assert outcome.status == "finished", outcome.log
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import pytest
import redis

from rqmem.connection import embedded
from rqmem.events import Breach
from rqmem.rq_names import Job, Queue
from rqmem.store import execution_reader
from rqmem.tracebacks import what_was_raised
from rqmem.units import show_mb
from rqmem.values import dataclass

_QUEUE = "memory_worker"
_TERMS, _TERM_SECONDS = 4, 1.2  # RQ takes no notice of a second one within a second


@dataclass(frozen=True)
class Outcome:
    """How a job ended on a real worker.

    Attributes:
        status: RQ's, ``"finished"`` or ``"failed"`` as a rule.
        result: what it returned.
        error: what it raised in one line, with the error's name; ``""`` for none.
        breaches: newest first.
        peak_mb: most it was seen to use; None for a job that is not memory-aware and did not breach.
        resumes: how often it went on from its cursor.
        log: what the worker wrote.
    """

    status: str
    result: Any
    error: str
    breaches: tuple[Breach, ...]
    peak_mb: float | None
    resumes: int
    log: str


class RealWorker:
    """Runs one job after another, each on a new ``rqmem worker`` in the current directory."""

    def __init__(self, connection: redis.Redis) -> None:
        self.connection = connection

    def run(
        self,
        job: Any,
        *args: Any,
        memory_mb: float = 256,
        options: Sequence[str] = (),
        timeout_seconds: float = 60,
        **kwargs: Any,
    ) -> Outcome:
        """Enqueue ``job`` with these arguments, run it to its end, and return how it ended.

        Args:
            job: a `MemoryAwareJob`, a function, or the dotted path of one.
            memory_mb: the worker's ceiling.
            options: more options of ``rqmem worker``.
            timeout_seconds: the worker is ended after this time, and the test fails.
            kwargs: the job's own, and RQ's enqueue options.
        """
        enqueued = self._enqueue(job, args, kwargs)
        command = [sys.executable, "-m", "rqmem", "worker", _QUEUE, "--burst", "--memory", show_mb(memory_mb)]
        with tempfile.TemporaryFile("w+") as log:
            # A file and no pipe: what a job leaves running would hold the pipe open.
            worker = subprocess.Popen([*command, *options], stdout=log, stderr=subprocess.STDOUT)
            try:
                code = worker.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"the worker still ran after {timeout_seconds:g} s:\n{_text(log)}") from None
            finally:
                _end(worker)
            text = _text(log)
        assert code == 0, f"the worker ended with {code}:\n{text}"
        return self._outcome(enqueued, text)

    def _enqueue(self, job: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Job:
        if isinstance(job, type) and hasattr(job, "enqueue"):
            enqueue: Callable[..., Job] = job.enqueue
            return enqueue(_QUEUE, *args, connection=self.connection, **kwargs)
        return Queue(_QUEUE, connection=self.connection).enqueue(job, *args, **kwargs)

    def _outcome(self, job: Job, log: str) -> Outcome:
        result = job.latest_result()
        breaches = execution_reader.breaches(self.connection, job.id)
        run = execution_reader.run(self.connection, job.id)
        raised = (result.exc_string or "") if result is not None else ""
        peaks = [breach.peak_mb for breach in breaches] + ([run.peak_mb] if run.peak_mb else [])
        return Outcome(
            status=job.get_status().value,
            result=result.return_value if result is not None else None,
            error=what_was_raised(raised),
            breaches=tuple(breaches),
            peak_mb=max(peaks, default=None),
            resumes=run.resumes,
            log=log,
        )


@pytest.fixture(scope="session")
def memory_worker_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Redis for `memory_worker` alone."""
    directory = tmp_path_factory.mktemp("memory_worker")
    yield embedded.start(directory).url
    embedded.stop(directory)


@pytest.fixture
def memory_worker(memory_worker_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealWorker]:
    """Jobs on a real worker; see `RealWorker.run`. Its Redis is empty, and chosen for the test's code too."""
    monkeypatch.setenv("RQMEM_REDIS_URL", memory_worker_url)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path or os.curdir for path in sys.path))
    with redis.Redis.from_url(memory_worker_url) as connection:
        connection.flushall()
        yield RealWorker(connection)


def _end(worker: subprocess.Popen[bytes]) -> None:
    """End a worker that still runs; the second SIGTERM, a second later, has it take its job's processes along."""
    for _ in range(_TERMS):
        if worker.poll() is None:
            worker.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(_TERM_SECONDS)
    if worker.poll() is None:
        worker.kill()
        worker.wait()


def _text(log: IO[str]) -> str:
    log.seek(0)
    return log.read()
