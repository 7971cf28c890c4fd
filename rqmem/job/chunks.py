"""``process_in_chunks`` and ``chunks``: cut, process, save the cursor, checkpoint; one chunk in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from rqmem.errors import ConfigError
from rqmem.job.checked import checked_chunk_size
from rqmem.job.chunk_progress import ChunkProgress
from rqmem.job.run import JobRun
from rqmem.sources import Cuttable, Source, as_source

T = TypeVar("T")


def process_in_chunks(
    run: JobRun,
    data: Source[T] | Iterable[T],
    processor: Callable[[list[T]], Any],
    chunk_size: int | None,
    *,
    collect: bool,
    adaptive: bool,
) -> list[Any]:
    """See `rqmem.MemoryAwareJob.process_in_chunks`, which is its public form."""
    if not callable(processor):
        raise ConfigError(
            f"process_in_chunks needs a function that takes a chunk, not {type(processor).__name__}: "
            f"give self.send, for example, not self.send(...)"
        )
    with _begun(run, data, chunk_size, adaptive) as (progress, source, items):
        results = progress.saved_results() if collect else []
        while True:
            chunk, cursor = _next_chunk(progress, source, items)
            count = len(chunk)  # before the processor, which may change its list
            if count == 0:
                return results
            returned = processor(chunk)
            full_bytes = run.checkpoints.read_bytes()
            kept = _as_list(returned) if collect else []
            del chunk, returned
            progress.finish_chunk(count, cursor, full_bytes, kept)
            results.extend(kept)


def chunks(run: JobRun, data: Source[T] | Iterable[T], chunk_size: int | None, *, adaptive: bool) -> Iterator[list[T]]:
    """See `rqmem.MemoryAwareJob.chunks`, which is its public form."""
    with _begun(run, data, chunk_size, adaptive) as (progress, source, items):
        while True:
            chunk, cursor = _next_chunk(progress, source, items)
            count = len(chunk)
            if count == 0:
                return
            yield chunk
            full_bytes = run.checkpoints.read_bytes()
            del chunk
            progress.finish_chunk(count, cursor, full_bytes, [])


@contextmanager
def _begun(
    run: JobRun, data: Source[T] | Iterable[T], chunk_size: int | None, adaptive: bool
) -> Iterator[tuple[ChunkProgress, Cuttable[T], Iterator[tuple[T, Any]]]]:
    """The progress of a call, its data, and what is left of them. However the call ends, what is finished is saved."""
    source = as_source(data, must_resume=run.resumable)
    with run.chunk_progress(checked_chunk_size(chunk_size, "chunk_size"), adaptive=adaptive) as progress:
        if progress.cursor is None and (first := source.first_cursor()) is not None:
            progress.begin_at(first)
        if progress.to_be_cut:
            rest = source if progress.cursor is None else source.rest(progress.cursor)
            run.cut(rest, f"item {progress.items_done + 1}")
        progress.expect(source.count().items if getattr(source, "counts_at_once", False) else None)
        try:
            yield progress, source, iter(source.items_after(progress.cursor))
        finally:
            progress.save()


def _next_chunk(progress: ChunkProgress, source: Cuttable[T], items: Iterator[tuple[T, Any]]) -> tuple[list[T], Any]:
    """The items of the next chunk, and the cursor after the last one; other cursors are not kept. Empty at the end."""
    progress.begin_chunk()
    chunk: list[T] = []
    cursor = None
    for item, cursor in islice(items, progress.chunk_size):  # noqa: B007 - it is returned
        chunk.append(item)
    return chunk, source.cursor_to_save(cursor, chunk[-1]) if chunk else None


def _as_list(returned: Any) -> list[Any]:
    if returned is None:
        return []
    return list(returned) if isinstance(returned, list | tuple) else [returned]
