"""What `SqlRows` asks of a database, through `sql_selectable` (SQLAlchemy) or `sql_dbapi` (a driver)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol

from rqmem.errors import ConfigError, SourceError
from rqmem.sources.contract import Count
from rqmem.values import dataclass

Key = tuple[Any, ...]


@dataclass(frozen=True)
class KeyRange:
    """Rows after one key and up to another, which is among them; None: no bound. ``including``: ``after`` is, too."""

    after: Key | None = None
    upto: Key | None = None
    including: bool = False


@dataclass(frozen=True)
class KeyOrder:
    """The columns of a key, and which of them are in descending order."""

    names: tuple[str, ...]
    descending: tuple[bool, ...]

    @classmethod
    def of(cls, key: Any) -> KeyOrder:
        """``"name"``, or a tuple of names; a name with a ``-`` in front is descending. Raises `ConfigError`."""
        given = (key,) if isinstance(key, str) else key
        if not (isinstance(given, tuple | list) and given and all(type(n) is str and n.strip("-") for n in given)):
            raise ConfigError(f"SqlRows: key is {key!r}: give the name of a column, or a tuple of names")
        return cls(tuple(n.removeprefix("-") for n in given), tuple(n.startswith("-") for n in given))

    def __str__(self) -> str:
        return ", ".join(f"{'-' if down else ''}{name}" for name, down in zip(self.names, self.descending, strict=True))


class Queries(Protocol):
    """The queries of a source, each on a connection of its own that is given back at once."""

    @property
    def key(self) -> KeyOrder: ...

    @property
    def window(self) -> bool:
        """Whether only the first rows in some order are wanted. They must be fixed before the first is read."""
        ...

    def page(self, keys: KeyRange, limit: int) -> list[tuple[Any, Key]]:
        """The first rows of a range with their keys, in order."""
        ...

    def rows_of(self, keys: Sequence[Key]) -> list[tuple[Any, Key]]:
        """Those of the rows with these keys that there (still) are, in no order."""
        ...

    def count(self, keys: KeyRange, how: Literal["exact", "estimate"]) -> Count: ...

    def nth_key(self, keys: KeyRange, number: int) -> Key | None:
        """The key of the number-th row of a range, or of the last where there are fewer."""
        ...

    def last_key(self, keys: KeyRange) -> Key | None: ...

    def null_in_key(self) -> str | None:
        """A column of the key in which some row has NULL."""
        ...

    def unreadable_key(self) -> str | None:
        """A value in the key, in words, that no Python value is."""
        ...

    def key_twice(self, keys: KeyRange) -> Key | None:
        """A key of the range that several rows have, as the database compares."""
        ...

    def found(self, keys: Sequence[Key]) -> int:
        """How many rows the database finds by these keys."""
        ...

    def window_keys(self, most: int) -> list[Key]:
        """The first keys of the window, in its order."""
        ...

    def window_range(self) -> KeyRange | None:
        """The window by its first and last key; None: it is in another order than the key's."""
        ...

    def window_count(self) -> Count: ...

    def to_json(self, key: Key) -> list[Any]: ...

    def from_json(self, values: Sequence[Any]) -> Key: ...


def refusal(error: BaseException) -> str | None:
    """What a database says that cannot do what was asked, in one line; None: it is another error.

    Drivers have no common classes, only common names of them (PEP 249).
    """
    names = {each.__name__ for each in type(error).__mro__}
    if not names & {"ProgrammingError", "NotSupportedError", "DataError", "OverflowError"}:
        return None
    text = str(getattr(error, "orig", None) or error).strip()
    return re.split(r"\s*[\r\n]", text, maxsplit=1)[0][:200]


def refused(what: str | None, computed: Iterable[str], key: KeyOrder) -> None:
    """Raise `SourceError` where rows depend on others (``what``), or the key is computed from other rows."""
    if what is not None:
        raise SourceError(
            f"SqlRows: the query has {what}, so each time it is run it may be another set, and rows would be lost or "
            "done twice: give the query without it and at_most=N for its first N rows by key, or stable=True where "
            "nothing that it selects from changes until the job is done"
        )
    found = next((name for name in key.names if name.casefold() in {each.casefold() for each in computed}), None)
    if found is not None:
        raise SourceError(
            f"SqlRows: {found!r} is computed from other rows, so it may be another one each time the query is run: "
            "name columns as the key that stay, or give stable=True where nothing that it selects from changes"
        )
