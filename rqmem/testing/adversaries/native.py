"""Growth that Python's allocator knows nothing of. Each ends at ``mb`` MB if nobody stops it.

Files in ``/dev/shm`` are unlinked before they grow, so that nothing stays whoever kills the job.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sqlite3
import tempfile
import time

from rqmem.units import MB

_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_MAP_POPULATE = 0x8000  # Linux; its name is in `mmap` from Python 3.10, but not in every type stub


def memset_in_c(mb: int = 1500) -> None:
    """malloc and memset of 1.5 GB: one C call."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = libc.memset.restype = ctypes.c_void_p
    size = ctypes.c_size_t(mb * MB)
    libc.memset(ctypes.c_void_p(libc.malloc(size)), 1, size)


def calm_then_burst(calm_mb: int = 60, mb: int = 1500) -> None:
    """10 MB every 50 ms until just below the ceiling, then memset at full speed."""
    calm = []
    for _ in range(calm_mb // 10):
        calm.append(bytearray(10 * MB))
        time.sleep(0.05)
    memset_in_c(mb)


def populated_mmap(mb: int = 1500) -> None:
    """mmap with MAP_POPULATE: the kernel fills it in one system call."""
    mmap.mmap(-1, mb * MB, flags=_PRIVATE | _MAP_POPULATE)


def huge_pages(mb: int = 1500) -> None:
    """memset over transparent huge pages, the fastest there is."""
    mapped = mmap.mmap(-1, mb * MB, flags=_PRIVATE)
    mapped.madvise(mmap.MADV_HUGEPAGE)
    _fill(mapped)


def shared_mmap(mb: int = 1500) -> None:
    """A shared anonymous mapping."""
    _fill(mmap.mmap(-1, mb * MB))


def mapped_file_in_shm(mb: int = 1500) -> None:
    """A file in /dev/shm, mapped and filled."""
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.truncate(mb * MB)
        _fill(mmap.mmap(file.fileno(), mb * MB))


def unmapped_file_in_shm(mb: int = 600) -> None:
    """A file in /dev/shm, written and never mapped."""
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        _write(file.fileno(), mb)


def unmapped_memfd(mb: int = 600) -> None:
    """A memfd, written and never mapped."""
    file = os.memfd_create("rqmem-adversary")
    try:
        _write(file, mb)
    finally:
        os.close(file)


def sqlite_query(mb: int = 1500) -> None:
    """One SQL statement on an in-memory database."""
    database = sqlite3.connect(":memory:")
    database.execute("create table big (content text)")
    database.execute(
        "insert into big with recursive n(i) as (select 1 union all select i + 1 from n where i < ?) "
        "select printf('%.*c', 100000, 'x') from n",
        (mb * 10,),
    )


def _fill(mapped: mmap.mmap) -> None:
    ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(mapped)), 1, len(mapped))


def _write(file: int, mb: int) -> None:
    piece = b"x" * MB
    for _ in range(mb):
        os.write(file, piece)
