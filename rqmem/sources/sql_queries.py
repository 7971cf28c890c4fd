"""What `SqlRows` asks of a database, by whichever road: `sql_selectable` (SQLAlchemy) or `sql_dbapi` (a driver)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from rqmem.sources.contract import Count

Key = tuple[Any, ...]


@dataclass(frozen=True)
class KeyRange:
    """Rows with keys after the one and up to the other, which is among them; None: no bound."""

    after: Key | None = None
    upto: Key | None = None


class Queries(Protocol):
    """The queries of a source, each on a connection of its own that is given back at once."""

    @property
    def key(self) -> tuple[str, ...]:
        """The names of the key's columns."""
        ...

    def page(self, keys: KeyRange, limit: int) -> list[tuple[Any, Key]]:
        """The first rows of a range with their keys, in order."""
        ...

    def count(self, keys: KeyRange, how: Literal["exact", "estimate"]) -> Count: ...

    def nth_key(self, keys: KeyRange, number: int) -> Key | None:
        """The key of the number-th row of a range, or of the last where there are fewer."""
        ...

    def last_key(self, keys: KeyRange) -> Key | None: ...

    def null_in_key(self) -> str | None:
        """A column of the key in which some row has NULL."""
        ...
