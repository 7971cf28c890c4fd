"""Whether a file is still the one that was cut: by its size and contents, wherever it is and whenever it was written.

A file that is downloaded again is the same file. A file of up to `WHOLE_BYTES` is hashed whole. Of a larger one, that
number of bytes is hashed, in blocks all over it and at both ends. So a changed byte in the middle of a large file can
go unseen. If you know the file better, give it an identity (an ETag, a version), which then decides. To read no more
than needed, a file with the same size, ends, inode and time of writing counts as the same. This does not protect
against somebody who sets them back on purpose.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from hashlib import blake2b

from rqmem.errors import SourceError
from rqmem.values import dataclass

WHOLE_BYTES = 64 * 2**20
_EDGE_BYTES, _BLOCK_BYTES = 4096, 64 * 1024


@dataclass(frozen=True)
class Fingerprint:
    """What is remembered of a file.

    Attributes:
        edges: a hash of both ends.
        place: which machine and disk: the same file of a network disk may have another inode elsewhere.
        contents: a hash of it all, or of its blocks. Empty: not looked at (rqmem 0.1 did not).
        identity: a hash of what the caller calls it; may be empty.
    """

    size: int
    written_ns: int
    edges: str
    place: str
    inode: int
    contents: str = ""
    identity: str = ""

    @classmethod
    def of(cls, descriptor: int, identity: str = "") -> Fingerprint:
        """That of an open file, without its contents: one fstat and two short reads."""
        status = os.fstat(descriptor)
        edges = os.pread(descriptor, _EDGE_BYTES, 0)
        edges += os.pread(descriptor, _EDGE_BYTES, max(0, status.st_size - _EDGE_BYTES))
        place = _hash(f"{os.uname().nodename}:{status.st_dev}".encode(), 4)
        known = _hash(identity.encode(), 8) if identity else ""
        return cls(
            status.st_size, status.st_mtime_ns, _hash(edges, 8), place, status.st_ino, contents="", identity=known
        )

    def to_text(self) -> str:
        facts = f"{self.size}-{self.written_ns}-{self.edges}-{self.place}-{self.inode}"
        return f"{facts}-{self.contents}-{self.identity}"

    @classmethod
    def from_text(cls, text: str) -> Fingerprint:
        """Raises `SourceError` for what `to_text` did not write."""
        try:
            size, written_ns, edges, place, inode, *newer = text.split("-")
            contents, identity = newer or ("", "")
            return cls(int(size), int(written_ns), edges, place, int(inode), contents, identity)
        except (AttributeError, ValueError):
            raise SourceError(f"{text!r:.100} is no fingerprint of a file") from None

    def change(self, now: Fingerprint, contents_now: Callable[[], str]) -> str | None:
        """What has changed between this and ``now``, in words that follow the file's name; None: nothing.

        ``contents_now``: reads its contents; called only if the rest does not decide.
        """
        if self.identity and now.identity and self.identity != now.identity:
            return "is another one, by the identity that it was given"
        if now.size != self.size:
            verb = "shrank" if now.size < self.size else "grew"
            return f"{verb} from {self.size:,} to {now.size:,} bytes"
        if self.identity and now.identity:
            return None
        replaced = now.place == self.place and now.inode != self.inode
        if now.edges == self.edges and now.written_ns == self.written_ns and not replaced:
            return None
        if now.edges != self.edges or (self.contents and self.contents != contents_now()):
            return "has other contents"
        if self.contents:
            return None
        if replaced:
            return "was replaced by another file"
        moment = datetime.fromtimestamp(now.written_ns // 10**9, timezone.utc)
        return f"was written to (at {moment:%Y-%m-%d %H:%M:%S} UTC)"


def hash_of_contents(read: Callable[[int, int], bytes], size: int) -> str:
    """Of a file of that size; ``read(offset, size)`` reads it."""
    digest = blake2b(digest_size=16)
    for offset, length in hashed_blocks(size):
        digest.update(read(offset, length))
    return digest.hexdigest()


def hashed_blocks(size: int) -> Iterator[tuple[int, int]]:
    """Offset and length of each block that is hashed, in order."""
    count = -(-min(size, WHOLE_BYTES) // _BLOCK_BYTES)
    for number in range(count):
        offset = number * _BLOCK_BYTES
        if size > WHOLE_BYTES:
            offset = number * (size - _BLOCK_BYTES) // (count - 1) if count > 1 else 0
        yield offset, min(_BLOCK_BYTES, size - offset)


def _hash(data: bytes, size: int) -> str:
    return blake2b(data, digest_size=size).hexdigest()
