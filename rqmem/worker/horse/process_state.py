"""What a job can change about its process, and must not leave to the next job in a warm horse, as under RQ.

Two kinds. What belongs to the process (`look`) is compared after each job: a horse in which it differs is replaced.
What is a setting of Python or of the C library (`ProcessSettings`) is put back.

Modules count on what they set when they are imported, and are imported once. So settings that changed while a module
from outside the standard library was imported stay. Not looked at are objects of Python: globals of modules, caches,
logging. But RQ's and rqmem's loggers go on, which `logging.config` switches off unless told not to: other jobs'
failures were in no log.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` wraps it and makes enums: thirty times as slow
import ctypes
import gc
import locale
import logging
import os
import resource
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from rqmem.measure import linux
from rqmem.worker.horse import environment

_SIGNALS = sorted(map(int, signal.valid_signals()))
_STANDARD_SIGNALS = [number for number in _SIGNALS if number <= int(signal.SIGSYS)]
_LIMIT_NUMBERS = [value for name, value in vars(resource).items() if name.startswith("RLIMIT_")]
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid_for_children", "time_for_children", "user", "uts")
_RIGHTS = (b"Groups:", b"CapInh:", b"CapPrm:", b"CapEff:", b"CapBnd:", b"CapAmb:", b"NoNewPrivs:", b"Seccomp")
_FEW_FILES = 64
_UNKNOWN = object()
_LAST_STANDARD_FILE = 2
_setlocale = ctypes.PyDLL(None).setlocale  # by `locale` it takes three times as long, 1 % of a short job
_setlocale.argtypes, _setlocale.restype = (ctypes.c_int, ctypes.c_char_p), ctypes.c_char_p
_TIMERS = (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)

Traces = Mapping[str, object]


def look() -> Traces:
    """This process by now, in some 0.1 ms. Call it from the main thread."""
    umask = os.umask(0o077)
    os.umask(umask)
    return {
        "working directory": _file("."),
        "standard files": [_file(number) for number in (0, 1, 2)],
        "umask": umask,
        "root directory": _file("/"),
        "user and group": (os.getresuid(), os.getresgid()),
        "namespaces": [_text(f"/proc/self/ns/{name}", os.readlink) for name in _NAMESPACES],
        "groups and rights": _text("/proc/self/status", _rights),
        "process flags": linux.process_flags(),
        "process group": (os.getpgrp() == os.getpid(), os.getsid(0)),
        "priority": (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), os.sched_getparam(0).sched_priority),
        "choice of the OOM killer": _text("/proc/self/oom_score_adj", _read),
        "processors": os.sched_getaffinity(0),
        "signal handlers": list(map(_signal.getsignal, _SIGNALS)),
        "blocked signals": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "timers": [signal.getitimer(timer)[0] > 0 for timer in _TIMERS],
        "resource limits": list(map(resource.getrlimit, _LIMIT_NUMBERS)),
        "number of open files": _many_files_open(),
        "garbage collection": gc.isenabled(),
        "logging.disable": logging.root.manager.disable,
    }


class Glance:
    """What of `look` is compared after each job of a lease, in microseconds; who changes more is found at its end."""

    def __init__(self) -> None:
        self._most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._at_first = self._now()

    def differs(self) -> bool:
        return self._now() != self._at_first

    def _now(self) -> tuple[object, ...] | None:
        """None: the working directory is gone, or a file is closed."""
        umask = os.umask(0o077)
        os.umask(umask)
        try:
            return (
                os.getcwd(),  # noqa: PTH109
                umask,
                os.geteuid(),
                list(map(_signal.getsignal, _STANDARD_SIGNALS)),
                _signal.pthread_sigmask(signal.SIG_BLOCK, ()),
                resource.getrlimit(resource.RLIMIT_AS),
                _are_few(os.dup(0), self._most_files),
                gc.isenabled(),
                logging.root.manager.disable,
            )
        except OSError:
            return None


def changed(before: Traces, now: Traces) -> str:
    """Names of what differs, for people; "": nothing."""
    if before == now:
        return ""
    return ", ".join(name for name, value in now.items() if before[name] != value and value is not _UNKNOWN)


class ProcessSettings:
    """Settings of this process as they are now, to be put back after each job, in some microseconds."""

    def __init__(self) -> None:
        names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in ("rq", "rqmem")]
        self._loggers = [logging.getLogger(name) for name in names]
        self._modules = set(sys.modules)
        self._begin()

    def _begin(self) -> None:
        environment.keep()
        self._kept = tuple(value[:] if isinstance(value, list) else value for value in _settings())

    def keep_imported(self) -> bool:
        """If modules have been imported, what has changed stays."""
        if len(sys.modules) == len(self._modules):
            return False
        new = sys.modules.keys() - self._modules
        self._modules = set(sys.modules)
        if all(name.partition(".")[0] in sys.stdlib_module_names for name in new):
            return False
        self._begin()
        return True

    def put_back(self) -> list[str]:
        """After a job; names of what it had changed."""
        for logger in self._loggers:
            logger.disabled = False
        if self.keep_imported():
            return []
        found = ["environment"] if environment.put_back() else []
        if (now := _settings()) != self._kept:
            for (name, put), kept, value in zip(_SETTINGS.items(), self._kept, now, strict=True):
                if value != kept:
                    put(kept)
                    found.append(name)
        return found


def _put_filters(filters: list[Any]) -> None:
    warnings.resetwarnings()
    warnings.filters.extend(filters)  # type: ignore[attr-defined]  # typed as a sequence; it is the list


_SETTINGS: dict[str, Callable[[Any], object]] = {
    "time zone": lambda value: time.tzset(),
    "sys.path": lambda value: sys.path.__setitem__(slice(None), value),
    "warning filters": _put_filters,
    "locale": lambda value: locale.setlocale(locale.LC_ALL, os.fsdecode(value)),
    "socket timeout": socket.setdefaulttimeout,
    "recursion limit": sys.setrecursionlimit,
    "switch interval": sys.setswitchinterval,
    "trace function": sys.settrace,
    "profile function": sys.setprofile,
    "sys.stdout": lambda value: setattr(sys, "stdout", value),
    "sys.stderr": lambda value: setattr(sys, "stderr", value),
    "sys.stdin": lambda value: setattr(sys, "stdin", value),
}
"""Name -> what sets it."""


def _settings() -> tuple[Any, ...]:
    """The values of `_SETTINGS`, in its order."""
    return (
        time.tzname,
        sys.path,
        warnings.filters,
        _setlocale(locale.LC_ALL, None),
        socket.getdefaulttimeout(),
        sys.getrecursionlimit(),
        sys.getswitchinterval(),
        sys.gettrace(),
        sys.getprofile(),
        sys.stdout,
        sys.stderr,
        sys.stdin,
    )


def _many_files_open() -> bool:
    """Whether a quarter of the files that a process may have open are open.

    What one job leaves open is missing to the next: without this, jobs failed for what others had not closed. The
    lowest number that is free tells it without a list of them.
    """
    try:
        lowest = os.dup(0)
    except OSError:  # none is free, or the first is closed
        return True
    return not _are_few(lowest, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _are_few(lowest: int, limit: int) -> bool:
    """``lowest``: a number that was free, and is closed here. That of a standard file: somebody has closed it."""
    os.close(lowest)
    return lowest > _LAST_STANDARD_FILE and (limit == resource.RLIM_INFINITY or lowest <= max(limit / 4, _FEW_FILES))


def _text(path: str, read: Callable[[str], object]) -> object:
    """Unknown: no more files may be opened, say, which is seen elsewhere."""
    try:
        return read(path)
    except OSError:
        return _UNKNOWN


def _read(path: str) -> bytes:
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(number, 8192)
    finally:
        os.close(number)


def _rights(path: str) -> list[bytes]:
    """Groups, capabilities, and what of the system this process may not call any more."""
    return [line for line in _read(path).splitlines() if line.startswith(_RIGHTS)]


def _file(where: str | int) -> tuple[int, int] | None:
    """By inode: whoever renames the directory has not moved us."""
    try:
        found = os.stat(where)  # noqa: PTH116
    except OSError:
        return None
    return found.st_dev, found.st_ino
