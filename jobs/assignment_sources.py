"""Where assignments come from: a file of CSV or of JSON lines, or a batch of requests in the database.

A file is checked as a whole first, which takes little time. So a file with a broken encoding, a line of many megabytes
or other columns changes nothing, even if child jobs would already have begun with other parts of it.
"""

from __future__ import annotations

import codecs
import csv
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import select

from jobs.sources import shared_sessions
from jobs.tables import AssignmentRequest
from rqmem.errors import ConfigError
from rqmem.sources import Count, CsvFile, Cursor, Cuttable, JsonLines, SqlRows, describe_slice, open_slice

COLUMNS = ("staff", "event_type", "role")
NEEDED = COLUMNS[:2]
LONGEST_LINE_BYTES = 64 * 1024
_BLOCK_BYTES = 256 * 1024

Numbered = tuple[int, Any]


class Positioned(Cuttable[Numbered]):
    """A source whose items come with their position in the whole input, the same however it is cut.

    The position is the first part of the cursor: of a file the byte after the record, of a query the id.
    """

    def __init__(self, source: Cuttable[Any]) -> None:
        self._source = source

    def items_after(self, cursor: Cursor) -> Iterator[tuple[Numbered, Cursor]]:
        for item, after in self._source.items_after(cursor):
            yield (after[0], item), after

    def count(self) -> Count:
        return self._source.count()

    def slices(self, items_per_slice: int | None = None, *, parts: int | None = None) -> Iterator[Positioned]:
        return (Positioned(each) for each in self._source.slices(items_per_slice, parts=parts))

    def rest(self, cursor: Cursor) -> Positioned:
        return Positioned(self._source.rest(cursor))

    def beyond(self, piece: Positioned) -> Positioned:
        return Positioned(self._source.beyond(piece._source))

    def describe(self) -> dict[str, Any]:
        return {"source": describe_slice(self._source)}

    @classmethod
    def from_description(cls, fields: dict[str, Any]) -> Positioned:
        return cls(open_slice(fields["source"]))


def assignments_from(path: str | None, batch: str | None) -> Positioned:
    """The lines of that file, or the requests of that batch.

    Raises:
        ConfigError: neither or both are named, the file cannot be one of assignments, or the batch is empty.
        SourceError: the file cannot be read.
    """
    if path is None and batch is not None:
        source = Positioned(SqlRows.from_factory("jobs.assignment_sources:requests", batch=batch))
        if source.count() == Count.exact(0):
            raise ConfigError(f"there are no requests of a batch {batch!r}")
        return source
    if path is None or batch is not None:
        raise ConfigError("which assignments? give either path, of a file, or batch, of requests in the database")
    suffix = Path(path).suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        lines = JsonLines(path)
        look_through(path)
        return Positioned(lines)
    if suffix != ".csv":
        raise ConfigError(f"{path}: give a file of CSV (.csv) or of JSON lines (.jsonl)")
    look_through(path)
    check_columns(path)
    return Positioned(CsvFile(path))


def requests(batch: str) -> SqlRows:
    """The requests of that batch, as made in each process that reads some of them."""
    columns = (AssignmentRequest.id, AssignmentRequest.staff, AssignmentRequest.event_type, AssignmentRequest.role)
    return SqlRows(shared_sessions(), select(*columns).where(AssignmentRequest.batch == batch), key="id")


def look_through(path: str) -> None:
    """Raise `ConfigError` for bytes that are not UTF-8 and lines that are too long. A block is in memory at a time."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = line_begins = 0
    try:
        with Path(path).open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                pending = len(decoder.getstate()[0])
                try:
                    decoder.decode(block)
                except UnicodeDecodeError as error:
                    where = offset - pending + error.start
                    raise ConfigError(f"{path}: byte {where:,} is not UTF-8: save the file as UTF-8") from None
                for part in block.splitlines(keepends=True):
                    offset += len(part)
                    if offset - line_begins > LONGEST_LINE_BYTES:
                        raise ConfigError(
                            f"{path}: the line that begins at byte {line_begins:,} is longer than "
                            f"{LONGEST_LINE_BYTES // 1024} KB, so this is no file of assignments, or a broken one"
                        )
                    if part.endswith((b"\n", b"\r")):
                        line_begins = offset
            decoder.decode(b"", final=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: it ends within a character: it was cut off, or is not UTF-8") from None


def check_columns(path: str) -> None:
    """Raise `ConfigError` unless the first record names the columns that are needed, each once."""
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        try:
            names = next((row for row in csv.reader(file) if row), [])
        except csv.Error as error:
            raise ConfigError(f"{path}: its first record is no CSV: {error}") from None
    twice = [name for name in COLUMNS if names.count(name) > 1]
    if twice:
        raise ConfigError(f"{path}: two columns are called {twice[0]!r}: which one counts? Rename the other")
    missing = [name for name in NEEDED if name not in names]
    if not missing:
        return
    shown = ", ".join(repr(name[:40]) for name in names[:8]) or "none"
    near = difflib.get_close_matches(missing[0], names, n=1)
    hint = f"rename {near[0]!r} to {missing[0]!r}" if near else f"the first line must name {', '.join(NEEDED)}"
    raise ConfigError(f"{path}: no column {missing[0]!r} among its columns ({shown}): {hint}")
