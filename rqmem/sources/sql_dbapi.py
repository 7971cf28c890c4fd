"""The queries of `SqlRows` on a DB-API driver: a plain query inside of others that pick from it by key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any, Literal

from rqmem.errors import ConfigError, SourceError
from rqmem.sources.contract import Count
from rqmem.sources.sql_queries import Key, KeyRange

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
        key: tuple[str, ...],
        parameters: Sequence[Any] | Mapping[str, Any],
        paramstyle: str,
    ) -> None:
        if paramstyle not in _STYLES:
            raise ConfigError(f"SqlRows: paramstyle is {paramstyle!r}: give one of {', '.join(_STYLES)}")
        if parameters and isinstance(parameters, Mapping) != (paramstyle in _BY_NAME):
            kind = "a dict" if paramstyle in _BY_NAME else "a tuple"
            raise ConfigError(f"SqlRows: with paramstyle {paramstyle!r} the parameters are {kind}")
        for name in key:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]*", name):
                raise ConfigError(f"SqlRows: key {name!r} is no plain name: give that column an alias in the query")
        self.key = key
        self._connect = connect
        # On lines of their own: the query may end in a comment.
        self._rows = f"(\n{query.strip().rstrip(';')}\n) AS rqmem_rows"
        self._parameters, self._style = parameters, paramstyle
        self._checked = False

    def page(self, keys: KeyRange, limit: int) -> list[tuple[Any, Key]]:
        values = _Values(self._style, self._parameters)
        where = self._where(keys, values)
        text = f"SELECT * FROM {self._rows}{where} ORDER BY {self._listed()} LIMIT {values.add(limit)}"
        rows, names = self._run(text, values)
        if not rows:
            return []
        places: list[Any] = [names.index(_folded(name)) for name in self.key]
        if isinstance(rows[0], Mapping):  # of a driver's dict cursor
            places = [list(rows[0])[place] for place in places]
        return [(row, tuple(row[place] for place in places)) for row in rows]

    def count(self, keys: KeyRange, how: Literal["exact", "estimate"]) -> Count:
        values = _Values(self._style, self._parameters)
        where = self._where(keys, values)
        # The limit is for drivers that look for parameters only where some are given.
        [row], _ = self._run(f"SELECT count(*) AS rqmem_count FROM {self._rows}{where} LIMIT {values.add(1)}", values)
        return Count.exact(_fields(row)[0])

    def nth_key(self, keys: KeyRange, number: int) -> Key | None:
        values = _Values(self._style, self._parameters)
        where, listed = self._where(keys, values), self._listed()
        first = f"SELECT {listed} FROM {self._rows}{where} ORDER BY {listed} LIMIT {values.add(number)}"
        backwards = self._listed(" DESC")
        text = f"SELECT {listed} FROM ({first}) AS rqmem_keys ORDER BY {backwards} LIMIT {values.add(1)}"
        return self._one(text, values)

    def last_key(self, keys: KeyRange) -> Key | None:
        values = _Values(self._style, self._parameters)
        where = self._where(keys, values)
        backwards = self._listed(" DESC")
        return self._one(
            f"SELECT {self._listed()} FROM {self._rows}{where} ORDER BY {backwards} LIMIT {values.add(1)}", values
        )

    def null_in_key(self) -> str | None:
        values = _Values(self._style, self._parameters)
        null = " OR ".join(f"{name} IS NULL" for name in self.key)
        text = f"SELECT {self._listed()} FROM {self._rows} WHERE {null} LIMIT {values.add(1)}"
        key = self._one(text, values)
        return None if key is None else self.key[key.index(None)]

    def _one(self, text: str, values: _Values) -> Key | None:
        rows, _ = self._run(text, values)
        return _fields(rows[0]) if rows else None

    def _run(self, text: str, values: _Values) -> tuple[list[Any], list[str]]:
        """The rows, and the names of their columns."""
        with closing(self._connect()) as connection:
            if not self._checked:
                self._check(connection)
            with closing(connection.cursor()) as cursor:
                cursor.execute(text, values.given)
                return list(cursor.fetchall()), [_folded(each[0]) for each in cursor.description]

    def _check(self, connection: Any) -> None:
        """Ask once, before anything is read, which columns the query has. Raises `SourceError` for a key not there."""
        values = _Values(self._style, self._parameters)
        with closing(connection.cursor()) as cursor:
            cursor.execute(f"SELECT * FROM {self._rows} WHERE 1 = 0 LIMIT {values.add(1)}", values.given)
            names = [_folded(each[0]) for each in cursor.description]
        for name in self.key:
            if names.count(_folded(name)) != 1:
                near = difflib.get_close_matches(_folded(name), names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
                raise SourceError(f"SqlRows: the query has no single column {name!r}, so it cannot be its key; {hint}")
        self._checked = True

    def _where(self, keys: KeyRange, values: _Values) -> str:
        bounds = [
            _beyond(self.key, key, sign, values)
            for key, sign in ((keys.after, ">"), (keys.upto, "<"))
            if key is not None
        ]
        return f" WHERE {' AND '.join(bounds)}" if bounds else ""

    def _listed(self, direction: str = "") -> str:
        return ", ".join(f"{name}{direction}" for name in self.key)


class _Values:
    """Placeholders in a driver's style, and the values for them, added in the order in which they stand."""

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


def _beyond(names: Sequence[str], key: Key, sign: str, values: _Values) -> str:
    """``names > key``, or ``names <= key``, written out as in `rqmem.sources.sql_selectable`."""
    name, value = names[0], key[0]
    if len(names) == 1:
        return f"{name} {'>' if sign == '>' else '<='} {values.add(value)}"
    loosely = f"{name} {sign}= {values.add(value)}"
    strictly = f"{name} {sign} {values.add(value)}"
    same = f"{name} = {values.add(value)}"
    return f"({loosely} AND ({strictly} OR ({same} AND {_beyond(names[1:], key[1:], sign, values)})))"


def _fields(row: Any) -> Key:
    return tuple(row.values()) if isinstance(row, Mapping) else tuple(row)


def _folded(name: str) -> str:
    return name.casefold()
