"""Environment variables whose value is another for each job.

glibc keeps every value that was ever given to setenv(3), which `os.environ` calls, since somebody may hold a pointer to
it. In a horse that works for days these are 200 bytes a job, each of which pins the page of the heap that it lies in:
10 MB after 1,500 jobs that read transcripts. putenv(3) makes a string of ours part of the environment instead, and
what is written into that string is the new value.
"""

from __future__ import annotations

import ctypes
import os
import time
from functools import cache
from typing import Any

_ROOM = 512
_strings: dict[str, list[Any]] = {}
"""By name; the last is in use. Those that became too short stay, for whoever holds a pointer to one."""
_last: dict[str, Any] = {}
"""By name: the value that was put last, as `os.environ` has it."""


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
    environ._data[environ.encodekey(name)] = _last[name] = environ.encodevalue(value)


def put_again(name: str, value: str) -> None:
    """As `put`, in a tenth of the time where Python has set no other value since."""
    environ: Any = os.environ
    known, key, text = _last.get(name), os.fsencode(name), os.fsencode(value)
    if known is None or environ._data.get(key) is not known or len(key) + len(text) + 1 >= len(_strings[name][-1]):
        put(name, value)
        return
    _strings[name][-1].value = b"%b=%b" % (key, text)
    environ._data[key] = _last[name] = text


def copied() -> dict[Any, Any]:
    """All variables as they are now, for `put_back`."""
    environ: Any = os.environ
    return dict(getattr(environ, "_data", environ))


def put_back(before: dict[Any, Any]) -> bool:
    """Undo what Python has changed in them since, but for what `put` has put; whether there was something."""
    environ: Any = os.environ
    if not hasattr(environ, "_data"):
        return False
    data = environ._data
    for name, value in _last.items():
        before[environ.encodekey(name)] = value
    if data == before:
        return False
    zone = data.get(b"TZ"), before.get(b"TZ")
    for key in data.keys() - before.keys():
        del environ[environ.decodekey(key)]
    for key, value in before.items():
        if data.get(key) != value:
            environ[environ.decodekey(key)] = environ.decodevalue(value)
    if zone[0] != zone[1]:
        time.tzset()
    return True


@cache
def _libc() -> Any:
    return ctypes.CDLL(None)
