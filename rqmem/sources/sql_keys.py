"""Checks, while rows are read by key, that the key is one: unique, never NULL, with JSON, and found again.

What is equal the database decides: it may take "Anna" and "anna" for the same, or 1 and a rounded 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from itertools import pairwise
from typing import Any, TypeVar
from uuid import UUID

from rqmem.errors import SourceError
from rqmem.sources.sql_queries import Key, KeyRange, Queries, refusal
from rqmem.values import dataclass

T = TypeVar("T")

KEYS_PER_QUERY = 100
_EXACT = (int, UUID)  # types that a database and Python take for equal in the same cases


@dataclass(frozen=True)
class KeyList:
    """A window by its keys, as JSON. ``first``: the number of the first of them in the whole window."""

    keys: list[Any]
    first: int = 0

    def between(self, begin: int, end: int) -> KeyList:
        return KeyList(self.keys[begin:end], self.first + begin)

    def batches(self, size: int = KEYS_PER_QUERY) -> Iterator[KeyList]:
        return (self.between(begin, begin + size) for begin in range(0, len(self.keys), size))


class CheckedQueries:
    """Queries whose keys are checked. Errors are `SourceError`."""

    def __init__(self, queries: Queries) -> None:
        self.unchecked = queries

    def page(self, keys: KeyRange, limit: int, *, first: bool) -> list[tuple[Any, Key]]:
        """The first rows of a range with their keys, in order. ``first``: nothing has been read before."""
        rows = self.asked(self.unchecked.page, keys, limit, first=first)
        for _, key in rows:
            self.check_complete(key)
        if all(type(value) in _EXACT for _, key in rows for value in key):
            for (_, before), (_, key) in pairwise(rows):
                if before == key:
                    raise self._twice(key)
        else:
            self._check_inexact(rows, keys)
        if rows and keys.after is not None and not keys.including and self._same(rows[0][1], keys.after):
            raise self._rounded(rows[0][1])
        return rows

    def _check_inexact(self, rows: list[tuple[Any, Key]], keys: KeyRange) -> None:
        last = rows[-1][1]
        for _, key in (rows[0], rows[-1]):
            self.to_json(key)
        twice = self.unchecked.key_twice(KeyRange(rows[0][1], last, including=True))
        if twice is not None:
            raise self._twice(twice)
        # One key is enough, but each float may be rounded in its own way.
        asked = [key for _, key in rows if any(type(value) is float for value in key)] or [last]
        for at in range(0, len(asked), KEYS_PER_QUERY):
            batch = asked[at : at + KEYS_PER_QUERY]
            if self.unchecked.found(batch) < len(batch):
                self._refuse_rounded(batch, keys, len(rows))

    def _refuse_rounded(self, asked: list[Key], keys: KeyRange, count: int) -> None:
        """Raise `SourceError` unless the keys that the database does not find are gone by now."""
        there = [key for _, key in self.unchecked.page(keys, count)]
        for key in asked:
            if any(self._same(key, each) for each in there) and not self.unchecked.found([key]):
                raise self._rounded(key)

    def rows_of(self, listed: KeyList) -> dict[str, tuple[Any]]:
        """The rows with these keys that there still are, by `text_of` their key."""
        rows: dict[str, tuple[Any]] = {}
        wanted = {text_of(key) for key in listed.keys}
        for item, key in self.unchecked.rows_of([self.unchecked.from_json(key) for key in listed.keys]):
            text = text_of(self.to_json(key))
            if text in rows or text not in wanted:
                raise self._twice(key)
            rows[text] = (item,)
        return rows

    def asked(self, query: Callable[..., T], keys: KeyRange, *others: Any, first: bool = True) -> T:
        """Ask the database. Raises `SourceError` for what it, or its driver, cannot do with such a key."""
        try:
            return query(keys, *others)
        except Exception as error:
            said = refusal(error)
            if said is None or not (first or "DataError" in {each.__name__ for each in type(error).__mro__}):
                raise
            after = "" if keys.after is None else f" after {keys.after!r:.200}"
            raise SourceError(f"rows by key ({self.unchecked.key}) cannot be read{after}: {said}") from error

    def to_json(self, key: Key) -> list[Any]:
        try:
            return self.unchecked.to_json(key)
        except SourceError as error:
            raise SourceError(f"key ({self.unchecked.key}): {error}") from None

    def check_complete(self, key: Key) -> None:
        if None in key:
            raise _null(self.unchecked.key.names[key.index(None)])

    def check_all(self) -> None:
        """Refuse NULL in any row, which is neither before nor after a key, and values that Python does not have."""
        name = self.unchecked.null_in_key()
        if name is not None:
            raise _null(name)
        if (found := self.unchecked.unreadable_key()) is not None:
            raise SourceError(
                f"key ({self.unchecked.key}) is {found} in some rows, which no Python value is: name another key, or "
                "select the others"
            )

    def _same(self, one: Key, other: Key) -> bool:
        """Whether both are written alike: to Python a moment and the one an hour later may be equal, in autumn."""
        return text_of(self.to_json(one)) == text_of(self.to_json(other))

    def _rounded(self, key: Key) -> SourceError:
        return SourceError(
            f"key ({self.unchecked.key}): the database does not find {key!r:.200}, which it gave, when it is asked for "
            "it: it is rounded on the way; cast it in the query (a real to double precision), or name another"
        )

    def _twice(self, key: Key) -> SourceError:
        return SourceError(
            f"key ({self.unchecked.key}) is not unique: {key!r:.200} comes twice, as the database compares; name "
            "columns that together are, or rows would be lost between pages"
        )


def _null(name: str) -> SourceError:
    return SourceError(f"key column {name!r} is NULL in some rows: name a key that never is, or select the others")


def text_of(key: list[Any]) -> str:
    """JSON by which keys are compared: a moment is the same in every time zone."""
    return json.dumps([_utc(each) for each in key])


def _utc(value: Any) -> Any:
    if isinstance(value, dict) and value.get("$") == "datetime":
        moment = datetime.fromisoformat(value["v"])
        return value if moment.tzinfo is None else moment.astimezone(timezone.utc).isoformat()
    return value
