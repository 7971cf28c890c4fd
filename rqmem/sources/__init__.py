"""Inputs that can be read from a cursor.

A source yields its items in a fixed order, each with the cursor *after* it: a JSON value from which a
later run, in another process on another machine, goes on with the next item. `Positional` makes one of
any list, range or other collection that yields the same items again; for a database or an API, write
your own: one method.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Protocol, TypeVar, runtime_checkable

from rqmem.errors import SourceError

T_co = TypeVar("T_co", covariant=True)
Cursor = Any
"""Any JSON value; None is the beginning."""


@runtime_checkable
class Source(Protocol[T_co]):
    """What ``process_in_chunks`` asks of its data."""

    def items_after(self, cursor: Cursor) -> Iterator[tuple[T_co, Cursor]]:
        """Each item that comes after ``cursor`` with the cursor after it; all items for None."""
        ...


class Positional(Source[T_co]):
    """A collection that can be iterated again; its cursor is the number of items read."""

    def __init__(self, items: Iterable[T_co]) -> None:
        self._items = items

    def items_after(self, cursor: Cursor) -> Iterator[tuple[T_co, Cursor]]:
        done = cursor or 0
        for position, item in enumerate(islice(self._items, done, None), start=done + 1):
            yield item, position


def as_source(data: Source[T_co] | Iterable[T_co], *, must_resume: bool) -> Source[T_co]:
    """``data`` as a source.

    Raises:
        SourceError: it is an iterator, which cannot be read again, and ``must_resume`` is set; or it
            cannot be iterated at all.
    """
    if isinstance(data, Source):
        return data
    if not isinstance(data, Iterable):
        raise SourceError(f"process_in_chunks needs something to iterate or a source, not {type(data).__name__}")
    if must_resume and isinstance(data, Iterator):
        raise SourceError(
            f"a {type(data).__name__} can be read only once, so a job with on_breach='resume' could not go "
            f"on after a breach: pass a list, a range or a source (rqmem.sources), or set on_breach='fail'"
        )
    return Positional(data)
