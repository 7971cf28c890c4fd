"""Rows of a database as a source: a page at a time by key, never with OFFSET, which reads what it skips.

Each page is a short query of its own, so no cursor and no transaction stays open while a page is worked on. The rows
come in the order of a key, one or several columns that are unique and never NULL: where a page ends the next begins. A
row that is written meanwhile is seen where its key comes after what is read; the slices of a source end at the last
key there was when they were cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as AnySequence
from copy import copy
from typing import TYPE_CHECKING, Any, Literal

from rqmem.errors import ConfigError, SourceError
from rqmem.sources import typed_json
from rqmem.sources.contract import Count, Cursor, Cuttable, check_cut
from rqmem.sources.kinds import imported, kind_of
from rqmem.sources.sql_queries import Key, KeyRange, Queries

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session, sessionmaker


class SqlRows(Cuttable[Any]):
    """The rows of a SQLAlchemy selectable (here) or of a plain query (`SqlRows.dbapi`), by key.

    A select of one thing (a mapped class, a single column) gives it; of several, rows. Objects are detached: load what
    you need of their relations with ``selectinload``. The cursor is the key of the last row, as JSON.

    To hand slices to child jobs, have a function make the source, and name that: `SqlRows.from_factory`.

    Args:
        database: an engine or a sessionmaker; made after the fork, since a connection belongs to one process.
        selectable: a mapped class, a table, or a select of whatever kind.
        key: the names of the columns or attributes that order the rows: unique and never NULL, both together an index.
            By default the primary key.
        page_size: rows per query; a page is in memory at a time.
        count: ``"estimate"`` asks PostgreSQL's planner how many rows there are, which is quick and rough; other
            databases count.

    Raises:
        ConfigError: an argument cannot be used.
        SourceError: SQLAlchemy is not installed, or the selectable has no such key; nothing has been run then. While
            reading: a key is NULL or comes twice, or its type has no JSON (`rqmem.sources.typed_json`).
    """

    def __init__(
        self,
        database: Engine | sessionmaker[Session],
        selectable: Any,
        *,
        key: str | tuple[str, ...] | None = None,
        page_size: int = 500,
        count: Literal["exact", "estimate"] = "exact",
    ) -> None:
        try:
            from rqmem.sources.sql_selectable import SelectableQueries
        except ImportError as error:
            raise SourceError(f"SqlRows needs SQLAlchemy 2 ({error}): pip install 'rqmem[db]'") from error
        if count not in ("exact", "estimate"):
            raise ConfigError(f"SqlRows: count is {count!r}: give 'exact' or 'estimate'")
        self._set_up(SelectableQueries(database, selectable, _names(key)), page_size, count)

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
    ) -> SqlRows:
        """The rows of a plain query on a DB-API driver, as the driver gives them.

        Args:
            connect: gives a connection, which is closed after each query: a pool's, where connecting takes long.
            query: a SELECT without ORDER BY. The database must know LIMIT (PostgreSQL, SQLite, MySQL, MariaDB).
            key: as in `SqlRows`; columns of the result.
            parameters: of the query.
            paramstyle: the driver's (``module.paramstyle``). With format and pyformat each % of the query is doubled.
            page_size: rows per query.
        """
        from rqmem.sources.sql_dbapi import DbapiQueries

        rows = cls.__new__(cls)
        rows._set_up(DbapiQueries(connect, query, _names(key) or (), parameters, paramstyle), page_size, "exact")
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
        self._factory: dict[str, Any] | None = None

    def items_after(self, cursor: Cursor) -> Iterator[tuple[Any, Cursor]]:
        return self._items(KeyRange(self._key_of(cursor), self._keys.upto), fresh=cursor is None)

    def _items(self, keys: KeyRange, *, fresh: bool) -> Iterator[tuple[Any, Cursor]]:
        if fresh:
            self._refuse_nulls()
        while True:
            # One row more than a page: it says whether there is a next, and whether that begins with the same key.
            rows = self._queries.page(keys, self._page_size + 1)
            self._check(rows)
            for item, key in rows[: self._page_size]:
                yield item, self._cursor(key)
            if len(rows) <= self._page_size:
                return
            keys = KeyRange(rows[self._page_size - 1][1], keys.upto)

    def count(self) -> Count:
        return self._queries.count(self._keys, self._how)

    def slices(self, items_per_slice: int | None = None, *, parts: int | None = None) -> Iterator[SqlRows]:
        """As `Cuttable.slices`: exactly so many rows each, as of now. A short query a slice, along the key's index."""
        check_cut(items_per_slice, parts)
        return self._walk(items_per_slice, parts)

    def _walk(self, size: int | None, most: int | None) -> Iterator[SqlRows]:
        self._refuse_nulls()
        if size is None:
            size = -(-(self._queries.count(self._keys, "exact").items or 0) // (most or 1))
        left, made = self._keys, 0
        while True:
            ends = made + 1 == most  # rows may have come since they were counted
            upto = self._queries.last_key(left) if ends else self._queries.nth_key(left, max(1, size))
            if upto is None:
                return
            self._check_key(upto)
            yield self._between(KeyRange(left.after, upto))
            left, made = KeyRange(upto, left.upto), made + 1
            if ends:
                return

    def rest(self, cursor: Cursor) -> SqlRows:
        return self._between(KeyRange(self._key_of(cursor), self._keys.upto))

    def beyond(self, piece: SqlRows) -> SqlRows:
        if piece._keys.upto is None:
            raise SourceError("beyond: that SqlRows has no end, so it is no slice")
        return self._between(KeyRange(piece._keys.upto, self._keys.upto))

    def begins_at(self) -> str:
        first = next(iter(self._queries.page(self._keys, 1)), None)
        if first is None:
            return ""
        return ", ".join(f"{name} {value!r:.80}" for name, value in zip(self._queries.key, first[1], strict=True))

    def describe(self) -> dict[str, Any]:
        if self._factory is None:
            raise SourceError(
                "a slice of an SqlRows cannot be sent to a child job: a query is code, and a database's address a "
                "secret; have a function make it, and use SqlRows.from_factory('your.module:function', ...)"
            )
        bounds = {
            name: None if key is None else self._cursor(key)
            for name, key in (("after", self._keys.after), ("upto", self._keys.upto))
        }
        return {"kind": kind_of(type(self)), **self._factory, **bounds}

    @classmethod
    def from_description(cls, fields: dict[str, Any]) -> SqlRows:
        rows = cls.from_factory(fields["factory"], **typed_json.decode(fields["kwargs"]))
        return rows._between(KeyRange(rows._key_of(fields["after"]), rows._key_of(fields["upto"], "bound")))

    def _between(self, keys: KeyRange) -> SqlRows:
        piece = copy(self)
        piece._keys = keys
        return piece

    def _cursor(self, key: Key) -> list[Any]:
        try:
            return [typed_json.encode(value) for value in key]
        except SourceError as error:
            raise SourceError(f"key ({', '.join(self._queries.key)}): {error}") from None

    def _key_of(self, cursor: Cursor, what: str = "cursor") -> Key | None:
        if cursor is None:
            return self._keys.after if what == "cursor" else None
        if not isinstance(cursor, list) or len(cursor) != len(self._queries.key) or None in cursor:
            raise SourceError(f"{what} {cursor!r:.100} is no list of ({', '.join(self._queries.key)})")
        return tuple(typed_json.decode(value) for value in cursor)

    def _check(self, rows: list[tuple[Any, Key]]) -> None:
        before: Key | None = None
        for _, key in rows:
            self._check_key(key)
            if key == before:
                raise SourceError(
                    f"key ({', '.join(self._queries.key)}) is not unique: {key!r:.200} comes twice; name columns that "
                    "together are, or rows would be lost between pages"
                )
            before = key

    def _check_key(self, key: Key) -> None:
        if None in key:
            raise self._null(self._queries.key[key.index(None)])

    def _refuse_nulls(self) -> None:
        """NULL is neither before nor after a key, so a database would leave such rows out in silence."""
        if self._keys == KeyRange():
            name = self._queries.null_in_key()
            if name is not None:
                raise self._null(name)

    def _null(self, name: str) -> SourceError:
        return SourceError(f"key column {name!r} is NULL in some rows: name a key that never is, or select the others")


def _names(key: str | tuple[str, ...] | None) -> tuple[str, ...] | None:
    names = (key,) if isinstance(key, str) else key
    if names is not None and not (isinstance(names, tuple | list) and names and all(type(n) is str for n in names)):
        raise ConfigError(f"SqlRows: key is {key!r}: give the name of a column, or a tuple of names")
    return None if names is None else tuple(names)
