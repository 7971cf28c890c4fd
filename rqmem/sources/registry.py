"""Turns what people pass to a job into a `Cuttable`: a collection, a source of their own, or a slice's JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as AnySequence
from collections.abc import Set as AnySet
from typing import Any, TypeVar

from rqmem.errors import SourceError
from rqmem.sources.contract import Count, Cursor, Cuttable, Source, lacks
from rqmem.sources.naming import class_of, describe_slice
from rqmem.sources.range import Range
from rqmem.sources.sequence import Positional, Sequence

_QUERY_LIBRARIES = ("django", "sqlalchemy", "peewee", "tortoise", "pymongo", "mongoengine")
"""Iterating what is of these runs a query."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


def as_source(data: Source[T] | Iterable[T], *, must_resume: bool = False) -> Cuttable[T]:
    """``data`` as a source.

    Raises:
        SourceError: ``must_resume`` is set and it cannot be read again in the same order: an iterator, a set, whose
            order is another one in another process, or a query, such as Django's; or it cannot be iterated at all.
    """
    if isinstance(data, Cuttable):
        return data
    if isinstance(data, Source):
        return WrappedSource(data)
    if isinstance(data, range):
        return Range(data.start, data.stop, data.step)  # type: ignore[return-value]
    if isinstance(data, AnySequence):
        return Sequence(data)
    if not isinstance(data, Iterable):
        hint = f": give range({data})" if isinstance(data, int) else ""
        raise SourceError(f"process_in_chunks needs something to iterate or a source, not {type(data).__name__}{hint}")
    if must_resume and isinstance(data, Iterator):
        raise SourceError(
            f"a {type(data).__name__} can be read only once, so a job with on_breach='resume' could not go "
            f"on after a breach: pass a list, a range or a source (rqmem.sources), or set on_breach='fail'"
        )
    if must_resume and isinstance(data, AnySet):
        raise SourceError(f"a {type(data).__name__} has another order in another process: pass sorted(...) of it")
    if must_resume and any(cls.__module__.partition(".")[0] in _QUERY_LIBRARIES for cls in type(data).__mro__):
        raise SourceError(
            f"a {type(data).__name__} is run again when the job goes on, and may be another set then: read it by key "
            "with rqmem.sources.SqlRows (of Django: SqlRows.dbapi with queryset.query.sql_with_params()), or set "
            "on_breach='fail'"
        )
    return Positional(data)


def slices_of(
    data: Source[T] | Iterable[T], items_per_slice: int | None = None, *, parts: int | None = None
) -> Iterator[Cuttable[T]]:
    """The slices of ``data``, as `Cuttable.slices`. Raises `SourceError` where it cannot be cut."""
    return as_source(data).slices(items_per_slice, parts=parts)


def open_slice(description: Any) -> Cuttable[Any]:
    """The slice that ``description`` describes: what its ``describe`` returned, sent as JSON.

    Raises:
        SourceError: it describes none, its class cannot be imported here, or the data are gone or have changed since
            they were cut.
    """
    if not isinstance(description, dict) or not isinstance(description.get("kind"), str):
        raise SourceError(f"{description!r:.200} is no description of a slice: give what describe() returned")
    fields = {name: value for name, value in description.items() if name != "kind"}
    cls = class_of(description["kind"])
    make = getattr(cls, "from_description", None)
    try:
        source = make(fields) if make is not None else cls(**fields)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise SourceError(f"{description!r:.200} does not describe a slice of {cls.__qualname__}: {reason}") from error
    if not isinstance(source, Source):
        raise SourceError(f"{description['kind']} made a {type(source).__name__}, which has no items_after()")
    return as_source(source)


class WrappedSource(Cuttable[T_co]):
    """A source that was written without `Cuttable`. A method that it lacks is an error that names the method."""

    def __init__(self, source: Source[T_co]) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        if name == "_source":  # while it is copied or unpickled
            raise AttributeError(name)
        return getattr(self._source, name)

    def first_cursor(self) -> Cursor:
        return self._call("first_cursor") if hasattr(self._source, "first_cursor") else None

    def items_after(self, cursor: Cursor) -> Iterator[tuple[T_co, Cursor]]:
        return self._source.items_after(cursor)

    def count(self) -> Count:
        count: Count = self._call("count")
        return count

    def slices(self, items_per_slice: int | None = None, *, parts: int | None = None) -> Iterator[Cuttable[T_co]]:
        return (as_source(each) for each in self._call("slices", items_per_slice, parts=parts))

    def rest(self, cursor: Cursor) -> Cuttable[T_co]:
        return as_source(self._call("rest", cursor))

    def beyond(self, piece: Any) -> Cuttable[T_co]:
        return as_source(self._call("beyond", piece._source if isinstance(piece, WrappedSource) else piece))

    def begins_at(self) -> str:
        return str(self._call("begins_at")) if hasattr(self._source, "begins_at") else ""

    def describe(self) -> dict[str, Any]:
        return describe_slice(self._source)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        found = getattr(self._source, method, None)
        if found is None:
            raise lacks(self._source, method)
        return found(*args, **kwargs)
