"""Several sources one after the other as one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from typing import Any, TypeVar

from rqmem.errors import SourceError
from rqmem.sources.contract import Count, Cursor, Cuttable, Source, check_cut
from rqmem.sources.naming import describe_slice, kind_of
from rqmem.sources.registry import as_source, open_slice

T_co = TypeVar("T_co", covariant=True)


class Concat(Cuttable[T_co]):
    """All items of the first source, then those of the next.

    The cursor is ``[which source, its cursor]``. If later sources have a first cursor, a dict of those by number comes
    third.

    A slice of ``items_per_slice`` never spans two sources. ``parts`` are shared among the sources by their counts, or
    evenly if one of those is unknown.
    """

    def __init__(self, *sources: Source[T_co] | Iterable[T_co]) -> None:
        self._sources: tuple[Cuttable[T_co], ...] = tuple(as_source(each, must_resume=True) for each in sources)
        self._first = 0  # the number of sources[0] in the whole

    def first_cursor(self) -> Cursor:
        firsts = {str(self._first + index): each.first_cursor() for index, each in enumerate(self._sources)}
        firsts = {number: first for number, first in firsts.items() if first is not None}
        return [self._first, firsts.get(str(self._first)), firsts] if firsts else None

    def items_after(self, cursor: Cursor) -> Iterator[tuple[T_co, Cursor]]:
        return self._items(*self._place(self.first_cursor() if cursor is None else cursor))

    def _items(self, index: int, inner: Cursor, firsts: dict[str, Cursor]) -> Iterator[tuple[T_co, Cursor]]:
        for number, source in enumerate(self._sources[index:], start=self._first + index):
            later = {each: first for each, first in firsts.items() if int(each) > number}
            for item, after in source.items_after(inner):
                yield item, [number, after, later] if later else [number, after]
            inner = firsts.get(str(number + 1))

    def cursor_to_save(self, cursor: Cursor, item: Any) -> Cursor:
        number, inner, *later = cursor
        return [number, self._sources[number - self._first].cursor_to_save(inner, item), *later]

    def count(self) -> Count:
        return sum((each.count() for each in self._sources), start=Count.exact(0))

    def slices(self, items_per_slice: int | None = None, *, parts: int | None = None) -> Iterator[Concat[T_co]]:
        check_cut(items_per_slice, parts)
        if items_per_slice is not None:
            return self._each_cut([(index, items_per_slice, None) for index in range(len(self._sources))])
        return self._in_parts(parts or 1)

    def _in_parts(self, parts: int) -> Iterator[Concat[T_co]]:
        counts = [_count(each) for each in self._sources]
        filled = [index for index, count in enumerate(counts) if count != Count.exact(0)]
        known = all(counts[index].items is not None for index in filled)
        weights = [max(1, counts[index].items or 1) if known else 1 for index in filled]
        if parts < len(filled):
            return (
                self._part(self._sources[filled[begin] : filled[end - 1] + 1], filled[begin])
                for begin, end in grouped(weights, parts)
            )
        shares = shared_out(parts, weights)
        return self._each_cut([(index, None, share) for index, share in zip(filled, shares, strict=True)])

    def _each_cut(self, plan: list[tuple[int, int | None, int | None]]) -> Iterator[Concat[T_co]]:
        for index, items_per_slice, parts in plan:
            source = self._sources[index]
            pieces = iter([source]) if parts == 1 else source.slices(items_per_slice, parts=parts)
            for piece in pieces:
                yield self._part((piece,), index)

    def rest(self, cursor: Cursor) -> Concat[T_co]:
        if cursor is None:
            return self
        index, inner, firsts = self._place(cursor)
        later = (
            each if (first := firsts.get(str(number))) is None else each.rest(first)
            for number, each in enumerate(self._sources[index + 1 :], start=self._first + index + 1)
        )  # fmt: skip
        return self._part((self._sources[index].rest(inner), *later), index)

    def beyond(self, piece: Concat[Any]) -> Concat[T_co]:
        last = piece._first + len(piece._sources) - 1 - self._first
        if not piece._sources or not 0 <= last < len(self._sources):
            raise SourceError("beyond: that is no slice of these sources")
        return self._part((self._sources[last].beyond(piece._sources[-1]), *self._sources[last + 1 :]), last)

    def begins_at(self) -> str:
        for number, each in enumerate(self._sources, start=self._first + 1):
            if next(each.items_after(None), None) is not None:
                return ", ".join(filter(None, [each.begins_at(), f"source {number}"]))
        return ""

    def describe(self) -> dict[str, Any]:
        sources = [describe_slice(each) for each in self._sources]
        return {"kind": kind_of(type(self)), "first": self._first, "sources": sources}

    @classmethod
    def from_description(cls, fields: dict[str, Any]) -> Concat[Any]:
        opened = cls(*(open_slice(each) for each in fields["sources"]))
        opened._first = int(fields["first"])
        return opened

    def _part(self, sources: tuple[Cuttable[T_co], ...], index: int) -> Concat[T_co]:
        part = copy(self)
        part._sources, part._first = sources, self._first + index
        return part

    def _place(self, cursor: Cursor) -> tuple[int, Cursor, dict[str, Cursor]]:
        """Which source, its cursor, and the first cursors of later ones by number."""
        if cursor is None:
            return 0, None, {}
        if isinstance(cursor, list) and len(cursor) in (2, 3) and isinstance(cursor[0], int):
            index, firsts = cursor[0] - self._first, cursor[2] if len(cursor) == 3 else {}
            if 0 <= index < len(self._sources) and isinstance(firsts, dict) and all(map(str.isdecimal, firsts)):
                return index, cursor[1], firsts
        raise SourceError(f"cursor {cursor!r:.100} is none of these {len(self._sources)} sources")


def _count(source: Cuttable[Any]) -> Count:
    """How it counts, or unknown: a source that cannot count can still be given whole."""
    try:
        return source.count()
    except SourceError:
        return Count.unknown()


def shared_out(parts: int, weights: list[int]) -> list[int]:
    """``parts`` (at least as many as there are weights) shared by weight, at least one each."""
    spare, total = parts - len(weights), sum(weights)
    shares = [1 + spare * weight // total for weight in weights]
    by_need = sorted(range(len(weights)), key=lambda index: shares[index] / weights[index])
    for index in by_need[: parts - sum(shares)]:
        shares[index] += 1
    return shares


def grouped(weights: list[int], groups: int) -> Iterator[tuple[int, int]]:
    """Neighbours in groups (fewer than there are weights) of about the same weight: begin and end of each."""
    begin, left = 0, sum(weights)
    for group in range(groups, 0, -1):
        end, weight = begin + 1, weights[begin]
        while len(weights) - end >= group and (group == 1 or weight + weights[end] / 2 <= left / group):
            weight += weights[end]
            end += 1
        yield begin, end
        begin, left = end, left - weight
