"""The workers of `tests.chaos`, and what is done to them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rqmem.measure.procfs import read_children
from rqmem.testing import wait_until
from tests import forked
from tests.refusing_redis import RefusingProxy, refusing

ROOT = Path(__file__).parents[1]
VICTIMS = ("worker", "horse", "stop", "redis")
_REPLIES = (
    "READONLY You can't write against a read only replica.",
    "OOM command not allowed",
    "LOADING Redis is loading",
)
_MOST_REFUSED_SECONDS = 1.5
_STOP_SECONDS = 180


class Crew:
    """Two workers, replaced when they end. Their Redis is a proxy's; what jobs tell goes to the server itself."""

    def __init__(self, url: str, log: Path, proxy: RefusingProxy) -> None:
        self._url, self._log, self._proxy = url, log, proxy
        self._processes = [self._start(), self._start()]

    def _start(self) -> subprocess.Popen[bytes]:
        own = {"RQMEM_REDIS_URL": self._proxy.url, "CHAOS_REDIS_URL": self._url, "RQMEM_HEARTBEAT": "0.5"}
        environ = forked.environ(**own)
        arguments = [sys.executable, "-m", "rqmem", "worker", "--queue", "chaos", "--memory", "200"]
        with self._log.open("ab") as log:
            return forked.Popen(arguments, env=environ, stdout=log, stderr=log)

    def strike(self, victim: str, chance: random.Random) -> str:
        """Do that to one of the two, or to Redis; says what became of it."""
        if victim == "redis":
            line, share = chance.choice(_REPLIES), chance.choice((0.3, 0.7, 1.0))
            self._proxy.refuse = lambda command: line if chance.random() < share else None
            time.sleep(chance.random() * _MOST_REFUSED_SECONDS)
            self._proxy.refuse = None
            return "Redis refused"
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
    with refusing(url) as proxy:
        crew = Crew(url, log, proxy)
        try:
            yield crew
        finally:
            crew.end()
