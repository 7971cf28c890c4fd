"""Jobs that tell how large their chunks were."""

from __future__ import annotations

from typing import Any

from rqmem import MemoryAwareJob


class Chunky(MemoryAwareJob):
    """Declares 10 items a chunk, as a start."""

    queue = "auto"
    chunk_size = 10

    def handle(self, count: int = 400, **how: Any) -> list[int]:
        return [len(chunk) for chunk in self.chunks(range(count), **how)]


class Fixed(Chunky):
    """Declares 10 and means it."""

    adaptive = False
