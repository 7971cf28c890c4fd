"""Collections in memory as sources: `Sequence` for what has positions, `Positional` for what can only be iterated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from collections.abc import Sequence as AnySequence
from copy import copy
from itertools import islice
from typing import Any, TypeVar

from rqmem.errors import SourceChanged, SourceError
from rqmem.sources import typed_json
from rqmem.sources.contract import Count, Cursor, Cuttable, even_bounds
from rqmem.sources.naming import kind_of
from rqmem.sources.position import Position, mark_of, other_items

T_co = TypeVar("T_co", covariant=True)


class Sequence(Cuttable[T_co]):
    """A list, a tuple, or anything with a length and positions. Its cursor is the number of items read, from the first.

    What is saved also says which item was the last, so that a list that was made again and is another one is noticed.

    The description of a slice carries its items, as JSON (`rqmem.sources.typed_json` says which survive): fit for a
    list of ids; large data belong into a file or a table.
    """

    counts_at_once = True

    def __init__(self, items: AnySequence[T_co]) -> None:
        self._items = items
        self._begin, self._end = 0, len(items)
        self._before = 0  # items of the whole that come before items[0]

    def items_after(self, cursor: Cursor) -> Iterator[tuple[T_co, Cursor]]:
        begin = self._position(cursor)
        first = self._before + begin + 1
        items = map(self._items.__getitem__, range(begin, self._end))
        return zip(items, range(first, first + self._end - begin), strict=True)

    def cursor_to_save(self, cursor: Cursor, item: Any) -> Cursor:
        return Position.of(cursor).saved(item, self._before + len(self._items))

    def count(self) -> Count:
        return Count.exact(self._end - self._begin)

    def slices(self, items_per_slice: int | None = None, *, parts: int | None = None) -> Iterator[Sequence[T_co]]:
        bounds = even_bounds(self._end - self._begin, items_per_slice, parts)
        return (self._between(self._begin + begin, self._begin + end) for begin, end in bounds)

    def rest(self, cursor: Cursor) -> Sequence[T_co]:
        return self._between(self._position(cursor), self._end)

    def beyond(self, piece: Sequence[Any]) -> Sequence[T_co]:
        at = self._position(piece._before + piece._end)
        if at > self._begin and piece._end > piece._begin:
            ours, theirs = mark_of(self._items[at - 1]), mark_of(piece._items[piece._end - 1])
            if None not in (ours, theirs) and ours != theirs:
                raise other_items(self._before + at)
        return self._between(at, self._end)

    def begins_at(self) -> str:
        return f"item {self._before + self._begin + 1:,}"

    def describe(self) -> dict[str, Any]:
        items = []
        for position in range(self._begin, self._end):
            try:
                items.append(typed_json.encode(self._items[position]))
            except SourceError as error:
                raise SourceError(f"item {self._before + position + 1}: {error}") from None
        return {"kind": kind_of(type(self)), "first": self._before + self._begin, "items": items}

    @classmethod
    def from_description(cls, fields: dict[str, Any]) -> Sequence[Any]:
        opened = cls(typed_json.decode(fields["items"]))
        opened._before = int(fields["first"])
        return opened

    def _between(self, begin: int, end: int) -> Sequence[T_co]:
        piece = copy(self)
        piece._begin, piece._end = begin, end
        return piece

    def _position(self, cursor: Cursor) -> int:
        if cursor is None:
            return self._begin
        begin, end = self._before + self._begin, self._before + self._end
        position = Position.of(cursor)
        if not begin <= position.done <= end:
            raise SourceChanged(f"cursor {cursor!r:.100} is none of these items: theirs are {begin} to {end}")
        at = position.done - self._before
        if at > self._begin:
            position.check(self._items[at - 1], self._before + len(self._items))
        return at


class Positional(Cuttable[T_co]):
    """What can be iterated again and no more: a dict. Its cursor is the number of items read.

    To go on it reads what is done once more and drops it. It cannot be cut.
    """

    def __init__(self, items: Iterable[T_co]) -> None:
        self._items = items

    def items_after(self, cursor: Cursor) -> Iterator[tuple[T_co, Cursor]]:
        position = Position.of(0 if cursor is None else cursor)
        items = enumerate(self._items, start=1)
        if position.done:
            found = next(islice(items, position.done - 1, None), None)
            if found is None:
                raise other_items(position.done)
            position.check(found[1], self.count().items)
        return ((item, done) for done, item in items)

    def cursor_to_save(self, cursor: Cursor, item: Any) -> Cursor:
        return Position.of(cursor).saved(item, self.count().items)

    def count(self) -> Count:
        return Count.exact(len(self._items)) if isinstance(self._items, Sized) else Count.unknown()

    def slices(self, items_per_slice: int | None = None, *, parts: int | None = None) -> Iterator[Cuttable[T_co]]:
        raise self._cannot("be cut")

    def rest(self, cursor: Cursor) -> Cuttable[T_co]:
        raise self._cannot("be cut")

    def beyond(self, piece: Any) -> Cuttable[T_co]:
        raise self._cannot("be cut")

    def describe(self) -> dict[str, Any]:
        raise self._cannot("be sent to a child job")

    def _cannot(self, what: str) -> SourceError:
        return SourceError(
            f"a {type(self._items).__name__} cannot {what}: pass a list, a range or a source (rqmem.sources)"
        )
