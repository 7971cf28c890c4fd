"""Jobs for tests of leases: short ones, and some among them that are not."""

from __future__ import annotations

import os
import signal
import time
from functools import cache
from pathlib import Path

from redis import Redis
from rq import Retry, get_current_job

MB = 2**20
_kept: list[bytearray] = []


@cache
def redis() -> Redis:
    """Not the current job's: under a lease, RQ shows a job as running when that is touched."""
    return Redis.from_url(os.environ["RQMEM_REDIS_URL"])


def note(name: str) -> str:
    """Leaves a trace in Redis, in order."""
    redis().rpush("ran", name)
    return name


def act(name: str, what: str = "", value: float = 0.0) -> str:
    """As `note`; and then, if it is told so, something that is no plain success. One job type for all of it."""
    redis().rpush("ran", name)
    if what == "raise":
        raise ValueError(name)
    if what == "grow":
        rows = []
        while True:
            rows.append([0] * 1000)
    if what == "sleep":
        time.sleep(value)
    if what == "wait":
        Path(f"{name}.begun").touch()
        deadline = time.monotonic() + 120
        while not Path(name).exists() and time.monotonic() < deadline:
            time.sleep(0.002)
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "die once" and redis().incr("died") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "kill worker once" and redis().incr("died") == 1:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    if what == "hold":
        _kept.append(bytearray(int(value) * MB))
    if what == "burst":
        bytearray(int(value) * MB)
    if what == "retry" and redis().incr(f"tries of {name}") == 1:
        return Retry(max=2)  # type: ignore[return-value]
    if what == "look":
        job = get_current_job()
        return f"{job.get_status()} {job.func_name.rpartition('.')[2]} {job.args[0]} {job.worker_name != ''}"
    if what == "save meta":
        job = get_current_job()
        job.meta["step"] = name
        job.save_meta()
    if what == "enqueue":
        from rq import Queue

        Queue("jobs", connection=redis()).enqueue(act, f"{name} follows")
    if what == "disconnect":
        get_current_job().connection.connection_pool.disconnect()
    if what == "big":
        return name * int(value)
    return name


def pid() -> int:
    return os.getpid()
