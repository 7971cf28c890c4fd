"""Jobs that do not take no for an answer, and growth at awkward moments. Each ends at ``mb`` MB by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

from rqmem.testing.adversaries.objects import blocks
from rqmem.testing.catalogue import BEGUN
from rqmem.units import MB

_STAY_SECONDS = 10.0


def bare_except(mb: int = 1500) -> None:
    """A bare except in a loop."""
    held: list[Any] = []
    while len(held) < mb:
        try:
            while True:
                held.append(bytearray(MB))
                if len(held) >= mb:
                    break
        except:  # noqa: E722
            held.append("swallowed")


def stays_where_it_is(mb: int = 1500) -> None:
    """Swallows the error, stops growing, keeps what it has."""
    held: list[bytearray] = []
    end: float | None = None
    while end is None or time.monotonic() < end:
        try:
            while end is None and len(held) < mb:
                held.append(bytearray(MB))
                time.sleep(0.002)
            time.sleep(_STAY_SECONDS)
            return
        except BaseException:  # noqa: BLE001
            end = end or time.monotonic() + _STAY_SECONDS


def ignores_every_signal(mb: int = 1500) -> None:
    """Ignores and blocks every signal there is."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    blocks(mb)


def own_signal_handlers(mb: int = 1500) -> None:
    """Has a handler of its own for every real-time signal."""
    for number in range(signal.SIGRTMIN, signal.SIGRTMAX + 1):
        signal.signal(number, lambda number, frame: None)
    blocks(mb)


def closes_all_files(mb: int = 1500) -> None:
    """Closes every file it did not open, as programs do that become daemons."""
    os.closerange(3, 4096)
    blocks(mb)


def finally_that_grows(mb: int = 1500) -> None:
    """Goes on in its finally when it has to unwind."""
    try:
        blocks(mb)
    finally:
        blocks(mb)


def gathered(mb: int = 1500) -> None:
    """asyncio.gather(return_exceptions=True) hands it the exception as a value."""
    asyncio.run(_gather(mb))


async def _gather(mb: int) -> None:
    held: list[bytearray] = []

    async def grow() -> None:
        while len(held) < mb:
            held.append(bytearray(MB))
            await asyncio.sleep(0)

    while len(held) < mb:
        await asyncio.gather(grow(), grow(), return_exceptions=True)


def in_the_failure_callback(mb: int = 1500) -> None:
    """Fails at once; its failure callback grows."""
    raise ValueError("the callback is what matters")


def grow_in_callback(job: Any, connection: Any, kind: type, value: BaseException, trace: Any) -> None:
    """The failure callback of `in_the_failure_callback`."""
    blocks()


def while_redis_is_stopped(mb: int = 1500) -> None:
    """Grows while Redis does not answer."""
    _say_begun()
    time.sleep(0.5)
    blocks(mb)


def while_its_worker_is_terminated(mb: int = 1500) -> None:
    """Its worker gets SIGTERM in the middle of confirming the breach."""
    _say_begun()
    time.sleep(0.3)
    blocks(mb)


def _say_begun() -> None:
    from rqmem.rq_names import get_current_job

    job = get_current_job()
    if job is not None:
        job.connection.set(BEGUN, os.getpid(), ex=60)
