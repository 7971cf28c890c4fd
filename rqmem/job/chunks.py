"""``process_in_chunks``: cut, process, save the cursor, checkpoint; one chunk in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, TypeVar

from rqmem.errors import ConfigError
from rqmem.job.context import MemoryContext
from rqmem.sources import Source, as_source

T = TypeVar("T")


def process_in_chunks(
    context: MemoryContext,
    data: Source[T] | Iterable[T],
    processor: Callable[[list[T]], Any],
    chunk_size: int | None,
    collect: bool,
) -> list[Any]:
    """See `rqmem.MemoryAwareJob.process_in_chunks`, which is its public form."""
    source = as_source(data, must_resume=context.resumable)
    with context.stage(checked_chunk_size(chunk_size, "chunk_size")) as stage:
        results = context.saved_results(stage) if collect else []
        items = source.items_after(stage.cursor)
        done = stage.items_done
        while True:
            context.at(f"items {done + 1}-{done + stage.chunk_size}")
            batch = list(islice(items, stage.chunk_size))
            if not batch:
                return results
            returned = processor([item for item, _ in batch])
            kept = _as_list(returned) if collect else []
            cursor, count = batch[-1][1], len(batch)
            del batch, returned
            context.finish_chunk(stage, cursor, count, kept)
            results.extend(kept)
            done += count
            context.checkpoint(f"items {done - count + 1}-{done}")


def checked_chunk_size(size: Any, whose: str) -> int | None:
    """A chunk size of at least 1; None stays None. Raises `ConfigError`."""
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ConfigError(f"{whose} is {size!r}: give a whole number of items of at least 1")
    return size


def _as_list(returned: Any) -> list[Any]:
    if returned is None:
        return []
    return list(returned) if isinstance(returned, list | tuple) else [returned]
