"""Where assignments come from: a file of CSV or of JSON lines, or a batch of requests in the database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import select

from jobs.csv_files import check_columns
from jobs.sources import shared_sessions
from jobs.tables import AssignmentRequest
from rqmem.errors import ConfigError
from rqmem.sources import Count, CsvFile, Cursor, Cuttable, JsonLines, SqlRows, describe_slice, open_slice

LONGEST_LINE_BYTES = 64 * 1024

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
        return Positioned(JsonLines(path, longest_record=LONGEST_LINE_BYTES))
    if suffix != ".csv":
        raise ConfigError(f"{path}: give a file of CSV (.csv) or of JSON lines (.jsonl)")
    check_columns(path, ("staff", "event_type"), ("role",))
    return Positioned(CsvFile(path, longest_record=LONGEST_LINE_BYTES))


def requests(batch: str) -> SqlRows:
    """The requests of that batch, as made in each process that reads some of them."""
    columns = (AssignmentRequest.id, AssignmentRequest.staff, AssignmentRequest.event_type, AssignmentRequest.role)
    return SqlRows(shared_sessions(), select(*columns).where(AssignmentRequest.batch == batch), key="id")
