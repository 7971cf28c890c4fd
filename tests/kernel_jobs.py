"""Jobs whose memory is in no process: only a cgroup counts it, with and without page cache beside it."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

MB = 2**20
FOLDER = "/var/tmp"  # on disk
_F_SETPIPE_SZ, _MAP_NORESERVE = 1031, 0x4000


@contextmanager
def page_cache(mb: int) -> Iterator[IO[bytes]]:
    """A file of so many MB that the kernel holds in its cache."""
    with tempfile.TemporaryFile(dir=FOLDER, buffering=0) as file:
        for _ in range(mb):
            file.write(bytes(MB))
        yield file


def in_memfd(mb: int) -> Any:
    file = os.memfd_create("rqmem-test")
    for _ in range(mb):
        os.write(file, bytes(MB))
    return file


def in_system_v_segment(mb: int) -> Any:
    """Written, and attached by nobody any more."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    for _ in range(mb // 8):
        segment = libc.shmget(0, 8 * MB, 0o1600)
        address = ctypes.c_void_p(libc.shmat(segment, None, 0))
        libc.shmctl(segment, 0, None)  # IPC_RMID: gone with its last user, in case the test fails
        ctypes.memset(address, 1, 8 * MB)
        pid = os.fork()  # a sleeping user keeps it, and maps it without a page of its own
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        libc.shmdt(address)


def _fill(end: socket.socket, piece: bytes) -> int:
    end.setblocking(False)
    sent = 0
    try:
        while True:
            sent += end.send(piece)
    except BlockingIOError:
        return sent


def in_unix_sockets(mb: int) -> Any:
    kept, sent = [], 0
    while sent < mb * MB:
        pair = socket.socketpair()
        pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MB)
        sent += _fill(pair[0], b"x" * 65536)
        kept.append(pair)
    return kept


def in_tcp_sockets(mb: int) -> Any:
    kept, sent = [], 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        while sent < mb * MB:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
            sent += _fill(ours, b"x" * 65536)
            kept.append((ours, theirs))
    return kept


def in_pipes(mb: int) -> Any:
    kept = []
    for _ in range(mb):
        out, into = os.pipe()
        fcntl.fcntl(into, _F_SETPIPE_SZ, MB)
        os.write(into, bytes(MB))
        kept.append((out, into))
    return kept


def in_page_tables(mb: int) -> Any:
    """A page of page tables for each 2 MB of addresses: read, so that no memory is behind them."""
    area = mmap.mmap(-1, mb * 256 * 2 * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    sum(area[offset] for offset in range(0, len(area), 2 * MB))
    return area


def in_locked_file(mb: int) -> Any:
    """Page cache that may not be dropped."""
    with page_cache(mb) as file:
        mapped = mmap.mmap(file.fileno(), mb * MB)
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        if ctypes.CDLL(None, use_errno=True).mlock(ctypes.c_void_p(address), ctypes.c_size_t(mb * MB)):
            raise OSError(ctypes.get_errno(), "mlock")
        return mapped


def in_spliced_pages(mb: int) -> Any:
    """Pages of a file that pipes go on holding when it is cut off."""
    kept = []
    with page_cache(mb) as file:
        for number in range(mb):
            out, into = os.pipe()
            fcntl.fcntl(into, _F_SETPIPE_SZ, MB)
            os.splice(file.fileno(), into, MB, offset_src=number * MB)
            kept.append((out, into))
        file.truncate(0)
    return kept


HIDERS: tuple[Callable[[int], Any], ...] = (
    in_memfd, in_system_v_segment, in_unix_sockets, in_tcp_sockets, in_pipes, in_page_tables, in_locked_file,
    in_spliced_pages,
)  # fmt: skip


def hide(how: str, mb: int, cache_mb: int = 0, *, cache_stays: bool = True) -> str:
    """Use ``mb`` in a way of `HIDERS`, beside so much page cache; without ``cache_stays`` that is gone by then."""
    with page_cache(cache_mb) as file:
        time.sleep(0.2)  # so that the limit has gone up
        if not cache_stays:
            file.truncate(0)
        kept = globals()[how](mb)
        time.sleep(0.2)
        del kept
        return charged()


def charged() -> str:
    """For whoever reads a test's failure."""
    own = {
        line.split(":")[1]: line.split(":")[2].strip() for line in Path("/proc/self/cgroup").read_text().splitlines()
    }
    files = [Path(f"/sys/fs/cgroup/memory{own.get('memory')}/memory.usage_in_bytes"),
             Path(f"/sys/fs/cgroup{own.get('')}/memory.current")]  # fmt: skip
    return " ".join(f"{int(file.read_text()) // MB} MB charged" for file in files if file.exists())


def leave_in_tmpfs(mb: int) -> str:
    """The file's name; it stays when the job has ended."""
    with tempfile.NamedTemporaryFile(prefix="rqmem-test-", dir="/dev/shm", delete=False) as file:
        for _ in range(mb):
            file.write(bytes(MB))
        return file.name


# Honest: what files cost is the kernel's to drop


def write_and_read(mb: int) -> int:
    with page_cache(mb) as file:
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        return sum(len(piece) for piece in iter(lambda: os.read(file.fileno(), MB), b"")) // MB


def map_and_change(mb: int) -> int:
    """A mapping of a file on disk, all of it written to."""
    with page_cache(mb) as file, mmap.mmap(file.fileno(), mb * MB) as mapped:
        for offset in range(0, mb * MB, 4096):
            mapped[offset] = 1
        return sum(mapped[::4096]) * 4096 // MB


def many_names(count: int, cache_mb: int) -> int:
    """Names that the kernel remembers (half a KB each, here of files that do not exist), beside page cache."""
    with page_cache(cache_mb):
        return sum(not os.access(f"{FOLDER}/{number:0200}", os.F_OK) for number in range(count))
