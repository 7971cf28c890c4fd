"""Environment variables whose value is another for each job.

glibc keeps every value that was ever given to setenv(3), which `os.environ` calls, since somebody may hold a pointer to
it. In a horse that works for days these are 200 bytes a job, each of which pins the page of the heap that it lies in:
10 MB after 1,500 jobs that read transcripts. putenv(3) makes a string of ours part of the environment instead, and
what is written into that string is the new value.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any

_ROOM = 512
_strings: dict[str, list[Any]] = {}
"""By name; the last is in use. Those that became too short stay, for whoever holds a pointer to one."""


def put(name: str, value: str) -> None:
    """``os.environ[name] = value``, for this process and what it starts, without the leak."""
    environ: Any = os.environ
    if not hasattr(environ, "_data"):  # another Python than CPython
        environ[name] = value
        return
    text = os.fsencode(f"{name}={value}")
    strings = _strings.setdefault(name, [])
    if not strings or len(text) >= len(strings[-1]):
        strings.append(ctypes.create_string_buffer(max(_ROOM, 2 * len(text))))
    strings[-1].value = text
    _libc().putenv(strings[-1])  # each time: the job may have put another one in its place
    environ._data[environ.encodekey(name)] = environ.encodevalue(value)


@cache
def _libc() -> Any:
    return ctypes.CDLL(None)
