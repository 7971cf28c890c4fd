"""``process_in_chunks`` and ``chunks``: cut, process, save the cursor, checkpoint; one chunk in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from rqmem.errors import ConfigError
from rqmem.job.chunk_progress import Stage
from rqmem.job.run import MemoryContext
from rqmem.sources import Source, as_source

T = TypeVar("T")


def process_in_chunks(
    context: MemoryContext,
    data: Source[T] | Iterable[T],
    processor: Callable[[list[T]], Any],
    chunk_size: int | None,
    *,
    collect: bool,
    adaptive: bool,
) -> list[Any]:
    """See `rqmem.MemoryAwareJob.process_in_chunks`, which is its public form."""
    with _begun(context, data, chunk_size, adaptive) as (stage, items):
        results = stage.saved_results() if collect else []
        while True:
            chunk, cursor = _next_chunk(stage, items)
            count = len(chunk)  # now: what the processor does with its list is its own affair
            if count == 0:
                return results
            returned = processor(chunk)
            held = context.read_bytes()
            kept = _as_list(returned) if collect else []
            del chunk, returned
            stage.finish_chunk(count, cursor, held, kept)
            results.extend(kept)


def chunks(
    context: MemoryContext, data: Source[T] | Iterable[T], chunk_size: int | None, *, adaptive: bool
) -> Iterator[list[T]]:
    """See `rqmem.MemoryAwareJob.chunks`, which is its public form."""
    with _begun(context, data, chunk_size, adaptive) as (stage, items):
        while True:
            chunk, cursor = _next_chunk(stage, items)
            count = len(chunk)
            if count == 0:
                return
            yield chunk
            held = context.read_bytes()
            del chunk
            stage.finish_chunk(count, cursor, held, [])


@contextmanager
def _begun(
    context: MemoryContext, data: Source[T] | Iterable[T], chunk_size: int | None, adaptive: bool
) -> Iterator[tuple[Stage, Iterator[tuple[T, Any]]]]:
    """A stage, and the items it has still to do. However it ends, what is finished is saved."""
    source = as_source(data, must_resume=context.resumable)
    with context.stage(checked_chunk_size(chunk_size, "chunk_size"), adaptive=adaptive) as stage:
        if stage.cursor is None and (first := source.first_cursor()) is not None:
            stage.begin_at(first)
        if stage.to_be_cut:
            context.cut(source if stage.cursor is None else source.rest(stage.cursor), f"item {stage.items_done + 1}")
        try:
            yield stage, iter(source.items_after(stage.cursor))
        finally:
            stage.save()


def _next_chunk(stage: Stage, items: Iterator[tuple[T, Any]]) -> tuple[list[T], Any]:
    """The items of the next chunk, and the cursor after the last: those of the others are not kept. Empty: no more."""
    stage.begin_chunk()
    chunk: list[T] = []
    cursor = None
    for item, cursor in islice(items, stage.chunk_size):  # noqa: B007 - it is returned
        chunk.append(item)
    return chunk, cursor


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
