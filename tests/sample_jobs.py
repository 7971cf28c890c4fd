"""Jobs for the tests' workers to run. They talk to the tests through Redis."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rq import get_current_job

from rqmem import MemoryAwareJob, current_memory, memory_aware

MB = 2**20


def redis() -> Any:
    return get_current_job().connection


def add(a: int, b: int = 1) -> int:
    return a + b


def say_hello_and_sleep(seconds: float) -> None:
    redis().set("asleep", os.getpid())
    time.sleep(seconds)


def grow_lists() -> None:
    """Python objects without end; says on its way out that its finally ran."""
    rows = []
    try:
        while True:
            rows.append([0] * 1000)
    finally:
        redis().set("finally", len(rows))


def grow_in_c() -> None:
    """One C call that fills 1.5 GB: no exception can get in."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    size = ctypes.c_size_t(1500 * MB)
    libc.memset(ctypes.c_void_p(libc.malloc(size)), 1, size)


def grow_and_swallow() -> None:
    """Catches everything, again and again."""
    rows = []
    while True:
        try:
            while True:
                rows.append(bytearray(MB))
        except BaseException:
            redis().incr("swallowed")


def grow_in_a_child() -> None:
    """A subprocess uses the memory; the job only waits for it."""
    code = "import time; x = [bytearray(2**20) for _ in range(600)]; time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    redis().set("child", child.pid)
    child.wait()


def leave_a_daemon() -> int:
    """Succeeds, and leaves a process behind."""
    child = subprocess.Popen(
        ["sleep", "60"], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return child.pid


def hold(megabytes: int) -> int:
    """Stays under any ceiling above ``megabytes`` for a while."""
    block = bytearray(megabytes * MB)
    time.sleep(0.3)
    return len(block)


def big_result(megabytes: int) -> bytes:
    return bytes(megabytes * MB)


def killed_by_somebody() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def remember_failure(job: Any, connection: Any, kind: type, value: BaseException, trace: Any) -> None:
    """A failure callback."""
    connection.rpush("failures", f"{kind.__name__}: {value}")


class Plain(MemoryAwareJob):
    """Declares a ceiling, checks, returns."""

    memory_limit_mb = 200
    queue = "plain"

    def handle(self, number: int, name: str = "x") -> Any:
        self.check_memory_usage("begun")
        return [number, name, self.args, self.kwargs]


class Squares(MemoryAwareJob):
    """Chunks that resume. ``heavy`` items need ``item_mb`` each while their chunk is worked on."""

    on_breach = "resume"
    chunk_size = 8

    def handle(self, count: int, item_mb: int = 0, heavy_from: int = 0) -> list[int]:
        def work(chunk: list[int]) -> list[int]:
            blocks = [bytearray(item_mb * MB) for number in chunk if number >= heavy_from]
            redis().rpush("chunks", f"{chunk[0]}-{chunk[-1]}")
            del blocks
            return [number * number for number in chunk]

        return self.process_in_chunks(range(count), work)


class Slow(MemoryAwareJob):
    """Works through its items at a pace that lets a test kill things in the middle."""

    on_breach = "resume"
    chunk_size = 2

    def handle(self, count: int, seconds: float) -> int:
        def work(chunk: list[int]) -> list[int]:
            time.sleep(seconds)
            for number in chunk:
                redis().rpush("done", number)
            return chunk

        return len(self.process_in_chunks(range(count), work))


class Stubborn(MemoryAwareJob):
    """One item does not fit alone."""

    on_breach = "resume"
    chunk_size = 4

    def handle(self, count: int, culprit: int) -> None:
        def work(chunk: list[int]) -> None:
            block = bytearray(400 * MB) if culprit in chunk else b""
            redis().rpush("sizes", len(chunk))
            del block

        self.process_in_chunks(range(count), work)


class ResumesNothing(MemoryAwareJob):
    """Asks to be resumed but never works in chunks."""

    on_breach = "resume"

    def handle(self) -> None:
        grow_lists()


class Modest(MemoryAwareJob):
    """Declares less than it uses."""

    memory_limit_mb = 100

    def handle(self) -> None:
        grow_lists()


class FromGenerator(MemoryAwareJob):
    """Cannot be resumed: a generator is read once."""

    on_breach = "resume"

    def handle(self) -> None:
        self.process_in_chunks((number for number in range(3)), len)


class UnsavableResults(MemoryAwareJob):
    """Returns what no serializer takes."""

    on_breach = "resume"

    def handle(self) -> None:
        self.process_in_chunks(range(3), lambda chunk: [lambda: chunk])


class Overweight(MemoryAwareJob):
    """Above its ceiling at its first checkpoint."""

    memory_limit_mb = 5

    def handle(self) -> None:
        self.check_memory_usage("begun")


def swallow_once_and_finish() -> str:
    """Uses too much, catches what it is told, frees it all and returns."""
    try:
        grow_lists()
    except BaseException:
        redis().incr("swallowed")
    return "all is well"


def raise_another() -> None:
    """Its clean-up fails while it unwinds."""
    try:
        grow_lists()
    finally:
        raise RuntimeError("the clean-up failed")


def ignore_the_time_limit() -> None:
    """Catches the time limit's exception and goes on."""
    while True:
        try:
            time.sleep(60)
        except Exception:
            redis().incr("ignored")


def start_a_child_and_wait() -> None:
    child = subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=-3, stderr=-3)
    redis().set("child", child.pid)
    child.wait()


