"""The self-test: a real worker on a Redis of its own, two jobs that breach, and honest ones between them.

Takes 2 to 4 seconds on a quiet machine, and a minute at most on a busy one. Reads and acts; what it means is found in
`check_self_test`.
Promises: worker, server and files are gone afterwards, whatever happened.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis

from rqmem.config.settings import Config
from rqmem.connection import embedded, embedded_files
from rqmem.doctor import jobs
from rqmem.errors import EmbeddedRedisError
from rqmem.events import Breach
from rqmem.rq_names import Job, Queue
from rqmem.store import execution_reader
from rqmem.tracebacks import what_was_raised
from rqmem.units import MB, show_mb, to_mb
from rqmem.values import dataclass

SECONDS = 60.0  # a worker that takes longer hangs
_ROOM_MB = 64  # what the jobs may use beyond an idle horse
_BELOW_MB = 4  # how close an honest one comes to its ceiling
_BEYOND_MB = 256  # where a spike ends that nobody ends
_BESIDES_MB = 100  # worker and server
_QUEUE = "self-test"
_NOT_OURS = ("RQMEM_CONFIG", "RQMEM_MEMORY", "RQMEM_TIMEOUT", "RQMEM_PRELOAD", "RQMEM_RESTARTED", "RQMEM_WORKER_MEMORY")


@dataclass(frozen=True)
class Tried:
    """How a job ended: RQ's status, its error in one line, and its breach if one was told."""

    status: str
    error: str
    breach: Breach | None


@dataclass(frozen=True)
class SelfTest:
    """What the jobs did.

    Attributes:
        ceiling_mb, reserve_mb: of its worker.
        in_objects, in_one_call: the two that breach.
        honest: those that don't, the last one just below the ceiling.
        honest_mb: the most one of those used.
        new_horse_ms: from the end of a breach to the first line of the next job, the longer of two.
        words: what the worker said last.
        timed_out: not all had ended after `SECONDS`.
    """

    ceiling_mb: float
    reserve_mb: float
    in_objects: Tried
    in_one_call: Tried
    honest: list[Tried]
    honest_mb: float
    new_horse_ms: float | None
    words: str
    timed_out: bool


@dataclass(frozen=True)
class NotTested:
    """There was no self-test, and why."""

    why: str


def run(
    idle_bytes: int, available_bytes: int | None, config: Config, environ: Mapping[str, str]
) -> SelfTest | NotTested:
    """Run it, with the worker's settings as ``environ`` has them but for its ceiling.

    Args:
        idle_bytes: what an idle horse uses; the ceiling is 64 MB above it.
        available_bytes: no test where it might use more.
    """
    ceiling_mb = float(round(to_mb(idle_bytes)) + _ROOM_MB)
    bound_mb = ceiling_mb + config.reserve_mb + _BEYOND_MB
    if available_bytes is not None and available_bytes < (bound_mb + _BESIDES_MB) * MB:
        return NotTested(
            f"it may take {show_mb(bound_mb + _BESIDES_MB)} MB, {show_mb(to_mb(available_bytes))} are free"
        )
    try:
        embedded_files.find_program()
        with tempfile.TemporaryDirectory(prefix="rqmem-doctor-") as folder:
            directory = Path(folder)
            try:
                url = embedded.start(directory).url
                return _run(url, ceiling_mb, bound_mb, config.reserve_mb, directory, environ)
            finally:
                embedded.stop(directory)
    except EmbeddedRedisError as error:
        return NotTested(str(error))


def _run(
    url: str, ceiling_mb: float, bound_mb: float, reserve_mb: float, directory: Path, environ: Mapping[str, str]
) -> SelfTest:
    with redis.Redis.from_url(url) as connection:
        queue = Queue(_QUEUE, connection=connection)
        in_objects = queue.enqueue(jobs.grow_in_objects, bound_mb)
        after_objects = queue.enqueue(jobs.stay_below, 0)
        in_one_call = queue.enqueue(jobs.grow_in_one_call, bound_mb)
        honest = queue.enqueue(jobs.stay_below, ceiling_mb - _BELOW_MB)
        words, timed_out = _work(url, ceiling_mb, directory, environ)
        results = [each.return_value() for each in (after_objects, honest)]
        pauses = [_pause(in_objects, results[0]), _pause(in_one_call, results[1])]
        return SelfTest(
            ceiling_mb=ceiling_mb,
            reserve_mb=reserve_mb,
            in_objects=_ended(connection, in_objects),
            in_one_call=_ended(connection, in_one_call),
            honest=[_ended(connection, each) for each in (after_objects, honest)],
            honest_mb=max((result[1] for result in results if result), default=0.0),
            new_horse_ms=max((pause for pause in pauses if pause is not None), default=None),
            words=words,
            timed_out=timed_out,
        )


def _work(url: str, ceiling_mb: float, directory: Path, environ: Mapping[str, str]) -> tuple[str, bool]:
    """Have a worker work the queue off; the last line of its log, and whether it had to be ended."""
    command = [sys.executable, "-m", "rqmem", "worker", _QUEUE, "--burst", "--memory", show_mb(ceiling_mb)]
    command += ["--url", url, "--preload", jobs.__name__]
    clean = {name: value for name, value in environ.items() if name not in _NOT_OURS}
    ours = {"PYTHONPATH": os.pathsep.join(str(Path(path or ".").absolute()) for path in sys.path)}
    log = directory / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(command, env={**clean, **ours}, cwd=directory, stdout=output, stderr=output)
        try:
            worker.wait(SECONDS)
            timed_out = False
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            if worker.poll() is None:
                worker.kill()  # its horse dies with it
                worker.wait()
    return last_words(log.read_text(errors="replace")), timed_out


def last_words(log: str) -> str:
    """The line to show of a worker's log: the last that is a warning, an error or one for people, else the last."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    told = [line for line in lines if any(word in line for word in (" WARNING ", " ERROR ", "rqmem: ", "Error: "))]
    return (told or lines or ["its log is empty"])[-1]


def _ended(connection: redis.Redis, job: Job) -> Tried:
    result = job.latest_result()
    raised = what_was_raised((result.exc_string if result is not None else "") or "")
    breaches = execution_reader.breaches(connection, job.id)
    return Tried(job.get_status().value, raised, breaches[0] if breaches else None)


def _pause(before: Job, result: Any) -> float | None:
    """Milliseconds from the end of one job to the beginning of the next."""
    before.refresh()
    if before.ended_at is None or not result:
        return None
    return float(1000 * (result[0] - before.ended_at.timestamp()))
