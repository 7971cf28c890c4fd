"""What a horse uses before it has done anything."""

from __future__ import annotations

import os

from rqmem.errors import RqmemError
from rqmem.memory import procfs


def usage_of_idle_fork() -> int:
    """Bytes a horse uses that has done nothing yet, by the same measure as the ceiling. Raises `RqmemError`."""
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(ready[1], b"1")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    try:
        rollup = procfs.read_rollup(pid)
    except KeyError:  # a kernel before 5.4
        rollup = None
    os.write(go[1], b"1")
    os.waitpid(pid, 0)
    for fd in (*ready, *go):
        os.close(fd)
    if rollup is None:
        raise RqmemError(
            "/proc/PID/smaps_rollup cannot be read here, so no ceiling can be kept: "
            "rqmem needs Linux 5.4 or later with /proc readable"
        )
    return rollup.usage_bytes
