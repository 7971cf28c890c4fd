"""One call of ``process_in_chunks`` or ``chunks``: where it is, how large its next chunk is, what is saved of it.

A chunk that is finished is saved soon, not at once where chunks are short: what a killed horse may have to do again is
the chunk in flight and what was finished within the last `SAVE_SECONDS`. Whatever ends a stage otherwise saves first.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rqmem.errors import PlannedStop, SourceError
from rqmem.measure.trim import collect_and_trim
from rqmem.policy import chunk_size as policy
from rqmem.policy.chunk_size import Observation
from rqmem.policy.item_growth import Growth
from rqmem.store import codec, execution_reader
from rqmem.store.retrying import until_redis_answers

if TYPE_CHECKING:
    from rqmem.job.run import MemoryContext
    from rqmem.store.execution_records import RunRecord
    from rqmem.store.executions import RunWriter
    from rqmem.worker.horse.user_code import Horse

SAVE_SECONDS = 0.02
_clock = time.monotonic


class Stage:
    """A stage of a run.

    Args:
        context: of the run; reads memory.
        declared: items per chunk at the start.
        adaptive: whether the size follows what chunks are seen to cost.
        prior_kb_per_item: what an item of this job type cost before, in KB; None: nobody knows.

    Attributes:
        cursor, items_done: where it is, over all executions.
        growth: what stays of its items, in this execution.
        to_be_cut: an earlier execution breached in it, and what is left is to become child jobs.
    """

    def __init__(
        self, context: MemoryContext, declared: int, *, adaptive: bool, prior_kb_per_item: float | None = None
    ) -> None:
        self._context = context
        _, self._size = policy.start(declared, prior_kb_per_item, context.room_bytes(), adaptive)
        self.cursor: Any = None
        self.items_done = 0
        self.to_be_cut = False
        self._began = _clock()
        self._before = context.read_bytes()
        self.growth = Growth()

    @property
    def chunk_size(self) -> int:
        """Items of the next chunk."""
        return self._size.size

    def saved_results(self) -> list[Any]:
        """What processors returned in chunks that earlier executions finished."""
        return []

    def begin_at(self, cursor: Any) -> None:
        """Nothing is done yet, and this is where the data begin: what is read again from there is the same."""
        self.cursor = cursor

    def begin_chunk(self) -> None:
        """The next chunk begins now."""
        self._context.at(f"items {self.items_done + 1}-{self.items_done + self.chunk_size}")
        self._began, self._before = _clock(), self._context.read_bytes()

    def finish_chunk(self, items: int, cursor: Any, held_bytes: int, results: list[Any]) -> None:
        """So many items are done, and released; ``held_bytes``: usage while they were held.

        Raises:
            MemoryLimitExceeded: usage is above the ceiling now.
            PlannedStop: the worker wants to stop, and the job goes on elsewhere.
            SourceError, RunTakenOver: the chunk could not be saved.
        """
        seconds = _clock() - self._began
        first, self.items_done, self.cursor = self.items_done + 1, self.items_done + items, cursor
        self._save_soon(results)
        after = self._context.chunk_finished(f"items {first}-{self.items_done}", items, self.items_done)
        if after is None:  # nobody reads memory now
            return
        self.growth = self.growth.after(self.items_done, after)
        peak = max(held_bytes, self._context.chunk_peak_bytes())
        limit, warning = self._context.limit_bytes, self._context.warning_fraction
        _, self._size = policy.next_size(
            self._size, Observation(items, self._before, peak, after, seconds, limit, warning)
        )

    def confirmed_growth(self) -> float | None:
        """Bytes that stay of each item, now that all are done: garbage may look like it, so it is collected."""
        if self.growth.per_item() is None:
            return None
        collect_and_trim()
        return self.growth.confirmed(self._context.read_bytes())

    def _save_soon(self, results: list[Any]) -> None:
        """Where nothing is saved, there is nothing to do."""

    def save(self) -> None:
        """Save what is not saved yet."""


class SavedStage(Stage):
    """A stage whose finished chunks are saved, so that a later execution goes on after them.

    Args:
        number: the n-th stage of the run.
        run: what earlier executions left.
    """

    def __init__(
        self,
        context: MemoryContext,
        declared: int,
        *,
        adaptive: bool,
        prior_kb_per_item: float | None = None,
        number: int,
        run: RunRecord,
        writer: RunWriter,
        horse: Horse,
    ) -> None:
        super().__init__(context, declared, adaptive=adaptive, prior_kb_per_item=prior_kb_per_item)
        self._number = number
        self._writer = writer
        self._horse = horse
        self.cursor, self.items_done = run.cursors.get(number), run.items.get(number, 0)
        self.to_be_cut = run.cut_stage == number
        self._resume_size(run)
        self._unsaved: list[Any] = []
        self._unsaved_chunks = 0
        self._saved_at = float("-inf")
        writer.begin_stage(number, self.chunk_size)

    def _resume_size(self, run: RunRecord) -> None:
        known, size = run.chunk_states.get(self._number), run.chunk_sizes.get(self._number)
        if known is not None:
            before = replace(codec.from_json(policy.State, known), adaptive=self._size.adaptive)
            if size is not None and size < before.size:  # halved when it ended early
                _, before = policy.after_breach(before, before.size)
            _, self._size = policy.resumed(before, self._context.room_bytes())
        if size is not None:
            self._size = replace(self._size, size=min(size, self._size.size))

    def begin_at(self, cursor: Any) -> None:
        super().begin_at(cursor)
        self._writer.save_chunks(self._number, cursor, 0, 0, b"", self.chunk_size, codec.to_json(self._size))

    def saved_results(self) -> list[Any]:
        """What processors returned in chunks that earlier executions finished."""
        return [] if self.cursor is None else results_of(self._horse, self._number)

    def finish_chunk(self, items: int, cursor: Any, held_bytes: int, results: list[Any]) -> None:
        super().finish_chunk(items, cursor, held_bytes, results)
        if self._horse.page.stop_asked:
            self.save()
            raise PlannedStop

    def _save_soon(self, results: list[Any]) -> None:
        self._unsaved.extend(results)
        self._unsaved_chunks += 1
        if _clock() - self._saved_at >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        if self._unsaved_chunks == 0:
            return
        self._writer.save_chunks(
            self._number, self.cursor, self.items_done, self._unsaved_chunks, self._serialised(self._unsaved),
            self.chunk_size, codec.to_json(self._size),
        )  # fmt: skip
        self._unsaved, self._unsaved_chunks, self._saved_at = [], 0, _clock()

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
    """What processors returned in the finished chunks of a stage."""
    parts = until_redis_answers(
        lambda: execution_reader.results(horse.connection, horse.job_id, number),
        f"read what is done of job {horse.job_id}",
    )
    return [result for part in parts for result in horse.serializer.loads(part)]
