"""Writes streams of rows to tables and CSV files. A run that is cut off anywhere can be resumed.

A stream is a function of (seed, count, start): the rows from ``start`` on, the same whenever they are asked for. So it
is enough to know how many are there (`seeds.ledger`). Memory is that of one batch, whatever is written.
"""

from __future__ import annotations

import csv
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO, StringIO
from pathlib import Path
from typing import Any

from sqlalchemy import Table, func, insert, literal, select
from sqlalchemy.engine import Connection, Engine

from rqmem.errors import ConfigError
from rqmem.units import MB
from seeds import ledger
from seeds.ledger import Entry

Row = Mapping[str, Any]
Rows = Callable[[int, int, int], Iterator[Row]]
"""Seed, count and start to rows."""

OnBatch = Callable[[int], object]
"""Called with the number of rows after each batch that is committed."""

BATCH_ROWS = 2_000
BATCH_BYTES = 4 * MB  # of text: a batch of long transcripts is a short one


@dataclass(frozen=True)
class TablePart:
    """A part of the dataset that goes to a table. Subclasses say more where its rows belong to another row."""

    name: str
    table: Table
    rows: Rows

    def begin(self, connection: Connection, seed: int, count: int) -> int:
        """Called once, before the first row; the id of the row that all belong to, 0 for none."""
        return 0

    @property
    def key(self) -> str:
        """In the ledger."""
        return self.name

    def is_there(self, connection: Connection, entry: Entry) -> bool:
        """Whether the rows that were written are still there."""
        return entry.done == 0 or connection.execute(select(literal(1)).select_from(self.table).limit(1)).scalar() == 1

    def reopen(self, connection: Connection, owner_id: int) -> None:
        """Called before more rows are written. Raises `RqmemError` when that must not be."""

    def finish(self, connection: Connection, owner_id: int) -> None:
        """Called when all rows are there; may be called again."""

    def values(self, row: Row, owner_id: int) -> Row:
        """The row as the table takes it."""
        return row


@dataclass(frozen=True)
class FilePart:
    """A part of the dataset that goes to a CSV file, UTF-8. Until it is whole the file's name ends in ``.part``."""

    name: str
    path: Path
    columns: Sequence[str]
    rows: Rows

    @property
    def part_path(self) -> Path:
        return self.path.with_name(self.path.name + ".part")

    @property
    def key(self) -> str:
        """In the ledger: another path is another file."""
        return f"{self.name} in {self.path.absolute()}"


def fill_table(engine: Engine, part: TablePart, seed: int, count: int, on_batch: OnBatch) -> None:
    """Write what is missing of the first ``count`` rows. Raises `RqmemError`, and SQLAlchemy's errors."""
    entry = _entered(engine, part, seed, count)
    if entry.done < count:
        with engine.begin() as connection:
            part.reopen(connection, entry.owner_id)
    for batch in batches(part.rows(seed, max(0, count - entry.done), entry.done)):
        with engine.begin() as connection:
            entry = ledger.advance(connection, entry, entry.done + len(batch))
            connection.execute(insert(part.table), [dict(part.values(row, entry.owner_id)) for row in batch])
            _move_sequence(connection, part.table, batch)
        on_batch(len(batch))
    with engine.begin() as connection:
        part.finish(connection, entry.owner_id)


def _entered(engine: Engine, part: TablePart, seed: int, count: int) -> Entry:
    """The part's entry, made where there is none, or where its rows have been cleared away."""
    with engine.begin() as connection:
        entry = ledger.read(connection, part.name)
        if entry is not None and part.is_there(connection, entry):
            return entry
        ledger.forget(connection, part.name)
        entry = Entry(part.name, seed, owner_id=part.begin(connection, seed, count))
        ledger.begin(connection, entry)
        return entry


def _move_sequence(connection: Connection, table: Table, batch: Sequence[Row]) -> None:
    """Have PostgreSQL number new rows after those whose numbers were given; SQLite does so by itself."""
    key = table.autoincrement_column
    if connection.dialect.name == "postgresql" and key is not None and key.name in batch[-1]:
        sequence = func.pg_get_serial_sequence(table.name, key.name)
        connection.execute(select(func.setval(sequence, max(row[key.name] for row in batch))))


def fill_file(engine: Engine, part: FilePart, seed: int, count: int, on_batch: OnBatch) -> None:
    """The same for a file. Raises `RqmemError`, `OSError`, and SQLAlchemy's errors."""
    refuse_what_is_not_ours(engine, part)
    with engine.begin() as connection:
        if ledger.read(connection, part.key) is None:
            ledger.begin(connection, Entry(part.key, seed))
    with _locked(part) as file:
        with engine.begin() as connection:
            entry = ledger.read(connection, part.key) or Entry(part.key, seed)
            if os.fstat(file.fileno()).st_size < entry.size_bytes:  # it is gone, or was cut
                entry = ledger.advance(connection, entry, 0)
        here = Path(file.name)
        if here == part.path and entry.done >= count:
            return
        here.replace(part.part_path)
        file.truncate(entry.size_bytes)  # what was written and not counted
        _append(engine, part, entry, file, seed, count, on_batch)
        part.part_path.replace(part.path)


@contextmanager
def _locked(part: FilePart) -> Iterator[FileIO]:
    """The file, as far as it is, for us alone. Raises `RqmemError` when another run has it."""
    whole = part.path.exists() and not part.part_path.exists()
    with (part.path if whole else part.part_path).open("ab", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(file.fileno()), Path(file.name).stat()):
                raise ledger.taken(part.name)
        except (BlockingIOError, FileNotFoundError):
            raise ledger.taken(part.name) from None
        yield file


def _append(
    engine: Engine, part: FilePart, entry: Entry, file: FileIO, seed: int, count: int, on_batch: OnBatch
) -> None:
    header: list[Sequence[Any]] = [] if entry.done else [part.columns]
    for batch in batches(part.rows(seed, max(0, count - entry.done), entry.done)):
        lines = memoryview(_lines([*header, *([row[column] for column in part.columns] for row in batch)]))
        header = []
        try:
            while lines:
                lines = lines[file.write(lines) :]
            os.fsync(file.fileno())
        except OSError as error:  # which does not say of which file it is
            raise OSError(error.errno, error.strerror, file.name) from None
        with engine.begin() as connection:
            entry = ledger.advance(connection, entry, entry.done + len(batch), file.tell())
        on_batch(len(batch))


def _lines(rows: Iterable[Sequence[Any]]) -> bytes:
    text = StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def refuse_what_is_not_ours(engine: Engine, part: FilePart) -> None:
    """Raise `ConfigError` if the part's file exists and the ledger does not know it."""
    with engine.connect() as connection:
        if ledger.read(connection, part.key) is not None:
            return
    for path in (part.path, part.part_path):
        if path.exists():
            raise ConfigError(
                f"{path} is there, and this database knows nothing of it: move it, or give another --folder"
            )


def batches(rows: Iterable[Row], most_rows: int | None = None) -> Iterator[list[Row]]:
    """Rows by the batch: ``most_rows`` (`BATCH_ROWS`) or `BATCH_BYTES` of text, whichever is reached first."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(batch) >= (most_rows or BATCH_ROWS) or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
