"""Imports modules and finds the threads that they leave running, those of C code too.

A library that ends its threads itself before a fork (OpenBLAS does) is no danger, so a fork is tried before they are
counted. A pool of OpenMP is ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import threading
import time
import warnings
from collections.abc import Iterable, Iterator

from rqmem import named_code
from rqmem.errors import ConfigError
from rqmem.measure.threads import native_threads
from rqmem.rq_names import StopRequested
from rqmem.values import dataclass

_OPENMP = re.compile(r"/lib[gi]?omp[^/]*\.so")
_SOFT = 1  # omp_pause_soft: the pool goes, settings stay
_END_SECONDS = 1.0


@dataclass(frozen=True)
class Preloaded:
    """What importing a module has left: threads of an OpenMP pool, which is ended by now, and others.

    ``names``: of the others, as far as Python knows them.
    """

    module: str
    openmp_threads: int = 0
    other_threads: int = 0
    names: tuple[str, ...] = ()


def warning(left: Preloaded) -> str:
    """What a module's threads mean, and what to do."""
    named = f" ({', '.join(left.names)})" if left.names else ""
    threads = "1 thread" if left.other_threads == 1 else f"{left.other_threads} threads"
    return (
        f"{left.module} left {threads} running{named}: horses do not have them, and a job may wait for ever for one or "
        f"for a lock that one held; have the module begin them when they are first used"
    )


def imported(modules: Iterable[str]) -> Iterator[Preloaded]:
    """Import one after the other, and tell what each has left. Raises `ConfigError`."""
    for module in modules:
        threads, known = native_threads(), set(threading.enumerate())
        try:
            named_code.module(module, f"--preload {module}")
        except ConfigError as error:
            if isinstance(error.__cause__, StopRequested):  # the worker is asked to stop while it starts
                raise error.__cause__ from None
            raise
        yield _left(module, threads, known)


def _left(module: str, threads: int, known: set[threading.Thread]) -> Preloaded:
    if native_threads() <= threads:
        return Preloaded(module)
    _try_a_fork()
    left = native_threads() - threads
    if left <= 0:
        return Preloaded(module)
    pool = _end_openmp()
    names = sorted(thread.name for thread in set(threading.enumerate()) - known)
    return Preloaded(module, pool, max(0, left - pool), tuple(names))


def _try_a_fork() -> None:
    """Libraries that can bear a fork end their threads for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 tells of the threads; so do we
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    with contextlib.suppress(ChildProcessError):  # the module had SIGCHLD ignored
        os.waitpid(pid, 0)


def _end_openmp() -> int:
    """End the pools of all OpenMP runtimes in this process; how many threads those were. The next use begins anew."""
    before = native_threads()
    for path in _openmp_runtimes():
        with contextlib.suppress(OSError, AttributeError):  # older than OpenMP 5
            if ctypes.CDLL(path).omp_pause_resource_all(_SOFT) == 0:
                _wait_for_fewer_than(before)
    return before - native_threads()


def _openmp_runtimes() -> set[str]:
    with open("/proc/self/maps") as maps:  # noqa: PTH123
        paths = {line.split(maxsplit=5)[-1].strip() for line in maps}
    return {path for path in paths if _OPENMP.search(path)}


def _wait_for_fewer_than(count: int) -> None:
    deadline = time.monotonic() + _END_SECONDS
    while native_threads() >= count and time.monotonic() < deadline:
        time.sleep(0.001)
