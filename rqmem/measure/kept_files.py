"""Reading small files in a process whose descriptors may all be used up, or closed, by the code of users."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_spare: tuple[int, int] | None = None  # the process that keeps it, and its descriptor


def keep_a_spare_descriptor() -> None:
    """From now on this process can read files here although its descriptors, or the machine's, are used up."""
    global _spare
    if _spare is None or _spare[0] != os.getpid():  # a fork's copy is not ours to close: its number may be another's
        _spare = (os.getpid(), os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))


def with_a_descriptor(read: Callable[[], T]) -> T:
    """``read``, which opens one file and closes it; by means of the spare descriptor where none is left."""
    global _spare
    try:
        return read()
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE) or _spare is None or _spare[0] != os.getpid():
            raise
    os.close(_spare[1])
    _spare = None
    try:
        return read()
    finally:
        with contextlib.suppress(OSError):
            keep_a_spare_descriptor()


def read_whole(path: str) -> bytes:
    return with_a_descriptor(lambda: read_once(path))


def read_text(path: str) -> str:
    """A file of the kernel's that has names of others in it: bytes that are no UTF-8 are lone surrogates, as in paths.

    Split it at ``\n``: of all that `str.splitlines` takes for an end of line, the kernel escapes nothing else in names.
    """
    return read_whole(path).decode("utf-8", "surrogateescape")


def read_once(path: str) -> bytes:
    """As `Path.read_bytes`, by three system calls and not by eight."""
    parts = []
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while part := os.read(fd, 65536):
            parts.append(part)
    finally:
        os.close(fd)
    return b"".join(parts)


class KeptFile:
    """A small file that stays open, to be read from its start again and again. Raises OSError.

    ``checked``: in a process that runs user code, which may close all descriptors there are (daemons do) and open its
    own under the same numbers. Then each use makes sure that it still is ours, and otherwise opens the file anew.
    """

    def __init__(self, path: str, *, checked: bool = False) -> None:
        self._path = path
        self._fd = with_a_descriptor(lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        self._identity = _identity(self._fd) if checked else None

    def read(self, most: int = 128) -> bytes:
        return os.pread(self._fd, most, 0) if self._is_ours() else read_whole(self._path)

    def close(self) -> None:
        if self._is_ours():
            os.close(self._fd)
        self._fd = -1

    def _is_ours(self) -> bool:
        if self._fd != -1 and self._identity is not None and self._identity != _identity(self._fd):
            self._fd = -1
        return self._fd != -1


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino
