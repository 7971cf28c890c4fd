"""A file that is read at offsets, in blocks, and must not change meanwhile. `rqmem.sources.files` is built on it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rqmem.errors import SourceChanged, SourceError
from rqmem.sources.fingerprint import Fingerprint, hash_of_contents

BLOCK_BYTES = 256 * 1024


class OpenFile:
    """A regular file that is read at offsets, and that must not change meanwhile."""

    def __init__(self, path: str, descriptor: int, identity: str = "") -> None:
        self.path = path
        self.seen = Fingerprint.of(descriptor, identity)
        self._descriptor, self._identity = descriptor, identity

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes, fewer at the file's end only. Raises `SourceError` where the file has changed."""
        while True:
            data = self._read(offset, size)
            status = os.fstat(self._descriptor)
            if (status.st_size, status.st_mtime_ns) == (self.seen.size, self.seen.written_ns):
                return data
            self._accept(Fingerprint.of(self._descriptor, self._identity), self.seen)

    def check(self, seen: Fingerprint) -> None:
        """Raise `SourceChanged` if this is not the file that was ``seen``; else keep what is known of that one."""
        self._accept(self.seen, seen)

    def with_contents(self) -> Fingerprint:
        """What it is, by its contents too, which are read for that."""
        if not self.seen.contents:
            self.seen = replace(self.seen, contents=hash_of_contents(self.read, self.seen.size))
        return self.seen

    def _accept(self, now: Fingerprint, seen: Fingerprint) -> None:
        what = seen.change(now, lambda: hash_of_contents(self._read, now.size))
        if what is not None:
            raise changed(self.path, what)
        self.seen = replace(now, contents=seen.contents)

    def _read(self, offset: int, size: int) -> bytes:
        try:
            data = os.pread(self._descriptor, size, offset)
            while len(data) < min(size, self.seen.size - offset) and (
                more := os.pread(self._descriptor, size - len(data), offset + len(data))
            ):
                data += more
        except OSError as error:
            raise SourceError(f"{self.path}: byte {offset:,}: cannot be read: {error.strerror}") from error
        return data


@contextmanager
def opened(path: str, seen: Fingerprint | None = None, identity: str = "") -> Iterator[OpenFile]:
    """The file, open. Raises `SourceError`: it cannot be read, or is not the one that was ``seen``."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise SourceError(f"{path} is no regular file, so it cannot be read from a position: copy it into one")
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise (SourceError(f"{path} does not exist") if seen is None else changed(path, "vanished")) from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    try:
        file = OpenFile(path, descriptor, identity)
        if seen is not None:
            file.check(seen)
        yield file
    finally:
        os.close(descriptor)


def changed(path: str, what: str) -> SourceChanged:
    return SourceChanged(
        f"{path} {what}: it changed since it was cut or first read; cut it again, begin again from its start"
    )


def lines(
    file: OpenFile, begin: int, end: int, split: Callable[[bytes], list[bytes]], ends: tuple[bytes, ...], longest: int
) -> Iterator[bytes]:
    """The lines in these bytes, with their ends, a block at a time. ``split`` cuts at ``ends`` and keeps them.

    Of a line that is much longer than ``longest`` bytes, only a beginning longer than that comes, and then nothing.
    """
    unsplit: list[bytes] = []
    while begin < end:
        block = file.read(begin, min(BLOCK_BYTES, end - begin))
        begin += len(block)
        unsplit.append(block)
        if begin < end and any(each in block for each in ends):  # else a line longer than the block
            whole = split(b"".join(unsplit))
            # A last one without "\n" goes on in the next block, or is followed there by the "\n" of its "\r\n".
            unsplit = [] if whole[-1].endswith(b"\n") else [whole.pop()]
            yield from whole
        elif begin < end and sum(map(len, unsplit)) > longest:
            yield b"".join(unsplit)
            return
    if unsplit:
        yield from split(b"".join(unsplit))


def first_line_end(file: OpenFile, offset: int, end: int, pattern: re.Pattern[bytes]) -> int:
    """The offset after the first line end from ``offset`` on, as ``pattern`` has them; else ``end``."""
    while offset < end:
        block = file.read(offset, min(BLOCK_BYTES, end - offset))
        found = pattern.search(block)
        offset += found.end() if found else len(block)
        if found:
            split_pair = found[0] == b"\r" and file.read(offset, 1) == b"\n"
            return offset + split_pair
    return end
