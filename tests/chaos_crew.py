"""The workers of `tests.chaos`, and what is done to them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rqmem.memory.procfs import read_children
from rqmem.testing import wait_until

ROOT = Path(__file__).parents[1]
VICTIMS = ("worker", "horse", "stop")
_STOP_SECONDS = 180


class Crew:
    """Two workers, replaced when they end."""

    def __init__(self, url: str, log: Path) -> None:
        self._url, self._log = url, log
        self._processes = [self._start(), self._start()]

    def _start(self) -> subprocess.Popen[bytes]:
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("RQMEM_", "MEMORY_"))}
        environ |= {"RQMEM_REDIS_URL": self._url, "PYTHONPATH": str(ROOT), "RQMEM_HEARTBEAT": "0.5"}
        arguments = [sys.executable, "-m", "rqmem", "worker", "--queue", "chaos", "--memory", "200"]
        with self._log.open("ab") as log:
            return subprocess.Popen(arguments, env=environ, stdout=log, stderr=log)

    def strike(self, victim: str, chance: random.Random) -> str:
        """Do that to one of the two; says what became of it."""
        number = chance.randrange(2)
        worker = self._processes[number]
        if victim == "horse":
            horses = read_children(worker.pid)
            if not horses:
                return "no horse"
            os.kill(chance.choice(horses), signal.SIGKILL)
            return "horse killed"
        worker.send_signal(signal.SIGKILL if victim == "worker" else signal.SIGTERM)
        if victim == "worker":
            worker.wait()
        else:
            wait_until(lambda: worker.poll() is not None, _STOP_SECONDS)
        self._processes[number] = self._start()
        return f"{victim} {'killed' if victim == 'worker' else 'told to a worker'}"

    def end(self) -> None:
        for worker in self._processes:
            worker.kill()
            worker.wait()


@contextmanager
def crew_on(url: str, log: Path) -> Iterator[Crew]:
    """Two workers for the time of the block."""
    crew = Crew(url, log)
    try:
        yield crew
    finally:
        crew.end()
