"""What a source is: the contract that rqmem's own sources follow, and that yours may follow as far as you need.

Only `Source.items_after` is required: with it, data can be processed in chunks and resumed. The rest, in `Cuttable`, is
for sources that are spread over child jobs. A missing method is an error that names the method to write. Derive from
`Cuttable`, or write the same methods without it::

    class Orders(Cuttable[Order]):
        def __init__(self, shop, first, last): ...

        def items_after(self, cursor):
            for number in range(self.first if cursor is None else cursor + 1, self.last + 1):
                yield fetch(self.shop, number), number

        def count(self):
            return Count.exact(self.last - self.first + 1)

        def slices(self, items_per_slice=None, *, parts=None):
            for begin, end in even_bounds(self.last - self.first + 1, items_per_slice, parts):
                yield Orders(self.shop, self.first + begin, self.first + end - 1)

        def rest(self, cursor):
            return Orders(self.shop, cursor + 1, self.last)

        def describe(self):
            return {"shop": self.shop, "first": self.first, "last": self.last}

A source makes these promises; ``tests/sources/test_contract.py`` tests them for each of rqmem's:

- Items come in one fixed order. Going on after any cursor, in another process on another machine, gives exactly the
  items that were not yet given.
- A cursor is JSON, survives it, and belongs to the source that gave it: a slice's to that slice.
- The slices of a source, in order, hold its items, each once and in order. A slice is a source, so it can be cut again.
- Neither counting nor cutting nor reading holds more of the data in memory than a page or a block of it.
- ``open_slice`` of a slice's description gives the slice again, or `SourceError` where the data are not what was cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from rqmem.errors import ConfigError, SourceError
from rqmem.values import dataclass

T_co = TypeVar("T_co", covariant=True)
Cursor = Any
"""Any JSON value; None is the beginning."""


@dataclass(frozen=True)
class Count:
    """How many items there are, and how well that is known. ``items`` is None where it is unknown."""

    items: int | None
    how: Literal["exact", "estimated", "unknown"]

    @classmethod
    def exact(cls, items: int) -> Count:
        return cls(items, "exact")

    @classmethod
    def estimated(cls, items: int) -> Count:
        return cls(items, "estimated")

    @classmethod
    def unknown(cls) -> Count:
        return cls(None, "unknown")

    def __add__(self, other: Count) -> Count:
        """The count of both together: as well known as the worse of the two."""
        if self.items is None or other.items is None:
            return Count.unknown()
        exact = self.how == other.how == "exact"
        return Count(self.items + other.items, "exact" if exact else "estimated")

    def __str__(self) -> str:
        if self.items is None:
            return "unknown"
        return f"{self.items:,}" if self.how == "exact" else f"about {self.items:,}"


@runtime_checkable
class Source(Protocol[T_co]):
    """What ``process_in_chunks`` asks of its data."""

    def items_after(self, cursor: Cursor) -> Iterator[tuple[T_co, Cursor]]:
        """Each item that comes after ``cursor`` with the cursor after it; all items for None."""
        ...


class Cuttable(Source[T_co]):
    """A source that can be counted, cut into slices, and opened elsewhere. Each method is optional.

    It can be iterated, as often as its items can be read. It has a length where `count` is exact.

    Attributes:
        counts_at_once: `count` is exact and reads none of the data, so a running job can say how much there is in all.
    """

    counts_at_once = False

    def __iter__(self) -> Iterator[T_co]:
        return (item for item, _ in self.items_after(None))

    def __len__(self) -> int:
        try:
            count = self.count()
        except SourceError as error:
            raise TypeError(f"{type(self).__qualname__} has no length: {error}; iterate over it") from None
        if count.items is None or count.how != "exact":
            raise TypeError(
                f"{type(self).__qualname__} has no exact length (its count is {count}): iterate, or use its count()"
            )
        return count.items

    def __bool__(self) -> bool:
        """Whether there is an item."""
        return next(iter(self.items_after(None)), None) is not None

    def first_cursor(self) -> Cursor:
        """The cursor before the first item, saved before anything is done.

        It is for a source that would be another one if it were read again: the cursor says what it is now. None: there
        is nothing to fix.
        """
        return None

    def cursor_to_save(self, cursor: Cursor, item: Any) -> Cursor:
        """A cursor that ``items_after`` takes, with what is needed there to notice that the data are others by then.

        Asked once a chunk. ``item``: the one that came with ``cursor``.
        """
        return cursor

    def count(self) -> Count:
        """How many items there are, without reading them all."""
        raise lacks(self, "count")

    def slices(self, items_per_slice: int | None = None, *, parts: int | None = None) -> Iterator[Cuttable[T_co]]:
        """The source as slices, in order, made one by one as they are asked for.

        Args:
            items_per_slice: items of each slice (about that number, for sources that only estimate their count).
            parts: instead, the largest number of slices, which have about the same size.

        Raises:
            ConfigError: neither or both are given, or one is no whole number of at least 1.
        """
        raise lacks(self, "slices")

    def rest(self, cursor: Cursor) -> Cuttable[T_co]:
        """What is left after ``cursor``, as a slice. Its ``slices(parts=2)`` cut it in two."""
        raise lacks(self, "rest")

    def beyond(self, piece: Any) -> Cuttable[T_co]:
        """What comes after ``piece``, one of the slices of this source (opened again, perhaps).

        Cutting that was cut off goes on with it, also where the data have changed since.
        """
        raise lacks(self, "beyond")

    def begins_at(self) -> str:
        """Where in the whole its first item is, for a person: ``item 14``, ``byte 1,204 of /data/orders.csv``.

        Empty if that is not known.
        """
        return ""

    def describe(self) -> dict[str, Any]:
        """This slice as JSON, for `rqmem.sources.open_slice`.

        A class of yours returns the keyword arguments that make the slice again; or anything, if it has a class method
        ``from_description``. The class is found by its module and name.
        """
        raise lacks(self, "describe")


def lacks(source: object, method: str) -> SourceError:
    name = type(source).__qualname__
    return SourceError(f"{name} has no {method}(): write {name}.{method} as rqmem.sources.Cuttable.{method} says")


def check_cut(items_per_slice: int | None, parts: int | None) -> None:
    """Raise `ConfigError` unless exactly one of them is given, and is a whole number of at least 1."""
    if (items_per_slice is None) == (parts is None):
        raise ConfigError("slices: give either items_per_slice or parts")
    name, value = ("parts", parts) if items_per_slice is None else ("items_per_slice", items_per_slice)
    check_whole(value, f"slices: {name}")


def check_whole(value: Any, whose: str) -> None:
    """Raise `ConfigError` unless it is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{whose} is {value!r:.100}: give a whole number of at least 1")


def even_bounds(length: int, items_per_slice: int | None, parts: int | None) -> Iterator[tuple[int, int]]:
    """Begin and end of each slice of ``length`` items that can be counted off. Raises as `Cuttable.slices`."""
    check_cut(items_per_slice, parts)
    if items_per_slice is not None:
        return ((begin, min(begin + items_per_slice, length)) for begin in range(0, length, items_per_slice))
    count = min(parts or 1, length)
    return ((number * length // count, (number + 1) * length // count) for number in range(count))


def parts_for(count: int, items_per_slice: int) -> int:
    """Into how many parts to cut for about that number of items each."""
    return max(1, math.ceil(count / items_per_slice))
