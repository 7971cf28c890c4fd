"""Files of records as sources: read in blocks from a byte offset, cut by bytes where a record begins.

`FileSource` has all but what a record is, which `CsvFile` and `JsonLines` say. A file is never read into memory: a
block at a time, and as much of a record as it takes to see its end. Its contents must stay as they are from the first
look until the last item is read (`rqmem.sources.fingerprint`): a file that changed, grew, shrank or vanished is a
`SourceChanged`. Bytes that were only appended are no exception: nobody can tell a finished last record from a
half-written one. Let writers finish, then cut.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from copy import copy
from pathlib import Path
from typing import Any, TypeVar

from rqmem.errors import ConfigError, SourceError
from rqmem.sources import file_kinds
from rqmem.sources.contract import Count, Cursor, Cuttable, check_cut, parts_for
from rqmem.sources.fingerprint import Fingerprint
from rqmem.sources.naming import kind_of
from rqmem.sources.open_file import OpenFile, opened

T_co = TypeVar("T_co", covariant=True)

LONGEST_RECORD_BYTES = 2**20  # of many short fields, that is some 25 MB of objects
_COUNTED_BYTES = 2**20  # up to here a count is exact
_SAMPLES, _SAMPLE_BYTES = 16, 64 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
ERRORS = ("strict", "replace", "surrogateescape", "backslashreplace", "ignore")


class FileSource(Cuttable[T_co]):
    """A file of records, or the bytes of it from one record's beginning to another's.

    The cursor is ``[byte offset after the record, records read in this slice, fingerprint of the file]``.
    """

    def __init__(self, path: str | os.PathLike[str], identity: str | None = None) -> None:
        if identity is not None and not (isinstance(identity, str) and identity):
            raise ConfigError(f"identity is {identity!r:.100}: give a text, such as an ETag or a version")
        self._path, self._identity = str(Path(path).absolute()), identity or ""
        with self._opened() as file:
            head = file.read(0, file_kinds.HEAD_BYTES)
            if (what := file_kinds.no_text(head)) is not None:
                raise SourceError(f"{self._path} {what}")
            self._seen = file.seen
            self._begin = len(_BYTE_ORDER_MARK) if head.startswith(_BYTE_ORDER_MARK) else 0
            self._end = file.seen.size

    @abstractmethod
    def _records(self, file: OpenFile, begin: int, end: int) -> Iterator[tuple[T_co, int]]:
        """The records in these bytes, each with the offset after it."""

    @abstractmethod
    def _record_start(self, file: OpenFile, known: int, target: int) -> int:
        """Where the first record begins that begins at ``target`` or later; at ``known``, before it, one does."""

    def _options(self) -> dict[str, Any]:
        """The keyword arguments with which it was made, but for the path."""
        return {}

    def _opened(self, seen: Fingerprint | None = None) -> AbstractContextManager[OpenFile]:
        return opened(self._path, seen, self._identity)

    def _known(self) -> Fingerprint:
        """What the file is, by its contents, which are read once for that."""
        if not self._seen.contents:
            with self._opened(self._seen) as file:
                self._seen = file.with_contents()
        return self._seen

    def items_after(self, cursor: Cursor) -> Iterator[tuple[T_co, Cursor]]:
        return self._items(*self._place(cursor))

    def _items(self, begin: int, number: int) -> Iterator[tuple[T_co, Cursor]]:
        text = self._known().to_text()
        with self._opened(self._seen) as file:
            for item, offset in self._records(file, begin, self._end):
                number += 1
                yield item, [offset, number, text]

    def count(self) -> Count:
        """Exact up to 1 MB, else estimated from samples taken all over the file."""
        span = self._end - self._begin
        with self._opened(self._seen) as file:
            if span <= _COUNTED_BYTES:
                return Count.exact(sum(1 for _ in self._records(file, self._begin, self._end)))
            records = size = 0
            for start in self._sample_starts(file):
                offset = start
                for _, offset in self._records(file, start, self._end):
                    records += 1
                    if offset - start >= _SAMPLE_BYTES:
                        break
                size += offset - start
            return Count.estimated(round(span * records / size) if size else 0)

    def _sample_starts(self, file: OpenFile) -> Iterator[int]:
        yield self._begin
        yield from self._cuts(file, min(_SAMPLES, self._end - self._begin))

    def slices(self, items_per_slice: int | None = None, *, parts: int | None = None) -> Iterator[FileSource[T_co]]:
        """As `Cuttable.slices`; cut evenly by bytes, so ``items_per_slice`` is met about."""
        check_cut(items_per_slice, parts)
        return self._cut(items_per_slice, parts)

    def _cut(self, items_per_slice: int | None, parts: int | None) -> Iterator[FileSource[T_co]]:
        if items_per_slice is not None:
            parts = parts_for(self.count().items or 0, items_per_slice)
        begin, _ = self._begin, self._known()  # the slices take it from here
        with self._opened(self._seen) as file:
            for end in self._cuts(file, min(parts or 1, self._end - begin)):
                yield self._between(begin, end)
                begin = end
        if begin < self._end:
            yield self._between(begin, self._end)

    def _cuts(self, file: OpenFile, parts: int) -> Iterator[int]:
        span, last = self._end - self._begin, self._begin
        for number in range(1, parts):
            target = self._begin + number * span // parts
            if target > last:
                start = self._record_start(file, last, target)
                if start >= self._end:
                    break
                yield start
                last = start
        if last == self._begin and parts > 1:
            yield from self._cut_before_a_large_record(file, span // 2)

    def _cut_before_a_large_record(self, file: OpenFile, reach: int) -> Iterator[int]:
        """No record begins in the second half: look in the first, so that two records can always be parted."""
        while (reach := reach // 2) > 0:
            start = self._record_start(file, self._begin, self._begin + reach)
            if start < self._end:
                yield start
                return

    def rest(self, cursor: Cursor) -> FileSource[T_co]:
        return self._between(self._place(cursor)[0], self._end)

    def beyond(self, piece: FileSource[Any]) -> FileSource[T_co]:
        return self._between(piece._end, self._end)

    def begins_at(self) -> str:
        return f"byte {self._begin:,} of {self._path}"

    def describe(self) -> dict[str, Any]:
        where = {"path": self._path, "seen": self._known().to_text(), "begin": self._begin, "end": self._end}
        named = {"identity": self._identity} if self._identity else {}
        return {"kind": kind_of(type(self)), **where, **named, **self._options()}

    @classmethod
    def from_description(cls, fields: dict[str, Any]) -> FileSource[Any]:
        options = dict(fields)
        path, seen = options.pop("path"), Fingerprint.from_text(options.pop("seen"))
        begin, end = int(options.pop("begin")), int(options.pop("end"))
        with opened(path, seen, options.get("identity", "")) as file:  # before anything in it is believed
            whole = cls(path, **options)
            whole._seen = file.seen
        return whole._between(begin, end)

    def _decoded(self, line: bytes, offset: int, encoding: str, errors: str) -> str:
        """A line, which begins at that offset, as text. Raises `SourceError`, which names the byte."""
        try:
            return line.decode(encoding, errors)
        except UnicodeDecodeError as error:
            where = f"{self._path}: byte {offset + error.start:,}"
            raise SourceError(
                f"{where}: not {encoding} ({error.reason}): name the encoding (encoding='cp1252' reads any Western "
                "file), or give errors='replace' to read on"
            ) from None

    def _too_long(self, start: int, longest: int) -> SourceError:
        return SourceError(
            f"{self._path}: the record at byte {start:,} is longer than {longest:,} bytes: has it lost its line ends? "
            "If not, give a larger longest_record"
        )

    def _between(self, begin: int, end: int) -> FileSource[T_co]:
        piece = copy(self)
        piece._begin, piece._end = begin, end
        return piece

    def _place(self, cursor: Cursor) -> tuple[int, int]:
        """Where to go on, and how many records are read."""
        if cursor is None:
            return self._begin, 0
        if not (isinstance(cursor, list) and len(cursor) == 3 and all(isinstance(n, int) for n in cursor[:2])):
            raise SourceError(
                f"cursor {cursor!r:.100} is none of {self._path}: those are [offset, records, fingerprint]"
            )
        offset, number, text = cursor
        with self._opened(Fingerprint.from_text(text)) as file:
            self._seen = file.seen
        if not self._begin <= offset <= self._end:
            raise SourceError(f"cursor {offset:,} is outside of {self._path} from {self._begin:,} to {self._end:,}")
        return offset, number


def check_errors(errors: Any, whose: str) -> None:
    """Raise `ConfigError` unless it says what becomes of bytes that are not of the encoding."""
    if errors not in ERRORS:
        raise ConfigError(f"{whose}: errors is {errors!r:.100}: give one of {', '.join(map(repr, ERRORS))}")
