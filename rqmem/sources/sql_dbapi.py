"""The queries of `SqlRows` on a DB-API driver: a plain query inside of others that pick from it by key."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Literal

from rqmem.errors import ConfigError, SourceError
from rqmem.sources import sql_words, typed_json
from rqmem.sources.contract import Count
from rqmem.sources.sql_queries import Key, KeyOrder, KeyRange, refused
from rqmem.text import did_you_mean

_STYLES: dict[str, Callable[[int], str]] = {
    "qmark": lambda number: "?",
    "format": lambda number: "%s",
    "numeric": lambda number: f":{number}",
    "named": lambda number: f":rqmem_{number}",
    "pyformat": lambda number: f"%(rqmem_{number})s",
}
_BY_NAME = ("named", "pyformat")


class DbapiQueries:
    """See `rqmem.sources.sql_queries.Queries`."""

    def __init__(
        self,
        connect: Callable[[], Any],
        query: str,
        key: KeyOrder,
        parameters: Sequence[Any] | Mapping[str, Any],
        paramstyle: str,
        at_most: int | None,
        stable: bool,
    ) -> None:
        if paramstyle not in _STYLES:
            raise ConfigError(f"SqlRows: paramstyle is {paramstyle!r}: give one of {', '.join(_STYLES)}")
        if parameters and isinstance(parameters, Mapping) != (paramstyle in _BY_NAME):
            kind = "a dict" if paramstyle in _BY_NAME else "a tuple"
            raise ConfigError(f"SqlRows: with paramstyle {paramstyle!r} the parameters are {kind}")
        for name in key.names:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]*", name):
                raise ConfigError(f"SqlRows: key {name!r} is no plain name: give that column an alias in the query")
        found = list(sql_words.changing(query))
        if not stable:
            first = next((each.word for each in found if not each.selected), None)
            refused(first, [each.alias for each in found if each.selected], key)
        if sql_words.ordered(query):
            raise SourceError(
                f"SqlRows: the query has an ORDER BY, but rows come in the order of their key ({key}): leave it out, "
                "and name what it orders by as the key, as key=('-created', 'id')"
            )
        self.key, self._at_most, self._names = key, at_most, ", ".join(key.names)
        self.window = at_most is not None
        self._connect = connect
        # On lines of their own: the query may end in a comment.
        self._rows = f"(\n{query.strip().rstrip(';')}\n) AS rqmem_rows"
        self._parameters, self._style = parameters, paramstyle
        self._checked = False

    def page(self, keys: KeyRange, limit: int) -> list[tuple[Any, Key]]:
        return self._read(self._select("*", partial(self._within, keys), self._order(), limit))

    def rows_of(self, keys: Sequence[Key]) -> list[tuple[Any, Key]]:
        return self._read(self._select("*", partial(self._are, keys), limit=2 * len(keys)))

    def count(self, keys: KeyRange, how: Literal["exact", "estimate"]) -> Count:
        return Count.exact(self._number(partial(self._within, keys)))

    def nth_key(self, keys: KeyRange, number: int) -> Key | None:
        text, values = self._select(self._names, partial(self._within, keys), self._order(), number)
        order = self._order(backwards=True)
        text = f"SELECT {self._names} FROM ({text}) AS rqmem_keys{order} LIMIT {values.add(1)}"
        return self._one((text, values))

    def last_key(self, keys: KeyRange) -> Key | None:
        return self._one(self._select(self._names, partial(self._within, keys), self._order(backwards=True)))

    def null_in_key(self) -> str | None:
        null = " OR ".join(f"{name} IS NULL" for name in self.key.names)
        key = self._one(self._select(self._names, lambda values: null))
        return None if key is None else self.key.names[key.index(None)]

    def unreadable_key(self) -> str | None:
        return None  # the driver says so when it reads it

    def key_twice(self, keys: KeyRange) -> Key | None:
        grouped = f" GROUP BY {self._names} HAVING count(*) > 1"
        return self._one(self._select(self._names, partial(self._within, keys), grouped))

    def found(self, keys: Sequence[Key]) -> int:
        return self._number(partial(self._are, keys))

    def window_keys(self, most: int) -> list[Key]:
        rows, _ = self._run(self._select(self._names, then=self._order(), limit=min(most, self._at_most or most)))
        return [_fields(row) for row in rows]

    def window_range(self) -> KeyRange | None:
        first = self.nth_key(KeyRange(), 1)
        return None if first is None else KeyRange(None, self.nth_key(KeyRange(), self._at_most or 1))

    def window_count(self) -> Count:
        return Count.exact(min(self.count(KeyRange(), "exact").items or 0, self._at_most or 0))

    def to_json(self, key: Key) -> list[Any]:
        return [typed_json.encode(value) for value in key]

    def from_json(self, values: Sequence[Any]) -> Key:
        return tuple(typed_json.decode(value) for value in values)

    def _select(self, what: str, where: _Where = lambda values: "", then: str = "", limit: int = 1) -> _Query:
        """A query on the rows. It always has a LIMIT: some drivers look for parameters only where there are any."""
        values = _Values(self._style, self._parameters)
        conditions = where(values)
        only = f" WHERE {conditions}" if conditions else ""
        return f"SELECT {what} FROM {self._rows}{only}{then} LIMIT {values.add(limit)}", values

    def _read(self, query: _Query) -> list[tuple[Any, Key]]:
        rows, names = self._run(query)
        if not rows:
            return []
        places: list[Any] = [names.index(_folded(name)) for name in self.key.names]
        if isinstance(rows[0], Mapping):  # of a driver's dict cursor
            places = [list(rows[0])[place] for place in places]
        return [(row, tuple(row[place] for place in places)) for row in rows]

    def _one(self, query: _Query) -> Key | None:
        rows, _ = self._run(query)
        return _fields(rows[0]) if rows else None

    def _number(self, where: _Where) -> int:
        rows, _ = self._run(self._select("count(*) AS rqmem_count", where))
        return int(_fields(rows[0])[0])

    def _run(self, query: _Query) -> tuple[list[Any], list[str]]:
        """The rows, and the names of their columns."""
        with closing(self._connect()) as connection:
            if not self._checked:
                self._check(connection)
            return _executed(connection, query)

    def _check(self, connection: Any) -> None:
        """Ask once, before anything is read, which columns the query has. Raises `SourceError` for a key not there."""
        _, names = _executed(connection, self._select("*", lambda values: "1 = 0"))
        for name in self.key.names:
            if names.count(_folded(name)) != 1:
                hint = did_you_mean(_folded(name), names, f"it has {', '.join(names)}")
                raise SourceError(f"SqlRows: the query has no single column {name!r}, so it cannot be its key; {hint}")
        self._checked = True

    def _within(self, keys: KeyRange, values: _Values) -> str:
        bounds = []
        if keys.after is not None:
            bounds.append(self._side(0, keys.after, values, beyond=True, including=keys.including))
        if keys.upto is not None:
            bounds.append(self._side(0, keys.upto, values, beyond=False, including=True))
        return " AND ".join(bounds)

    def _side(self, first: int, key: Key, values: _Values, *, beyond: bool, including: bool) -> str:
        """``names > key``, or ``names <= key``, written out as in `rqmem.sources.sql_selectable`."""
        name, value = self.key.names[first], key[first]
        sign = ">" if beyond != self.key.descending[first] else "<"
        if first == len(key) - 1:
            return f"{name} {sign}{'=' if including else ''} {values.add(value)}"
        loosely = f"{name} {sign}= {values.add(value)}"
        strictly = f"{name} {sign} {values.add(value)}"
        same = f"{name} = {values.add(value)}"
        further = self._side(first + 1, key, values, beyond=beyond, including=including)
        return f"({loosely} AND ({strictly} OR ({same} AND {further})))"

    def _are(self, keys: Sequence[Key], values: _Values) -> str:
        def is_it(key: Key) -> str:
            return " AND ".join(f"{name} = {values.add(each)}" for name, each in zip(self.key.names, key, strict=True))

        if len(self.key.names) == 1:
            return f"{self.key.names[0]} IN ({', '.join(values.add(key[0]) for key in keys)})"
        return " OR ".join(f"({is_it(key)})" for key in keys)

    def _order(self, *, backwards: bool = False) -> str:
        listed = (
            f"{name} DESC" if down != backwards else name
            for name, down in zip(self.key.names, self.key.descending, strict=True)
        )
        return f" ORDER BY {', '.join(listed)}"


class _Values:
    """Placeholders in a driver's style, and the values for them, added in the order of the placeholders."""

    def __init__(self, style: str, parameters: Sequence[Any] | Mapping[str, Any]) -> None:
        self._style = style
        self.given: Any = dict(parameters) if style in _BY_NAME else list(parameters)

    def add(self, value: Any) -> str:
        number = len(self.given) + 1
        if self._style in _BY_NAME:
            self.given[f"rqmem_{number}"] = value
        else:
            self.given.append(value)
        return _STYLES[self._style](number)


_Query = tuple[str, _Values]
_Where = Callable[[_Values], str]


def _executed(connection: Any, query: _Query) -> tuple[list[Any], list[str]]:
    text, values = query
    with closing(connection.cursor()) as cursor:
        cursor.execute(text, values.given)
        return list(cursor.fetchall()), [_folded(each[0]) for each in cursor.description]


def _fields(row: Any) -> Key:
    return tuple(row.values()) if isinstance(row, Mapping) else tuple(row)


def _folded(name: str) -> str:
    return name.casefold()
