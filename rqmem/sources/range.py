"""Whole numbers as a source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rqmem.errors import SourceChanged, SourceError
from rqmem.sources.contract import Count, Cursor, Cuttable, even_bounds
from rqmem.sources.naming import kind_of
from rqmem.sources.position import Position


class Range(Cuttable[int]):
    """``range(...)``, with its arguments. The cursor is how many numbers were given."""

    counts_at_once = True

    def __init__(self, *arguments: int) -> None:
        self._numbers = range(*arguments)
        self._before = 0  # numbers of the whole that come before these

    def items_after(self, cursor: Cursor) -> Iterator[tuple[int, Cursor]]:
        done = self._done(cursor)
        return zip(self._numbers[done:], range(done + 1, len(self._numbers) + 1), strict=True)

    def cursor_to_save(self, cursor: Cursor, item: Any) -> Cursor:
        return Position.of(cursor).saved(item, None)

    def count(self) -> Count:
        return Count.exact(len(self._numbers))

    def slices(self, items_per_slice: int | None = None, *, parts: int | None = None) -> Iterator[Range]:
        bounds = even_bounds(len(self._numbers), items_per_slice, parts)
        return (self._between(begin, end) for begin, end in bounds)

    def rest(self, cursor: Cursor) -> Range:
        return self._between(self._done(cursor), len(self._numbers))

    def beyond(self, piece: Range) -> Range:
        if not piece._numbers:
            return self
        if piece._numbers[-1] not in self._numbers:
            raise SourceError(f"beyond: {piece._numbers!r} is no slice of {self._numbers!r}")
        return self._between(self._numbers.index(piece._numbers[-1]) + 1, len(self._numbers))

    def begins_at(self) -> str:
        return f"item {self._before + 1:,}"

    def describe(self) -> dict[str, Any]:
        numbers = self._numbers
        bounds = {"start": numbers.start, "stop": numbers.stop, "step": numbers.step}
        return {"kind": kind_of(type(self)), **bounds, "before": self._before}

    @classmethod
    def from_description(cls, fields: dict[str, Any]) -> Range:
        opened = cls(fields["start"], fields["stop"], fields["step"])
        opened._before = int(fields.get("before", 0))
        return opened

    def _between(self, begin: int, end: int) -> Range:
        numbers = self._numbers[begin:end]
        piece = Range(numbers.start, numbers.stop, numbers.step)
        piece._before = self._before + begin
        return piece

    def _done(self, cursor: Cursor) -> int:
        if cursor is None:
            return 0
        position = Position.of(cursor)
        if position.done > len(self._numbers):
            raise SourceChanged(f"cursor {cursor!r:.100} is no number of items of {self._numbers!r}")
        if position.done:
            position.check(self._numbers[position.done - 1], None)
        return position.done