class Nested(MemoryAwareJob):
    """Chunks within chunks, killed once in the middle."""

    on_breach = "resume"

    def handle(self, tables: int, rows: int) -> list[str]:
        def table(names: list[int]) -> list[str]:
            [name] = names
            return self.process_in_chunks(range(rows), lambda chunk: [f"{name}.{row}" for row in chunk], 2)

        def killed_once(names: list[int]) -> list[str]:
            if names == [1] and redis().incr("killed") == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return table(names)

        return self.process_in_chunks(range(tables), killed_once, 1)


class Twice(MemoryAwareJob):
    """Two calls of process_in_chunks, one after the other; killed once in the second."""

    on_breach = "resume"

    def handle(self) -> list[list[int]]:
        first = self.process_in_chunks(range(4), lambda chunk: redis().rpush("first", *chunk) and chunk, 2)

        def second(chunk: list[int]) -> list[int]:
            if chunk[0] == 12 and redis().incr("killed") == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            redis().rpush("second", *chunk)
            return chunk

        return [first, self.process_in_chunks(range(10, 16), second, 2)]


def own_pid() -> int:
    return os.getpid()


def keep_in_a_global(megabytes: int) -> int:
    """A leak."""
    _kept.append(bytearray(megabytes * MB))
    return os.getpid()


_kept: list[Any] = []


def keep_in_a_cycle(megabytes: int) -> int:
    """Garbage that only the collector finds."""
    cycle: list[Any] = [bytearray(megabytes * MB)]
    cycle.append(cycle)
    return os.getpid()


def leave_a_thread() -> int:
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return os.getpid()


def exit_quietly() -> None:
    os._exit(0)


def change_signal_handlers() -> int:
    """As a library might: nothing of it may reach the next job."""
    for number in range(signal.SIGRTMIN, signal.SIGRTMAX + 1):
        signal.signal(number, signal.SIG_IGN)
    return os.getpid()


def fork_and_return() -> str:
    """A child that returns from the job function, as after a forgotten os._exit."""
    if os.fork() == 0:
        return "child"
    os.wait()
    return "parent"


def fork_a_daemon_and_die() -> None:
    """The child holds everything open that the horse had open."""
    if os.fork() == 0:
        os.setsid()
        time.sleep(3)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


def raise_error() -> None:
    raise ValueError("an ordinary failure")


def grow_at_three_lines() -> None:
    first = [[0] * 1000 for _ in range(8_000)]
    second = [[0] * 1000 for _ in range(12_000)]
    third = [[0] * 1000 for _ in range(400_000)]
    del first, second, third


def become_another_program() -> None:
    """exec: no handler of ours is left, and it grows, but stays under its ceiling."""
    os.execv(sys.executable, [sys.executable, "-c", "x = [bytearray(2**20) for _ in range(60)]"])


def drop_all_handlers_and_grow() -> int:
    for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGALRM}:
        signal.signal(number, signal.SIG_DFL)
    return len([bytearray(MB) for _ in range(70)])


@memory_aware(memory_limit_mb=100)
def aware(megabytes: int) -> float:
    block = bytearray(megabytes * MB)
    usage = current_memory().check_memory_usage("loaded")
    del block
    current_memory().force_garbage_collection()
    return usage


def fork_children_that_end_in_three_ways() -> list[int]:
    """Exit codes of forked children that leave the job function instead of ending."""
    codes = []
    for way in ("return", "exit", "raise"):
        child = os.fork()
        if child == 0:
            if way == "return":
                return []
            if way == "exit":
                sys.exit(3)
            raise ValueError("in the child")
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    from rqmem.runtime import horse

    here = horse.current()
    assert here is not None
    assert here.page.in_user_code, "a child must not say that the horse has left user code"
    return codes


class CallsAnother(MemoryAwareJob):
    """Runs another job's class within its own chunks, and is killed once in the middle."""

    on_breach = "resume"
    memory_limit_mb = 200

    def handle(self) -> list[Any]:
        def work(chunk: list[int]) -> list[Any]:
            [number] = chunk
            squares = Squares.run(count=3 + number)
            aware(1)
            if number == 2 and redis().incr("killed") == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return [sum(squares), self.check_memory_usage("after") and horse_ceiling_mb()]

        return self.process_in_chunks(range(4), work, 1)


def horse_ceiling_mb() -> float:
    from rqmem.runtime import horse

    here = horse.current()
    assert here is not None
    return here.page.ceiling_bytes / MB


class CountsDescriptors(MemoryAwareJob):
    """How many files its horse has open."""

    def handle(self) -> int:
        self.check_memory_usage("counted")
        return len(list(Path("/proc/self/fd").iterdir()))
