"""Does what adversaries name in ``meanwhile`` while they run. Redis and worker must be on this machine."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

from rqmem.measure import procfs
from rqmem.testing import wait_until
from rqmem.testing.catalogue import BEGUN, Adversary

if TYPE_CHECKING:
    from redis import Redis

_BEGIN_SECONDS = 20.0
_REDIS_STOPPED_SECONDS = 1.5  # the job begins to grow after half a second
_STOP_SECONDS = 10.0


def happen(adversary: Adversary, connection: Redis, worker_pid: int) -> bool:
    """Wait until the adversary has begun, then do it; whether it was done in time (a stop lasts some ms only)."""
    wait_until(lambda: connection.exists(BEGUN), _BEGIN_SECONDS)
    begun: Any = connection.getdel(BEGUN)
    if adversary.meanwhile == "redis stopped":
        info: Any = connection.info()
        _stop_for(info["process_id"], _REDIS_STOPPED_SECONDS)
        return True
    if not _seen_stopped(int(begun)):
        return False
    os.kill(worker_pid, signal.SIGTERM)
    return True


def _stop_for(pid: int, seconds: float) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def _seen_stopped(pid: int) -> bool:
    """Look without a pause until the process is stopped; False when it ended unseen."""
    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline:
        state = procfs.read_state(pid)
        if state in ("T", "Z", ""):
            return state == "T"
    return False
