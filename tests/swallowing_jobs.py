"""Jobs whose breach is raised where a library, or they themselves, may catch it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from rqmem import MemoryAwareJob, current_memory, memory_aware
from rqmem.errors import MemoryLimitExceeded
from rqmem.units import MB
from tests.sample_jobs import redis

TOO_MUCH = (MemoryLimitExceeded, MemoryError)


def grow(pause: Callable[[], Any] = lambda: None) -> None:
    """Up to 400 MB, then done: whoever is cut off here has not done its work."""
    held = []
    for _ in range(400):
        held.append(bytearray(b"x") * MB)
        pause()
    redis().incr("done")


# Nobody meant to catch it


def by_gevent_joinall() -> str:
    import gevent

    gevent.joinall([gevent.spawn(grow, lambda: gevent.sleep(0)), gevent.spawn(gevent.sleep, 0.2)])
    return "well"


def by_a_gevent_pool() -> str:
    from gevent.pool import Pool

    pool = Pool(4)
    for _ in range(4):
        pool.spawn(grow)
    pool.join()
    return "well"


def by_eventlet_spawn_n() -> str:
    import eventlet

    pool = eventlet.GreenPool(2)
    pool.spawn_n(grow, lambda: eventlet.sleep(0))
    pool.waitall()
    return "well"


def by_an_eventlet_thread_nobody_waits_for() -> str:
    import eventlet

    thread = eventlet.spawn(grow)
    while not thread.dead:
        eventlet.sleep(0.01)
    return "well"


async def _grow() -> None:
    held = []
    for _ in range(400):
        held.append(bytearray(b"x") * MB)
        await asyncio.sleep(0)
    redis().incr("done")


async def _grow_without_pause() -> None:
    """The breach signal arrives in here, and not in the event loop between two steps of it."""
    grow()


def by_asyncio_gather() -> str:
    async def main() -> None:
        await asyncio.gather(_grow(), return_exceptions=True)

    asyncio.run(main())
    return "well"


async def by_an_asyncio_task_nobody_awaits() -> str:
    task = asyncio.create_task(_grow())
    while not task.done():
        await asyncio.sleep(0.01)
    return "well"


def by_a_bare_except() -> str:
    try:
        grow()
    except:  # noqa: E722, S110
        pass
    return "well"


def by_suppress() -> str:
    with contextlib.suppress(BaseException):
        grow()
    return "well"


def by_a_return_in_finally() -> str:
    try:
        grow()
    finally:
        return "well"  # noqa: B012


@memory_aware(memory_limit_mb=128)
def by_a_future_at_a_checkpoint() -> str:
    """The checkpoint raises in a thread, where no signal would."""

    def work(memory: Any) -> None:
        held = []
        while True:
            held.append(bytearray(b"x") * MB)
            memory.check_memory_usage("in a thread")

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work, current_memory())
    return "well"


@memory_aware(memory_limit_mb=128)
def by_a_thread_at_a_checkpoint() -> str:
    memory = current_memory()
    held: list[bytearray] = []

    def work() -> None:
        while True:
            held.append(bytearray(b"x") * MB)
            memory.check_memory_usage("in a thread")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    held.clear()
    return "well"


def and_then_fails() -> str:
    """What was cut off is missed later: the breach is the cause."""
    try:
        grow()
    except BaseException:
        found: dict[str, str] = {}
    return found["never put there"]


class InChunks(MemoryAwareJob):
    """A processor whose greenlets die: its chunk must not count as finished."""

    on_breach = "resume"
    chunk_size = 8
    adaptive: ClassVar[bool] = False

    def handle(self, count: int) -> int:
        return sum(self.process_in_chunks(range(count), self.chunk))

    def chunk(self, numbers: list[int]) -> int:
        import gevent

        connection = redis()  # RQ does not know its job in a greenlet

        def one(number: int) -> None:
            block = bytearray(b"x") * (25 * MB)
            gevent.sleep(0.01)
            connection.sadd("items", number * len(block))

        gevent.joinall([gevent.spawn(one, number) for number in numbers])
        return len(numbers)


class CarriesOn(MemoryAwareJob):
    """It goes on with the next item whatever happens to one, so a chunk ends well of which an item was cut off."""

    on_breach = "resume"
    chunk_size = 4
    adaptive: ClassVar[bool] = False

    def handle(self, count: int) -> int:
        return sum(self.process_in_chunks(range(count), self.chunk))

    def chunk(self, numbers: list[int]) -> int:
        for number in numbers:
            try:
                self.one(number)
            except:  # noqa: E722, S110
                pass
        return len(numbers)

    def one(self, number: int) -> None:
        if number == 5 and redis().incr("tries") == 1:
            grow(lambda: time.sleep(0.005))
        redis().sadd("items", number)


# The job means to


def knows(name: str = "plain") -> str:
    try:
        grow()
    except MemoryLimitExceeded:
        return "goes on"
    return name


def knows_by_another_name() -> str:
    try:
        grow()
    except TOO_MUCH:
        return "goes on"
    return ""


def knows_by_suppress() -> str:
    with contextlib.suppress(MemoryLimitExceeded):
        grow()
    return "goes on"


def knows_and_keeps_it() -> str:
    kept = None
    try:
        grow()
    except MemoryLimitExceeded as error:
        kept = error
    return "goes on" if kept else ""


def knows_what_gevent_hands_over() -> str:
    import gevent

    try:
        gevent.spawn(grow).get()
    except MemoryLimitExceeded:
        return "goes on"
    return ""


async def knows_what_a_task_raised() -> str:
    try:
        await asyncio.create_task(_grow_without_pause())
    except MemoryLimitExceeded:
        return "goes on"
    return ""


def knows_in_a_helper() -> list[str]:
    def safely(work: Callable[[], Any]) -> str:
        try:
            work()
        except MemoryLimitExceeded:
            return "too large"
        return "fits"

    return [safely(grow), safely(lambda: time.sleep(0))]


if sys.version_info >= (3, 11):
    STAR = """
def knows_a_group_of_{kind}():
    try:
        {run}
    except* MemoryLimitExceeded:
        pass
    return "goes on"
"""

    async def _in_a_task_group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_grow_without_pause())

    async def _in_a_nursery() -> None:
        import trio

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_grow_without_pause)

    exec(STAR.format(kind="asyncio", run="asyncio.run(_in_a_task_group())"))  # 3.10 cannot read it
    exec(STAR.format(kind="trio", run="__import__('trio').run(_in_a_nursery)"))


# It leaves the job, in its own way


def raises_a_group() -> str:
    asyncio.run(_in_a_task_group())
    return "well"


def raises_a_group_of_trio() -> str:
    import trio

    trio.run(_in_a_nursery)
    return "well"
