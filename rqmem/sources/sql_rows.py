"""Rows of a database as a source: a page at a time by key, never with OFFSET, which reads what it skips.

Each page is a short query of its own, so no cursor and no transaction stays open while a page is worked on. The rows
come in the order of a key: one or several columns that are unique and never NULL. Where a page ends, the next begins. A
row is given if it is selected when its page is read. So a row that is written meanwhile is given if its key comes after
what is read, and a row that is no longer selected is not. The slices of a source end at the last key that there was
when they were cut.

The first N rows (`at_most`, or a LIMIT of the select) are a *window*. Run again, it would be another set, so it is
fixed before its first row is read. Few keys (`FEW_KEYS`, `FEW_BYTES`) are kept in the cursor. More are fixed by the
first and the last key, if the window is in the key's order; else the window is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as AnySequence
from copy import copy
from typing import TYPE_CHECKING, Any, Literal

from rqmem.errors import ConfigError, SourceChanged, SourceError
from rqmem.sources import typed_json
from rqmem.sources.contract import Count, Cursor, Cuttable, check_cut, check_whole, even_bounds
from rqmem.sources.naming import imported, kind_of
from rqmem.sources.sql_keys import KEYS_PER_QUERY, CheckedQueries, KeyList, text_of
from rqmem.sources.sql_queries import Key, KeyOrder, KeyRange, Queries

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session, sessionmaker

FEW_KEYS, FEW_BYTES = 1000, 64 * 1024
"""A cursor holds at most this number of keys, in this number of bytes of JSON."""


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
        at_most: only this number of rows in the order of the key, as they are when the first is read.
        stable: nothing that is selected from changes until the job is done. Without this promise a select in which a
            row depends on others (a LIMIT in a subquery, DISTINCT ON, a window function, an aggregate of the same table
            in a condition; the last not in a plain query) is refused.

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
        check_whole(page_size, "SqlRows: page_size")
        self._queries, self._page_size, self._how = queries, page_size, how
        self._checked = CheckedQueries(queries)
        self._part: KeyRange | KeyList | None = None if queries.window else KeyRange()  # None: a window, not yet fixed
        self._factory: dict[str, Any] | None = None

    def first_cursor(self) -> Cursor:
        return self._fixed()._bounds() if self._part is None else None

    def items_after(self, cursor: Cursor) -> Iterator[tuple[Any, Cursor]]:
        if self._part is None:
            rest = self._fixed() if cursor is None else self._rest(cursor)
            return ((item, rest._rest(after)._bounds()) for item, after in rest.items_after(None))
        part = self._rest(cursor)._part
        return self._listed_items(part) if isinstance(part, KeyList) else self._items(part, fresh=cursor is None)

    def _items(self, keys: KeyRange | None, *, fresh: bool) -> Iterator[tuple[Any, Cursor]]:
        assert keys is not None
        if fresh:
            self._check_all(keys)
        first = fresh
        while True:
            # One row more than a page: it says whether there is a next, and whether that begins with the same key.
            rows = self._checked.page(keys, self._page_size + 1, first=first)
            for item, key in rows[: self._page_size]:
                yield item, self._checked.to_json(key)
            if len(rows) <= self._page_size:
                return
            keys, first = KeyRange(rows[self._page_size - 1][1], keys.upto), False

    def _listed_items(self, listed: KeyList) -> Iterator[tuple[Any, Cursor]]:
        for batch in listed.batches(min(self._page_size, KEYS_PER_QUERY)):
            rows = self._checked.rows_of(batch)
            for number, key in enumerate(batch.keys, start=batch.first + 1):
                if (found := rows.get(text_of(key))) is not None:  # else it is gone, or no longer selected
                    yield found[0], number

    def count(self) -> Count:
        if self._part is None:
            return self._queries.window_count()
        if isinstance(self._part, KeyRange):
            return self._queries.count(self._part, self._how)
        return Count.exact(sum(len(self._checked.rows_of(batch)) for batch in self._part.batches()))

    def slices(self, items_per_slice: int | None = None, *, parts: int | None = None) -> Iterator[SqlRows]:
        """As `Cuttable.slices`, with the exact number of rows as of now. Each slice is a short query on the key."""
        check_cut(items_per_slice, parts)
        part = self._fixed()._part
        if isinstance(part, KeyList):
            bounds = even_bounds(len(part.keys), items_per_slice, parts)
            return (self._with(part.between(begin, end)) for begin, end in bounds)
        return self._walk(part, items_per_slice, parts)

    def _walk(self, whole: KeyRange | None, size: int | None, most: int | None) -> Iterator[SqlRows]:
        assert whole is not None
        self._check_all(whole)
        end = self._checked.asked(self._queries.last_key, whole)  # rows that come while it is cut are not waited for
        if end is None:
            return
        self._checked.check_complete(end)
        left, made = KeyRange(whole.after, end, whole.including), 0
        if size is None:
            size = -(-(self._queries.count(left, "exact").items or 0) // (most or 1))
        while True:
            ends = made + 1 == most  # rows may have come since they were counted
            upto = self._queries.last_key(left) if ends else self._queries.nth_key(left, max(1, size))
            if upto is None:
                return
            self._checked.check_complete(upto)
            yield self._with(KeyRange(left.after, upto, left.including))
            left, made = KeyRange(upto, left.upto), made + 1
            if ends:
                return

    def rest(self, cursor: Cursor) -> SqlRows:
        return self._fixed() if cursor is None else self._rest(cursor)

    def beyond(self, piece: SqlRows) -> SqlRows:
        whole, part = self._fixed()._part, piece._part
        if isinstance(whole, KeyList) and isinstance(part, KeyList):
            at = part.first + len(part.keys) - whole.first
            fits = 0 <= at <= len(whole.keys)
            if not fits or (at > 0 and part.keys and whole.keys[at - 1] != part.keys[-1]):
                raise SourceError("beyond: that is no slice of these rows, or they are others now")
            return self._with(whole.between(at, len(whole.keys)))
        if not isinstance(whole, KeyRange) or not isinstance(part, KeyRange) or part.upto is None:
            raise SourceError("beyond: that SqlRows has no end, so it is no slice")
        return self._with(KeyRange(part.upto, whole.upto))

    def begins_at(self) -> str:
        part = self._fixed()._part
        if isinstance(part, KeyList):
            key = self._queries.from_json(part.keys[0]) if part.keys else ()
        else:
            key = next((key for _, key in self._queries.page(part or KeyRange(), 1)), ())
        return ", ".join(f"{name} {value!r:.80}" for name, value in zip(self._queries.key.names, key, strict=False))

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
        """These rows; a window becomes the rows that it has now."""
        if self._part is not None:
            return self
        self._checked.check_all()
        keys = self._queries.window_keys(FEW_KEYS + 1)
        for key in keys:
            self._checked.check_complete(key)
        listed = [self._checked.to_json(key) for key in keys]
        if len(listed) <= FEW_KEYS and len(json.dumps(listed)) <= FEW_BYTES:
            return self._with(KeyList(listed))
        keys_range = self._queries.window_range()
        if keys_range is None:
            raise SourceError(
                f"the select wants more rows than a cursor can hold ({FEW_KEYS:,} keys, {FEW_BYTES // 1024} KB), in "
                f"another order than that of their key ({self._queries.key}): order it by the key, or give the select "
                "without LIMIT and at_most=N for its first N rows by key"
            )
        return self._with(keys_range)

    def _rest(self, cursor: Cursor) -> SqlRows:
        part = self._part
        if cursor is None:
            return self
        if part is None:
            return self._within(cursor)
        if isinstance(part, KeyRange):
            return self._with(KeyRange(self._key_of(cursor), part.upto))
        if isinstance(cursor, bool) or not isinstance(cursor, int) or not 0 <= cursor - part.first <= len(part.keys):
            raise self._no_cursor(cursor)
        return self._with(part.between(cursor - part.first, len(part.keys)))

    def _bounds(self) -> dict[str, Any]:
        """The part as JSON, for `_within`."""
        part = self._part
        if isinstance(part, KeyList):
            return {"first": part.first, "keys": part.keys}
        assert part is not None
        ends = {"after": part.after, "upto": part.upto}
        bounds = {name: None if key is None else self._checked.to_json(key) for name, key in ends.items()}
        return {**bounds, "including": True} if part.including else bounds

    def _within(self, bounds: Any) -> SqlRows:
        if not isinstance(bounds, dict):
            raise self._no_cursor(bounds)
        if "keys" in bounds:
            first, listed = bounds.get("first"), bounds["keys"]
            if not isinstance(listed, list) or isinstance(first, bool) or not isinstance(first, int):
                raise self._no_cursor(bounds)
            for key in listed:
                self._key_of(key)
            return self._with(KeyList(listed, first))
        if not {"after", "upto"} <= bounds.keys():
            raise self._no_cursor(bounds)
        after, upto = (None if bounds[name] is None else self._key_of(bounds[name]) for name in ("after", "upto"))
        return self._with(KeyRange(after, upto, bounds.get("including") is True))

    def _with(self, part: KeyRange | KeyList) -> SqlRows:
        piece = copy(self)
        piece._part = part
        return piece

    def _key_of(self, cursor: Cursor) -> Key:
        if not isinstance(cursor, list) or len(cursor) != len(self._queries.key.names) or None in cursor:
            raise self._no_cursor(cursor)
        return self._queries.from_json(cursor)

    def _no_cursor(self, cursor: Cursor) -> SourceError:
        if self._part is None:  # as where the select had no LIMIT before, or an older rqmem did not fix it
            return SourceChanged(f"cursor {cursor!r:.100} is no window on these rows; begin again from the start")
        part, what = self._part, f"no list of ({self._queries.key})"
        if isinstance(part, KeyList):
            what = f"none of {len(part.keys)} rows"
        return SourceError(f"cursor {cursor!r:.100} is {what}")

    def _check_all(self, keys: KeyRange) -> None:
        if keys == KeyRange():  # else somebody has checked before
            self._checked.check_all()


def _most(at_most: int | None) -> int | None:
    if at_most is not None:
        check_whole(at_most, "SqlRows: at_most")
    return at_most
