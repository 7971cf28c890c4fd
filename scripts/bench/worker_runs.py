"""Running workers for the measurements, and what can be seen of them from outside: CPU, size, what they leave.

The measuring process is the subreaper of all it starts. So it adopts whatever outlives a worker, reports it and ends
it. Only processes below this one are ever signalled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from rq import Queue, Worker
from rq.job import Job

from rqmem.connection import connect
from rqmem.measure import process_tree, procfs
from rqmem.testing import wait_until
from scripts.harness import ROOT

QUEUE = "bench"
LONGEST_SECONDS = 300.0
_START_SECONDS = 20.0


@dataclass(frozen=True)
class How:
    """Options of ``rqmem worker`` that the tables differ by."""

    memory_mb: int
    isolation: str = "warm"
    cgroup: str = "auto"

    def command(self, *more: str) -> list[str]:
        options = ["--isolation", self.isolation, "--cgroup", self.cgroup, "--log-level", "error"]
        return ["rqmem", "worker", QUEUE, "--memory", str(self.memory_mb), *options, *more]

    def __str__(self) -> str:
        return f"{self.isolation} horse, cgroup {self.cgroup}"


@dataclass(frozen=True)
class Ended:
    """A worker's end. ``largest_mb``: the kernel's mark of the largest process in its tree, mapped files included."""

    code: int
    cpu_seconds: float
    largest_mb: float
    output: str
    left: tuple[str, ...]

    @property
    def last_line(self) -> str:
        return (self.output.strip().splitlines() or ["no output"])[-1]


class Running:
    """A worker that runs; end it with `finish`."""

    def __init__(self, command: list[str], directory: Path = ROOT) -> None:
        self._known = {pid: procfs.read_start_time(pid) for pid in process_tree.descendants(os.getpid())}
        self._shm = set(os.listdir("/dev/shm"))  # noqa: PTH208
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed in `finish`
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=directory, stdout=self._log, stderr=subprocess.STDOUT
        )
        self.pid = self._process.pid

    def finish(self, timeout_seconds: float = LONGEST_SECONDS) -> Ended:
        """Wait for its end; one that does not end is killed, and its code is that of the kill."""
        deadline = time.monotonic() + timeout_seconds
        while not (done := os.wait4(self.pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.005)
        _, status, usage = done
        self._process.returncode = os.waitstatus_to_exitcode(status)
        left = self._take_away()
        self._log.seek(0)
        output = self._log.read()
        self._log.close()
        cpu_seconds = usage.ru_utime + usage.ru_stime
        return Ended(self._process.returncode, cpu_seconds, usage.ru_maxrss / 1024, output, left)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def wait_for_start(self) -> None:
        connection = connect.connect()
        wait_until(lambda: any(worker.pid == self.pid for worker in Worker.all(connection)), _START_SECONDS)

    def _take_away(self) -> tuple[str, ...]:
        """What is left of the worker's tree, of files and of groups, in words; processes are ended."""
        here = os.getpid()
        found = process_tree.descendants(here, self._known)
        zombies = [pid for pid in found if process_tree.is_zombie(pid)]
        words = [f"{len(zombies)} zombies"] if zombies else []
        if len(found) > len(zombies):
            words.append(f"{len(found) - len(zombies)} processes")
        process_tree.kill(here, self._known)
        process_tree.reap_zombies(here, self._known)
        words += [f"/dev/shm/{name}" for name in sorted(set(os.listdir("/dev/shm")) - self._shm)]  # noqa: PTH208
        words += [f"cgroup {path.name}" for path in Path("/sys/fs/cgroup").rglob(f"rqmem-{self.pid}-*")]
        return tuple(words)


def stock_worker() -> list[str]:
    return ["rq.cli", "worker", QUEUE, "--burst", "--quiet", "--url", os.environ["RQMEM_REDIS_URL"]]


def empty_queue() -> Queue:
    """The queue of all measurements, on an empty Redis."""
    connection = connect.connect()
    connection.flushall()
    return Queue(QUEUE, connection=connection)


def run(command: list[str]) -> Ended:
    return Running(command).finish()


@contextmanager
def serving(how: How) -> Iterator[Running]:
    """A worker that waits for jobs; terminated at the end."""
    worker = Running(how.command())
    try:
        worker.wait_for_start()
        yield worker
    finally:
        worker.terminate()
        worker.finish(_START_SECONDS)


def cpu_share(pid: int, wait: Callable[[], object]) -> float:
    """CPU of one process while ``wait()`` runs, as a part of one core, without its children's."""
    process = psutil.Process(pid)
    before, began = process.cpu_times(), time.monotonic()
    wait()
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / (time.monotonic() - began)


def stolen_since_now() -> Callable[[], float]:
    """Returns a function that says how much CPU time the host took from this machine since, in per cent."""
    before = psutil.cpu_times()

    def since() -> float:
        now = psutil.cpu_times()
        return 100 * (now.steal - before.steal) / max(0.01, sum(now[:8]) - sum(before[:8]))

    return since


def milliseconds_between(first: Job, second: Job) -> float | None:
    """From the result of ``first`` to the start of ``second``, as RQ recorded them."""
    second.refresh()
    result = first.latest_result()
    if result is None or second.started_at is None:
        return None
    return (second.started_at - result.created_at).total_seconds() * 1000


def cgroup_modes(choice: str, memory_mb: int) -> list[str]:
    """Values for ``--cgroup`` to measure with."""
    if choice != "both":
        return [choice]
    can = run(How(memory_mb, cgroup="require").command("--burst")).code == 0
    return ["off", "require"] if can else ["off"]
