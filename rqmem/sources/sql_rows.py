"""Rows of a database as a source: a page at a time by key, never with OFFSET, which reads what it skips.

Each page is a short query of its own, so no cursor and no transaction stays open while a page is worked on. The rows
come in the order of a key, one or several columns that are unique and never NULL: where a page ends the next begins. A
row is given if it is selected when its page is read; so one that is written meanwhile is seen where its key comes after
what is read, and one that is no longer selected is not. The slices of a source end at the last key there was when they
were cut.

The first N rows (`at_most`, or a LIMIT of the select) are a *window*: run again, it would be another set. So it is
fixed before its first row is read: by its keys where they are few (`FEW_KEYS`, `FEW_BYTES`), which the cursor then
holds; else by its first and last key, where it is in the key's order; else it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as AnySequence
from copy import copy
from datetime import datetime, timezone
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from uuid import UUID

from rqmem.errors import ConfigError, SourceChanged, SourceError
from rqmem.sources import typed_json
from rqmem.sources.contract import Count, Cursor, Cuttable, check_cut, even_bounds
from rqmem.sources.naming import imported, kind_of
from rqmem.sources.sql_queries import Key, KeyOrder, KeyRange, Queries, refusal

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session, sessionmaker

T = TypeVar("T")

FEW_KEYS, FEW_BYTES = 1000, 64 * 1024
"""So many keys, in so many bytes of JSON, are held by a cursor."""

_KEYS_PER_QUERY = 100
_EXACT = (int, UUID)  # types that a database and Python take for equal in the same cases


class SqlRows(Cuttable[Any]):
    """The rows of a SQLAlchemy selectable (here) or of a plain query (`SqlRows.dbapi`), by key.

    A select of one thing (a mapped class, a single column) gives it; of several, rows. Objects are detached: load what
    you need of their relations with ``selectinload``. The cursor is the key of the last row, as JSON; that of a window
    is what is left of it.

    To hand slices to child jobs, have a function make the source, and name that: `SqlRows.from_factory`.

    Args:
        database: an engine or a sessionmaker; made after the fork, since a connection belongs to one process.
        selectable: a mapped class, a table, or a select of whatever kind. Its ORDER BY must begin with the key's
            columns, unless it has a LIMIT for at most `FEW_KEYS` rows.
        key: the names of the columns or attributes that order the rows: unique and never NULL, both together an index;
            no job may change them while it reads. By default the primary key. A ``-`` in front is descending:
            ``("-created", "id")``.
        page_size: rows per query; a page is in memory at a time.
        count: ``"estimate"`` asks PostgreSQL's planner how many rows there are, which is quick and rough; other
            databases count.
        at_most: only the first so many rows in the order of the key, as there are when the first is read.
        stable: nothing that is selected from changes until the job is done. Without this promise a select in which a
            row depends on others (a LIMIT in a subquery, DISTINCT ON, a window function) is refused.

    Raises:
        ConfigError: an argument cannot be used.
        SourceError: SQLAlchemy is not installed, or the selectable has no such key, another order, or would be another
            set each time it is run; nothing has been run then. While reading: a key is NULL or comes twice (as the
            database compares), or its type has no JSON (`rqmem.sources.typed_json`).
    """

    def __init__(
        self,
        database: Engine | sessionmaker[Session],
        selectable: Any,
        *,
        key: str | tuple[str, ...] | None = None,
        page_size: int = 500,
        count: Literal["exact", "estimate"] = "exact",
        at_most: int | None = None,
        stable: bool = False,
    ) -> None:
        try:
            from rqmem.sources.sql_selectable import SelectableQueries
        except ImportError as error:
            raise SourceError(f"SqlRows needs SQLAlchemy 2 ({error}): pip install 'rqmem[db]'") from error
        if count not in ("exact", "estimate"):
            raise ConfigError(f"SqlRows: count is {count!r}: give 'exact' or 'estimate'")
        most, order = _most(at_most), None if key is None else KeyOrder.of(key)
        self._set_up(SelectableQueries(database, selectable, order, most, stable), page_size, count)

    @classmethod
    def dbapi(
        cls,
        connect: Callable[[], Any],
        query: str,
        *,
        key: str | tuple[str, ...],
        parameters: AnySequence[Any] | Mapping[str, Any] = (),
        paramstyle: Literal["qmark", "format", "numeric", "named", "pyformat"] = "qmark",
        page_size: int = 500,
        at_most: int | None = None,
        stable: bool = False,
    ) -> SqlRows:
        """The rows of a plain query on a DB-API driver, as the driver gives them.

        Args:
            connect: gives a connection, which is closed after each query: a pool's, where connecting takes long.
            query: a SELECT without ORDER BY and LIMIT. The database must know LIMIT (PostgreSQL, SQLite, MySQL,
                MariaDB).
            key: as in `SqlRows`; columns of the result.
            parameters: of the query.
            paramstyle: the driver's (``module.paramstyle``). With format and pyformat each % of the query is doubled.
            page_size: rows per query.
            at_most, stable: as in `SqlRows`.
        """
        from rqmem.sources.sql_dbapi import DbapiQueries

        rows = cls.__new__(cls)
        queries = DbapiQueries(connect, query, KeyOrder.of(key), parameters, paramstyle, _most(at_most), stable)
        rows._set_up(queries, page_size, "exact")
        return rows

    @classmethod
    def from_factory(cls, path: str, /, **kwargs: Any) -> SqlRows:
        """The source that the function at ``path`` (``"module:function"``) makes of ``kwargs``.

        A query is code, and a database's address a secret, so neither is written into a slice; the path is, and the
        arguments, with which the worker of a child job makes the source again. The function must not change what it
        selects from call to call, and should keep one engine per process (``functools.cache``).

        Raises:
            SourceError: it cannot be imported, made no `SqlRows`, or an argument is no JSON.
        """
        rows = imported(path)(**kwargs)
        if not isinstance(rows, SqlRows):
            raise SourceError(f"{path} returned a {type(rows).__name__}: have it return an SqlRows")
        made = copy(rows)
        made._factory = {"factory": path, "kwargs": typed_json.encode(kwargs)}
        return made

    def _set_up(self, queries: Queries, page_size: int, how: Literal["exact", "estimate"]) -> None:
        if isinstance(page_size, bool) or not isinstance(page_size, int) or page_size < 1:
            raise ConfigError(f"SqlRows: page_size is {page_size!r}: give a whole number of at least 1")
        self._queries, self._page_size, self._how = queries, page_size, how
        self._keys = KeyRange()
        self._unfixed = queries.window
        self._held: list[Any] | None = None  # keys, as JSON, where those are what is wanted
        self._first = 0  # the number of the first of them in the window
        self._factory: dict[str, Any] | None = None

    def first_cursor(self) -> Cursor:
        return self._fixed()._bounds() if self._unfixed else None

    def items_after(self, cursor: Cursor) -> Iterator[tuple[Any, Cursor]]:
        if not self._unfixed:
            rest = self._rest(cursor)
            return rest._held_items() if rest._held is not None else rest._items(fresh=cursor is None)
        rest = self._fixed() if cursor is None else self._rest(cursor)
        return ((item, rest._rest(after)._bounds()) for item, after in rest.items_after(None))

    def _items(self, *, fresh: bool) -> Iterator[tuple[Any, Cursor]]:
        if fresh:
            self._refuse_what_is_no_key()
        keys, first = self._keys, fresh
        while True:
            # One row more than a page: it says whether there is a next, and whether that begins with the same key.
            rows = self._asked(self._queries.page, keys, self._page_size + 1, first=first)
            self._check(rows, keys)
            if rows and keys.after is not None and not keys.including and self._same(rows[0][1], keys.after):
                raise self._rounded(rows[0][1])
            for item, key in rows[: self._page_size]:
                yield item, self._to_json(key)
            if len(rows) <= self._page_size:
                return
            keys, first = KeyRange(rows[self._page_size - 1][1], keys.upto), False

    def _asked(self, query: Callable[..., T], keys: KeyRange, *others: Any, first: bool = True) -> T:
        """Ask the database. Raises `SourceError` for what it, or its driver, cannot do with such a key."""
        try:
            return query(keys, *others)
        except Exception as error:
            said = refusal(error)
            if said is None or not (first or "DataError" in {each.__name__ for each in type(error).__mro__}):
                raise
            after = "" if keys.after is None else f" after {keys.after!r:.200}"
            raise SourceError(f"rows by key ({self._queries.key}) cannot be read{after}: {said}") from error

    def _held_items(self) -> Iterator[tuple[Any, Cursor]]:
        held = self._held or []
        size = min(self._page_size, _KEYS_PER_QUERY)
        for begin in range(0, len(held), size):
            batch = held[begin : begin + size]
            rows = self._rows_of(batch)
            for number, key in enumerate(batch, start=self._first + begin + 1):
                if (found := rows.get(_text(key))) is not None:  # else it is gone, or no longer selected
                    yield found[0], number

    def _rows_of(self, keys: list[Any]) -> dict[str, tuple[Any]]:
        """The rows with these keys, by key."""
        rows: dict[str, tuple[Any]] = {}
        wanted = {_text(key) for key in keys}
        for item, key in self._queries.rows_of([self._queries.from_json(key) for key in keys]):
            text = _text(self._to_json(key))
            if text in rows or text not in wanted:
                raise self._twice(key)
            rows[text] = (item,)
        return rows

    def count(self) -> Count:
        if self._unfixed:
            return self._queries.window_count()
        if self._held is None:
            return self._queries.count(self._keys, self._how)
        batches = range(0, len(self._held), _KEYS_PER_QUERY)
        return Count.exact(sum(len(self._rows_of(self._held[at : at + _KEYS_PER_QUERY])) for at in batches))

    def slices(self, items_per_slice: int | None = None, *, parts: int | None = None) -> Iterator[SqlRows]:
        """As `Cuttable.slices`: exactly so many rows each, as of now. A short query a slice, along the key's index."""
        check_cut(items_per_slice, parts)
        whole = self._fixed()
        if whole._held is None:
            return whole._walk(items_per_slice, parts)
        bounds = even_bounds(len(whole._held), items_per_slice, parts)
        return (whole._part(begin, end) for begin, end in bounds)

    def _walk(self, size: int | None, most: int | None) -> Iterator[SqlRows]:
        self._refuse_what_is_no_key()
        end = self._asked(self._queries.last_key, self._keys)  # rows that come while it is cut are not waited for
        if end is None:
            return
        self._check_key(end)
        left, made = KeyRange(self._keys.after, end, self._keys.including), 0
        if size is None:
            size = -(-(self._queries.count(left, "exact").items or 0) // (most or 1))
        while True:
            ends = made + 1 == most  # rows may have come since they were counted
            upto = self._queries.last_key(left) if ends else self._queries.nth_key(left, max(1, size))
            if upto is None:
                return
            self._check_key(upto)
            yield self._between(KeyRange(left.after, upto, left.including))
            left, made = KeyRange(upto, left.upto), made + 1
            if ends:
                return

    def rest(self, cursor: Cursor) -> SqlRows:
        return self._fixed() if cursor is None else self._rest(cursor)

    def beyond(self, piece: SqlRows) -> SqlRows:
        whole = self._fixed()
        if piece._held is not None and whole._held is not None:
            last = piece._held[-1] if piece._held else None
            at = piece._first + len(piece._held) - whole._first
            if not 0 <= at <= len(whole._held) or (at > 0 and last is not None and whole._held[at - 1] != last):
                raise SourceError("beyond: that is no slice of these rows, or they are others now")
            return whole._part(at, len(whole._held))
        if piece._keys.upto is None or whole._held is not None:
            raise SourceError("beyond: that SqlRows has no end, so it is no slice")
        return whole._between(KeyRange(piece._keys.upto, whole._keys.upto))

    def begins_at(self) -> str:
        whole = self._fixed()
        if whole._held is None:
            key = next((key for _, key in self._queries.page(whole._keys, 1)), None)
        else:
            key = self._queries.from_json(whole._held[0]) if whole._held else None
        if key is None:
            return ""
        return ", ".join(f"{name} {value!r:.80}" for name, value in zip(self._queries.key.names, key, strict=True))

    def describe(self) -> dict[str, Any]:
        if self._factory is None:
            raise SourceError(
                "a slice of an SqlRows cannot be sent to a child job: a query is code, and a database's address a "
                "secret; have a function make it, and use SqlRows.from_factory('your.module:function', ...)"
            )
        return {"kind": kind_of(type(self)), **self._factory, **self._fixed()._bounds()}

    @classmethod
    def from_description(cls, fields: dict[str, Any]) -> SqlRows:
        return cls.from_factory(fields["factory"], **typed_json.decode(fields["kwargs"]))._within(fields)

    # Where it begins and ends

    def _fixed(self) -> SqlRows:
        """These rows, or where only the first are wanted, those that it is now."""
        if not self._unfixed:
            return self
        self._refuse_what_is_no_key()
        keys = self._queries.window_keys(FEW_KEYS + 1)
        for key in keys:
            self._check_key(key)
        held = [self._to_json(key) for key in keys]
        if len(held) <= FEW_KEYS and len(_text(held)) <= FEW_BYTES:
            return self._between(KeyRange(), held)
        keys_range = self._queries.window_range()
        if keys_range is None:
            raise SourceError(
                f"the select wants more rows than a cursor can hold ({FEW_KEYS:,} keys, {FEW_BYTES // 1024} KB), in "
                f"another order than that of their key ({self._queries.key}): order it by the key, or give the select "
                "without LIMIT and at_most=N for its first N rows by key"
            )
        return self._between(keys_range)

    def _rest(self, cursor: Cursor) -> SqlRows:
        if cursor is None:
            return self
        if self._unfixed:
            return self._within(cursor)
        if self._held is None:
            return self._between(KeyRange(self._key_of(cursor), self._keys.upto))
        if isinstance(cursor, bool) or not isinstance(cursor, int):
            raise self._no_cursor(cursor)
        at = cursor - self._first
        if not 0 <= at <= len(self._held):
            raise self._no_cursor(cursor)
        return self._part(at, len(self._held))

    def _bounds(self) -> dict[str, Any]:
        """As JSON: what `_within` takes."""
        if self._held is not None:
            return {"first": self._first, "keys": self._held}
        keys = self._keys
        ends = {name: None if key is None else self._to_json(key) for name, key in
                (("after", keys.after), ("upto", keys.upto))}  # fmt: skip
        return {**ends, "including": True} if keys.including else ends

    def _within(self, bounds: Any) -> SqlRows:
        if not isinstance(bounds, dict):
            raise self._no_cursor(bounds)
        if "keys" in bounds:
            first, held = bounds.get("first"), bounds["keys"]
            if not isinstance(held, list) or isinstance(first, bool) or not isinstance(first, int):
                raise self._no_cursor(bounds)
            for key in held:
                self._key_of(key)
            return self._between(KeyRange(), held, first)
        if not {"after", "upto"} <= bounds.keys():
            raise self._no_cursor(bounds)
        after, upto = (None if bounds[name] is None else self._key_of(bounds[name]) for name in ("after", "upto"))
        return self._between(KeyRange(after, upto, bounds.get("including") is True))

    def _part(self, begin: int, end: int) -> SqlRows:
        assert self._held is not None
        return self._between(KeyRange(), self._held[begin:end], self._first + begin)

    def _between(self, keys: KeyRange, held: list[Any] | None = None, first: int = 0) -> SqlRows:
        piece = copy(self)
        piece._keys, piece._held, piece._first, piece._unfixed = keys, held, first, False
        return piece

    # Keys

    def _to_json(self, key: Key) -> list[Any]:
        try:
            return self._queries.to_json(key)
        except SourceError as error:
            raise SourceError(f"key ({self._queries.key}): {error}") from None

    def _key_of(self, cursor: Cursor) -> Key:
        if not isinstance(cursor, list) or len(cursor) != len(self._queries.key.names) or None in cursor:
            raise self._no_cursor(cursor)
        return self._queries.from_json(cursor)

    def _no_cursor(self, cursor: Cursor) -> SourceError:
        if self._unfixed:  # as where the select had no LIMIT before, or an older rqmem did not fix it
            return SourceChanged(f"cursor {cursor!r:.100} is no window on these rows; begin again from the start")
        what = f"no list of ({self._queries.key})" if self._held is None else f"none of {len(self._held)} rows"
        return SourceError(f"cursor {cursor!r:.100} is {what}")

    def _check(self, rows: list[tuple[Any, Key]], keys: KeyRange) -> None:
        """Raise `SourceError` unless each key is one of its own, and can be gone on from.

        What is equal the database decides: it may take "Anna" and "anna" for the same, or 1 and a rounded 1.
        """
        for _, key in rows:
            self._check_key(key)
        if all(type(value) in _EXACT for _, key in rows for value in key):
            for (_, before), (_, key) in pairwise(rows):
                if before == key:
                    raise self._twice(key)
            return
        if not rows:
            return
        last = rows[-1][1]
        for _, key in (rows[0], rows[-1]):
            self._to_json(key)
        found = self._queries.key_twice(KeyRange(rows[0][1], last, including=True))
        if found is not None:
            raise self._twice(found)
        # One tells; of floats each may be rounded in its own way.
        asked = [key for _, key in rows if any(type(value) is float for value in key)] or [last]
        for at in range(0, len(asked), _KEYS_PER_QUERY):
            batch = asked[at : at + _KEYS_PER_QUERY]
            if self._queries.found(batch) < len(batch):
                self._refuse_rounded(batch, keys, len(rows))

    def _refuse_rounded(self, asked: list[Key], keys: KeyRange, count: int) -> None:
        """Raise `SourceError` unless those of the keys that the database does not find are gone by now."""
        there = [key for _, key in self._queries.page(keys, count)]
        for key in asked:
            if any(self._same(key, each) for each in there) and not self._queries.found([key]):
                raise self._rounded(key)

    def _same(self, one: Key, other: Key) -> bool:
        """Whether both are written alike: to Python a moment and the one an hour later may be equal, in autumn."""
        return _text(self._to_json(one)) == _text(self._to_json(other))

    def _rounded(self, key: Key) -> SourceError:
        return SourceError(
            f"key ({self._queries.key}): the database does not find {key!r:.200}, which it gave, when it is asked for "
            "it: it is rounded on the way; cast it in the query (a real to double precision), or name another"
        )

    def _check_key(self, key: Key) -> None:
        if None in key:
            raise self._null(self._queries.key.names[key.index(None)])

    def _twice(self, key: Key) -> SourceError:
        return SourceError(
            f"key ({self._queries.key}) is not unique: {key!r:.200} comes twice, as the database compares; name "
            "columns that together are, or rows would be lost between pages"
        )

    def _refuse_what_is_no_key(self) -> None:
        self._refuse_nulls()
        if self._keys == KeyRange() and (found := self._queries.unreadable_key()) is not None:
            raise SourceError(
                f"key ({self._queries.key}) is {found} in some rows, which no Python value is: name another key, or "
                "select the others"
            )

    def _refuse_nulls(self) -> None:
        """NULL is neither before nor after a key, so a database would leave such rows out in silence."""
        if self._keys == KeyRange():
            name = self._queries.null_in_key()
            if name is not None:
                raise self._null(name)

    def _null(self, name: str) -> SourceError:
        return SourceError(f"key column {name!r} is NULL in some rows: name a key that never is, or select the others")


def _text(value: Any) -> str:
    """JSON by which keys are found: a moment is the same in whatever zone the database tells it."""
    return json.dumps(value, default=str) if not isinstance(value, list) else json.dumps([_utc(each) for each in value])


def _utc(value: Any) -> Any:
    if isinstance(value, dict) and value.get("$") == "datetime":
        moment = datetime.fromisoformat(value["v"])
        return value if moment.tzinfo is None else moment.astimezone(timezone.utc).isoformat()
    return value


def _most(at_most: Any) -> int | None:
    if at_most is not None and (isinstance(at_most, bool) or not isinstance(at_most, int) or at_most < 1):
        raise ConfigError(f"SqlRows: at_most is {at_most!r}: give a whole number of rows of at least 1")
    return at_most
