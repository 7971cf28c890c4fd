"""Jobs for tests of a pool's budget. They say by files where they are, and need no Redis of their own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from rqmem import MemoryAwareJob, memory_aware

MB = 2**20
_kept: list[Any] = []


def _until_file(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.01)


def note(path: str, name: str) -> None:
    """A line in a file."""
    with Path(path).open("a") as file:
        file.write(f"{name}\n")


def hold_until_file(megabytes: int, directory: str, name: str) -> str:
    """Use so much from the beginning, say so, and end when the file ``go`` or ``go-NAME`` is there."""
    block = os.urandom(1) * (megabytes * MB)
    note(f"{directory}/begun", name)
    while not (Path(directory, "go").exists() or Path(directory, f"go-{name}").exists()):
        time.sleep(0.01)
    return f"{name} held {len(block) // MB}"


def grow_until_file(megabytes: int, directory: str, name: str) -> str:
    """The same, by a MB each ten milliseconds."""
    blocks = []
    note(f"{directory}/begun", name)
    for _ in range(megabytes):
        blocks.append(os.urandom(1) * MB)
        time.sleep(0.01)
    _until_file(f"{directory}/go")
    return f"{name} held {len(blocks)}"


@memory_aware(memory_limit_mb=400)
def declares_400(directory: str) -> str:
    note(f"{directory}/begun", "declared")
    return "done"


class HoldsForTenant(MemoryAwareJob):
    """As `hold_until_file`, for somebody; returns its ceiling in MB."""

    tenant = "whose"

    def handle(self, megabytes: int, directory: str, name: str, whose: str | None) -> float:
        hold_until_file(megabytes, directory, name)
        return self._monitored().ceiling.bytes / MB


class OneAtATime(MemoryAwareJob):
    """As `hold_until_file`, one at a time."""

    concurrency = 1

    def handle(self, directory: str, name: str) -> str:
        return hold_until_file(1, directory, name)


class HoldsInChunks(MemoryAwareJob):
    """Works in chunks, each of which uses ``megabytes``; goes on in the next chunk until the file ``go`` is there.

    All the time it uses ``kept_mb``.
    """

    on_breach = "resume"
    chunk_size = 1
    adaptive = False

    def handle(self, megabytes: int, directory: str, name: str, count: int = 3000, kept_mb: int = 0) -> int:
        kept = os.urandom(1) * (kept_mb * MB)

        def work(chunk: list[int]) -> list[int]:
            block = os.urandom(1) * (megabytes * MB)
            note(f"{directory}/chunks-{name}", str(chunk[0]))
            if not Path(directory, "go").exists():
                time.sleep(0.02)
            return [len(block)]

        note(f"{directory}/begun", name)
        done = self.process_in_chunks(range(count), work)
        return len(done) if len(kept) == kept_mb * MB else 0
