"""Whether a file is still the one that was cut: a few facts about it that change when its contents do. No promises
against somebody who sets them back on purpose.

A file counts as the same when size, time of writing and the first and last 4 KB are; and, as far as the same machine
looks at the same disk, the inode: on another machine the same file of a network disk may have another one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import blake2b

from rqmem.errors import SourceError

_EDGE_BYTES = 4096


@dataclass(frozen=True)
class Fingerprint:
    """What is remembered of a file. ``place``: which machine and disk; ``edges``: a hash of both ends."""

    size: int
    written_ns: int
    edges: str
    place: str
    inode: int

    @classmethod
    def of(cls, descriptor: int) -> Fingerprint:
        """That of an open file: one fstat and two short reads."""
        status = os.fstat(descriptor)
        edges = os.pread(descriptor, _EDGE_BYTES, 0)
        edges += os.pread(descriptor, _EDGE_BYTES, max(0, status.st_size - _EDGE_BYTES))
        place = f"{os.uname().nodename}:{status.st_dev}"
        return cls(status.st_size, status.st_mtime_ns, _hash(edges, 8), _hash(place.encode(), 4), status.st_ino)

    def to_text(self) -> str:
        return f"{self.size}-{self.written_ns}-{self.edges}-{self.place}-{self.inode}"

    @classmethod
    def from_text(cls, text: str) -> Fingerprint:
        """Raises `SourceError` for what `to_text` did not write."""
        try:
            size, written_ns, edges, place, inode = text.split("-")
            return cls(int(size), int(written_ns), edges, place, int(inode))
        except (AttributeError, ValueError):
            raise SourceError(f"{text!r:.100} is no fingerprint of a file") from None

    def change(self, now: Fingerprint) -> str | None:
        """What has changed between this and ``now``, in words that follow the file's name; None: nothing."""
        if now.size != self.size:
            verb = "shrank" if now.size < self.size else "grew"
            return f"{verb} from {self.size:,} to {now.size:,} bytes"
        if now.place == self.place and now.inode != self.inode:
            return "was replaced by another file"
        if now.written_ns != self.written_ns:
            moment = datetime.fromtimestamp(now.written_ns // 10**9, timezone.utc)
            return f"was written to (at {moment:%Y-%m-%d %H:%M:%S} UTC)"
        return "has other contents" if now.edges != self.edges else None


def _hash(data: bytes, size: int) -> str:
    return blake2b(data, digest_size=size).hexdigest()
