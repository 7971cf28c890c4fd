"""One call of ``process_in_chunks`` or ``chunks``: where it is, how large its next chunk is, what is saved of it.

A finished chunk is saved soon. It is not saved at once where chunks are short, so a killed horse may have to repeat the
chunk in flight and what was finished within the last `SAVE_SECONDS`. Any other end saves first.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from rqmem.errors import PlannedStop, SourceError
from rqmem.job.checkpoints import Checkpoints
from rqmem.measure.trim import collect_and_trim
from rqmem.policy import chunk_size as policy
from rqmem.policy.item_growth import ItemGrowth
from rqmem.store import codec, execution_reader
from rqmem.store.execution_records import RunRecord
from rqmem.store.executions import RunWriter
from rqmem.worker.horse.user_code import Horse
from rqmem.worker.shared_memory import SharedPage

SAVE_SECONDS = 0.02
_clock = time.monotonic


class ChunkCounts:
    """The chunks of a run, over all its calls. On a worker, the shared page has the figures too.

    Attributes:
        own_items: items of outermost calls. A call within a chunk of another one works on that one's items.
        growth_per_item: bytes that stay of each item, in the outermost call where most stays; None: nothing stays.
    """

    def __init__(self, page: SharedPage | None) -> None:
        self._page = page
        self.chunks = self.items = self.own_items = self.largest = 0
        self.growth_per_item: float | None = None

    def add(self, items: int) -> None:
        self.chunks += 1
        self.items += items
        self.largest = max(self.largest, items)
        if self._page is not None:
            self._page.chunks, self._page.items, self._page.largest_chunk = self.chunks, self.items, self.largest

    def add_own(self, items: int, items_done: int) -> None:
        """The chunk was one of an outermost call."""
        self.own_items += items
        if self._page is not None:
            self._page.items_done = items_done

    def expect(self, items: int | None) -> None:
        """How many items the outermost call that begins has in all; None: that is not known."""
        if self._page is not None:
            self._page.items_total = 0 if items is None else items + 1

    def peak_bytes(self) -> int:
        """The highest usage that the watcher saw during the last chunk; 0 where it saw none."""
        page = self._page
        if page is None or page.peak_seq != page.seq or page.chunk_peak_of != self.chunks - 1:
            return 0
        return page.chunk_peak_bytes

    def note_growth(self, bytes_per_item: float | None) -> None:
        if bytes_per_item is not None:
            self.growth_per_item = max(self.growth_per_item or 0.0, bytes_per_item)


class ChunkProgress:
    """The progress of a call.

    Args:
        outermost: it is not called within a chunk of another call.

    Attributes:
        cursor, items_done: where it is, over all executions.
        to_be_cut: an earlier execution breached here, so child jobs must be made of what is left.
    """

    def __init__(
        self, checkpoints: Checkpoints, counts: ChunkCounts, size: policy.SizeState, *, outermost: bool
    ) -> None:
        self._checkpoints, self._counts, self._size, self._outermost = checkpoints, counts, size, outermost
        self.cursor: Any = None
        self.items_done = 0
        self.to_be_cut = False
        self._began = _clock()
        self._before = 0
        self._growth = ItemGrowth()

    @property
    def chunk_size(self) -> int:
        return self._size.size

    def saved_results(self) -> list[Any]:
        """What processors returned in the chunks that earlier executions finished."""
        return []

    def begin_at(self, cursor: Any) -> None:
        """Nothing is done yet, and the data begin at this cursor. Data that are read again from there are the same."""
        self.cursor = cursor

    def expect(self, items: int | None) -> None:
        """How many items there are in all; None: that is not known exactly."""
        if self._outermost:
            self._counts.expect(items)

    def begin_chunk(self) -> None:
        place = _place(self.items_done + 1, self.items_done + self.chunk_size)
        self._began, self._before = _clock(), self._checkpoints.begin_chunk(place)

    def finish_chunk(self, items: int, cursor: Any, full_bytes: int, results: list[Any]) -> None:
        """The chunk is finished and its items are released. ``full_bytes``: usage before that.

        Raises:
            MemoryLimitExceeded: usage is above the ceiling now; or it was within the chunk, which is not finished
                then, and somebody swallowed that.
            PlannedStop: the worker wants to stop, and the job goes on elsewhere.
            SourceError, RunTakenOver: the chunk could not be saved.
        """
        self._checkpoints.raise_swallowed()
        seconds = _clock() - self._began
        first, self.items_done, self.cursor = self.items_done + 1, self.items_done + items, cursor
        self._save_soon(results)
        self._counts.add(items)
        if self._outermost:
            self._counts.add_own(items, self.items_done)
        after = self._checkpoints.end_chunk(_place(first, self.items_done), items, self.items_done)
        if after is None:
            return
        self._growth = self._growth.after(self.items_done, after)
        peak = max(full_bytes, self._counts.peak_bytes())
        ceiling = self._checkpoints.ceiling
        seen = policy.Observation(items, self._before, peak, after, seconds, ceiling.bytes, ceiling.warning_fraction)
        _, self._size = policy.next_size(self._size, seen)

    def note_growth(self, *, finished: bool) -> None:
        """Keep how much memory stays of each item. Once all are ``finished``, garbage is collected first."""
        if not self._outermost:
            return
        growth = self._growth.per_item()
        if growth is not None and finished:
            collect_and_trim()
            growth = self._growth.confirmed(self._checkpoints.read_bytes())
        self._counts.note_growth(growth)

    def _save_soon(self, results: list[Any]) -> None:
        """Save the finished chunk, now or later; here nothing is saved."""

    def save(self) -> None:
        """Save what is not saved yet."""


class SavedChunkProgress(ChunkProgress):
    """An outermost call whose finished chunks are saved, so that a later execution goes on after them."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        counts: ChunkCounts,
        size: policy.SizeState,
        *,
        number: int,
        record: RunRecord,
        writer: RunWriter,
        horse: Horse,
    ) -> None:
        super().__init__(checkpoints, counts, size, outermost=True)
        self._number, self._writer, self._horse = number, writer, horse
        self.cursor, self.items_done = record.cursors.get(number), record.items.get(number, 0)
        self.to_be_cut = record.cut_stage == number
        self._resume_size(record)
        self._unsaved: list[Any] = []
        self._unsaved_chunks = 0
        self._saved_at = float("-inf")
        writer.begin_stage(number, self.chunk_size)

    def _resume_size(self, record: RunRecord) -> None:
        known, size = record.chunk_states.get(self._number), record.chunk_sizes.get(self._number)
        if known is not None:
            before = replace(codec.from_json(policy.SizeState, known), adaptive=self._size.adaptive)
            if size is not None and size < before.size:  # it was halved when the execution ended early
                _, before = policy.after_breach(before, before.size)
            _, self._size = policy.resumed(before, self._checkpoints.room_bytes())
        if size is not None:
            self._size = replace(self._size, size=min(size, self._size.size))

    def begin_at(self, cursor: Any) -> None:
        super().begin_at(cursor)
        self._write(0, b"")

    def saved_results(self) -> list[Any]:
        return [] if self.cursor is None else results_of(self._horse, self._number)

    def finish_chunk(self, items: int, cursor: Any, full_bytes: int, results: list[Any]) -> None:
        super().finish_chunk(items, cursor, full_bytes, results)
        if self._horse.page.stop_asked:
            self.save()
            raise PlannedStop

    def _save_soon(self, results: list[Any]) -> None:
        self._unsaved.extend(results)
        self._unsaved_chunks += 1
        if _clock() - self._saved_at >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        if self._unsaved_chunks:
            self._write(self._unsaved_chunks, self._serialised(self._unsaved))
            self._unsaved, self._unsaved_chunks, self._saved_at = [], 0, _clock()

    def _write(self, chunks: int, results: bytes) -> None:
        self._writer.save_chunks(
            self._number, self.cursor, self.items_done, chunks, results, self.chunk_size, codec.to_json(self._size)
        )

    def _serialised(self, results: list[Any]) -> bytes:
        if not results:
            return b""
        try:
            return self._horse.serializer.dumps(results)
        except Exception as error:  # pickle raises many kinds
            raise SourceError(
                f"what the processor returned cannot be saved for a resume ({error}): return values that "
                f"{self._horse.serializer.__name__} takes, or pass collect=False"
            ) from error


def results_of(horse: Horse, number: int) -> list[Any]:
    """What processors returned in the finished chunks of the n-th call."""
    parts = horse.ask("read finished chunks", execution_reader.results, number)
    return [result for part in parts for result in horse.serializer.loads(part)]


def _place(first: int, last: int) -> str:
    return f"item {first}" if first == last else f"items {first}-{last}"
