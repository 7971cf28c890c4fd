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
_last: dict[Any, Any] = {}
"""The values that were put last, as `os.environ` has them."""
_kept: dict[Any, Any] = {}
"""All variables, as `put_back` is to leave them."""


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
    key = environ.encodekey(name)
    environ._data[key] = _last[key] = _kept[key] = environ.encodevalue(value)


class Again:
    """Puts one variable that `put` has put before, in a tenth of the time where Python has set no other value since."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._key = os.fsencode(name)
        self._start = self._key + b"="

    def put(self, value: bytes) -> None:
        key, text = self._key, self._start + value
        known = _last.get(key)
        data: dict[bytes, bytes] = getattr(os.environ, "_data", {})  # a job may have put another `os.environ` there
        if known is None or data.get(key) is not known or len(text) >= len(string := _strings[self._name][-1]):
            put(self._name, os.fsdecode(value))
        else:
            string.value = text
            data[key] = _last[key] = _kept[key] = value


def keep() -> None:
    """From now on `put_back` leaves the variables as they are now, but for what `put` puts."""
    environ: Any = os.environ
    _kept.clear()
    _kept.update(getattr(environ, "_data", environ))
    _kept.update(_last)


def put_back() -> bool:
    """Undo what Python has changed in the variables since `keep`; whether there was something."""
    environ: Any = os.environ
    data = getattr(environ, "_data", _kept)
    if data == _kept:
        return False
    zone = data.get(b"TZ"), _kept.get(b"TZ")
    for key in data.keys() - _kept.keys():
        del environ[environ.decodekey(key)]
    for key, value in _kept.items():
        if data.get(key) != value:
            environ[environ.decodekey(key)] = environ.decodevalue(value)
    if zone[0] != zone[1]:
        time.tzset()
    return True


@cache
def _libc() -> Any:
    return ctypes.CDLL(None)
