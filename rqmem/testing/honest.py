"""Jobs that stay below their ceiling but look as if they did not. None may be touched; ``ALL`` is the catalogue.

Each returns True when what it computed is right. Sizes are in MB and come with ``kwargs(ceiling)``. Files
are made where `tempfile` makes them, which should be a disk: on a tmpfs they are memory.
"""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from rqmem.measure import process_tree, procfs
from rqmem.testing.catalogue import Honest, about
from rqmem.units import MB

_FORKS = 4
_STEP_MB = 17  # above the growth at which the watcher asks for a sample
_shared = bytearray()


def forked_pool(mb: int) -> bool:
    """A pool of four forked processes that share most of the horse's memory."""
    global _shared  # inherited by fork, and read there
    _shared = bytearray(b"x") * (mb * MB)
    try:
        with multiprocessing.get_context("fork").Pool(_FORKS) as pool:
            return sum(pool.map(_count_part, range(4 * _FORKS))) == len(_shared)
    finally:
        _shared = bytearray()


def _count_part(number: int) -> int:
    time.sleep(0.05)
    size = len(_shared) // (4 * _FORKS)
    end = len(_shared) if number == 4 * _FORKS - 1 else (number + 1) * size
    return _shared.count(b"x", number * size, end)


def pool_that_turns_private(mb: int, private_mb: int) -> bool:
    """Four forks that turn shared pages into their own, slowly, while resident memory stays flat."""
    block = bytearray(b"x") * (mb * MB)
    children = []
    for _ in range(_FORKS):
        child = os.fork()
        if child == 0:
            try:
                _write_slowly(block, private_mb)
            finally:
                os._exit(7)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return codes == [7] * _FORKS and block.count(b"x") == len(block)


def _write_slowly(block: bytearray, mb: int) -> None:
    for offset in range(0, mb * MB, procfs.PAGE_BYTES):
        block[offset] = 0
        if offset % (MB // 2) == 0:
            time.sleep(0.02)


def many_threads(count: int = 64) -> bool:
    """64 threads that wait: much address space, little memory."""
    barrier = threading.Barrier(count + 1)
    threads = [threading.Thread(target=barrier.wait) for _ in range(count)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    barrier.wait()
    for thread in threads:
        thread.join()
    return True


def reads_mapped_file(mb: int = 2048) -> bool:
    """Reads through a mapping of a file of 2 GB (sparse)."""
    with tempfile.TemporaryFile() as file:
        file.truncate(mb * MB)
        with mmap.mmap(file.fileno(), mb * MB, prot=mmap.PROT_READ) as mapped:
            return sum(mapped[:: procfs.PAGE_BYTES]) == 0


def writes_large_file(mb: int = 1024) -> bool:
    """Writes 1 GB to a file: page cache, which the kernel drops when it has to."""
    piece = b"x" * MB
    with tempfile.TemporaryFile(buffering=0) as file:
        return sum(file.write(piece) for _ in range(mb)) == mb * MB


def near_the_ceiling(ceiling_mb: int, below_mb: int = 12) -> bool:
    """Sits a few MB below its ceiling for a while."""
    rollup = procfs.read_usage(os.getpid())
    used = rollup.usage_bytes if rollup else 0
    block = bytearray(max(0, (ceiling_mb - below_mb) * MB - used))
    time.sleep(1)
    return block.count(0) == len(block)


def query_while_growing(mb: int) -> bool:
    """Memory grows in steps below the ceiling during one long SQL query: samples must not disturb it."""
    query = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 4000000) select count(*) from n"
    grower = _grow_in_steps(mb)
    database = sqlite3.connect(":memory:")
    counts = {database.execute(query).fetchone()[0]}
    while grower.is_alive():
        counts.add(database.execute(query).fetchone()[0])
    return counts == {4_000_000}


def recv_in_c_while_growing(mb: int) -> bool:
    """Memory grows in steps while a C client waits in recv, which knows nothing of EINTR."""
    ours, theirs = socket.socketpair()
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(16)
    grower = _grow_in_steps(mb, lambda: theirs.sendall(b"answer"))
    received = libc.recv(ours.fileno(), buffer, 16, 0)
    grower.join()
    for end in (ours, theirs):
        end.close()
    return bool(received == 6 and buffer.value == b"answer")


def _grow_in_steps(mb: int, then: Callable[[], Any] = lambda: None) -> threading.Thread:
    def grow() -> None:
        held = []
        for _ in range(mb // _STEP_MB):
            held.append(bytearray(_STEP_MB * MB))
            time.sleep(0.2)
        then()

    thread = threading.Thread(target=grow)
    thread.start()
    return thread


def imports_numpy() -> bool:
    """Imports numpy at a ceiling just above its need."""
    return int(import_module("numpy").arange(10).sum()) == 45


def imports_pandas() -> bool:
    """Imports pandas at a ceiling just above its need."""
    return int(import_module("pandas").DataFrame({"a": range(10)})["a"].sum()) == 45


def processes_beside() -> list[int]:
    """Not in ``ALL``: what else lives (or waits to be reaped) below this job's worker, for tests to ask."""
    return [pid for pid in process_tree.descendants(os.getppid()) if pid != os.getpid()]


def _of(function: Callable[..., Any], **more: Any) -> Honest:
    return Honest(**about(function, __name__), **more)


def _part(fraction: float) -> Callable[[int], dict[str, int]]:
    return lambda ceiling_mb: {"mb": int(ceiling_mb * fraction)}


ALL: tuple[Honest, ...] = (
    _of(forked_pool, kwargs=_part(0.4)),
    _of(
        pool_that_turns_private,
        kwargs=lambda ceiling_mb: {"mb": int(ceiling_mb * 0.3), "private_mb": int(ceiling_mb * 0.07)},
    ),
    *map(_of, (many_threads, reads_mapped_file, writes_large_file)),
    _of(near_the_ceiling, kwargs=lambda ceiling_mb: {"ceiling_mb": ceiling_mb}),
    _of(query_while_growing, kwargs=_part(0.6)),
    _of(recv_in_c_while_growing, kwargs=_part(0.6)),
    _of(imports_numpy, needs=("numpy",), ceiling_mb=48),
    _of(imports_pandas, needs=("pandas",), ceiling_mb=80),
)
