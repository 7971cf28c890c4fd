"""CSV files as a source, read by the csv module and cut at the beginning of records."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, fields
from operator import methodcaller
from typing import Any, Literal

from rqmem.errors import ConfigError, SourceError
from rqmem.sources import csv_cuts
from rqmem.sources.contract import check_whole
from rqmem.sources.encodings import check_encoding, codec_of
from rqmem.sources.files import LONGEST_RECORD_BYTES, FileSource, check_errors
from rqmem.sources.open_file import OpenFile, first_line_end, lines
from rqmem.values import dataclass

_WINDOW_BYTES, _LARGEST_WINDOW_BYTES = 4 * 1024, 16 * 2**20
_LONGEST_FIELD = 10**6  # characters, where a program set csv.field_size_limit to more
_LINE_END = re.compile(rb"\r\n?|\n")


@dataclass(frozen=True)
class CsvFormat:
    """How a file is written: the csv module's names and defaults, and ours. Checked when made."""

    delimiter: str = ","
    quotechar: str | None = '"'
    escapechar: str | None = None
    doublequote: bool = True
    skipinitialspace: bool = False
    encoding: str = "utf-8"
    has_header: bool = True
    cut_by: Literal["quotes", "lines", "parsing"] = "quotes"
    longest_record: int = LONGEST_RECORD_BYTES
    errors: str = "strict"

    def __post_init__(self) -> None:
        for name, value in (
            ("delimiter", self.delimiter), ("quotechar", self.quotechar), ("escapechar", self.escapechar)
        ):  # fmt: skip
            if value is None and name != "delimiter":
                continue
            if not (isinstance(value, str) and len(value) == 1 and value.isascii() and value not in "\r\n"):
                raise ConfigError(f"CsvFile: {name} is {value!r}: give one ASCII character")
        if self.delimiter in (self.quotechar, self.escapechar):
            raise ConfigError(f"CsvFile: delimiter {self.delimiter!r} is the quote or the escape as well")
        if self.cut_by not in ("quotes", "lines", "parsing"):
            raise ConfigError(f"CsvFile: cut_by is {self.cut_by!r}: give 'quotes', 'lines' or 'parsing'")
        check_whole(self.longest_record, "CsvFile: longest_record")
        check_errors(self.errors, "CsvFile")
        special = f"\r\n{self.delimiter}{self.quotechar or ''}{self.escapechar or ''}"
        check_encoding(self.encoding, special, "CsvFile")

    @property
    def codec(self) -> str:
        """The encoding, without a byte order mark: that one is skipped where the file begins."""
        return codec_of(self.encoding)

    def reader_options(self) -> dict[str, Any]:
        names = ("delimiter", "quotechar", "escapechar", "doublequote", "skipinitialspace")
        quoting = csv.QUOTE_NONE if self.quotechar is None else csv.QUOTE_MINIMAL
        return {**{name: getattr(self, name) for name in names}, "quoting": quoting}

    @property
    def effective_cut(self) -> str:
        """How cuts are found: by quotes only if they are escaped by doubling them, as in RFC 4180."""
        if self.quotechar is None and self.escapechar is None:
            return "lines"
        plain = self.escapechar is None and self.doublequote and not self.skipinitialspace
        return self.cut_by if plain or self.cut_by != "quotes" else "parsing"


class CsvFile(FileSource[Any]):
    """The records of a CSV file: dicts by the header's names, as `csv.DictReader` gives them; lists without a header.

    Empty lines are no records; a byte order mark is skipped. See `rqmem.sources.files` for cursors and changed files.

    Args:
        path: of the file; every worker that gets a slice must see the same file there.
        delimiter, quotechar, escapechar, doublequote, skipinitialspace: as the csv module has them.
        encoding: any in which ASCII characters are single bytes with no other meaning: UTF-8, Latin-1, cp1252,
            EUC; not UTF-16.
        has_header: whether the first record names the fields.
        cut_by: how the beginning of a record is found in the middle of the file.

            - ``"quotes"``: by the quotes near each cut; what lies between is not read. Sure for files as RFC 4180 has
              them, which all common writers make (where a program raised `csv.field_size_limit`: and with no field
              of more than a million characters that has no quote in it). Where the quotes contradict that, what lies
              before is parsed; with ``escapechar``, ``doublequote=False`` or ``skipinitialspace`` it always is.
            - ``"lines"``: at any line end. For files that surely have none within quotes.
            - ``"parsing"``: everything before a cut is parsed, so it is right for whatever the csv module reads; about
              as slow as reading the file.

            A wrong cut never goes unnoticed: the slice before it ends within a record, which is a `SourceError`.
        longest_record: in bytes; a longer one is an error before it is parsed, since as objects it may be 25 times so
            large.
        errors: what becomes of bytes that are not of the encoding: ``"strict"`` is an error that names the byte,
            ``"replace"`` puts a replacement character there, ``"surrogateescape"`` keeps the byte so that encoding
            gives it back, ``"backslashreplace"`` writes it out, ``"ignore"`` drops it.
        identity: an ETag or a version of the file, if you have one. By default the contents decide whether a file that
            is opened again is the same one.

    Raises:
        ConfigError: an argument cannot be used.
        SourceError: the file cannot be read; while reading: it is no CSV, a record is too long, its bytes are not
            of that encoding, it has changed, or a cut was wrong. The byte is named.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        delimiter: str = ",",
        quotechar: str | None = '"',
        escapechar: str | None = None,
        doublequote: bool = True,
        skipinitialspace: bool = False,
        encoding: str = "utf-8",
        has_header: bool = True,
        cut_by: Literal["quotes", "lines", "parsing"] = "quotes",
        longest_record: int = LONGEST_RECORD_BYTES,
        errors: str = "strict",
        identity: str | None = None,
    ) -> None:
        self._format = CsvFormat(
            *(delimiter, quotechar, escapechar, doublequote, skipinitialspace, encoding, has_header, cut_by),
            longest_record=longest_record, errors=errors,
        )  # fmt: skip
        super().__init__(path, identity)
        self._names: list[str] | None = None
        if has_header:
            with self._opened(self._seen) as file:
                header = next(self._rows(file, self._begin, self._end), None)
            self._names, self._begin = header if header is not None else ([], self._end)

    def _options(self) -> dict[str, Any]:
        defaults = {each.name: each.default for each in fields(CsvFormat)}
        return {name: value for name, value in asdict(self._format).items() if value != defaults[name]}

    def _records(self, file: OpenFile, begin: int, end: int) -> Iterator[tuple[Any, int]]:
        names = self._names
        if names is None:
            return self._rows(file, begin, end)
        return ((_named(names, row), offset) for row, offset in self._rows(file, begin, end))

    def _rows(self, file: OpenFile, begin: int, end: int) -> Iterator[tuple[list[str], int]]:
        encoding, errors, longest = self._format.codec, self._format.errors, self._format.longest_record
        start, offset, within_record = begin, begin, False

        def texts() -> Iterator[str]:
            """Lines for the csv module, which asks for one at a time, so ``offset`` is always after what it has."""
            nonlocal offset, within_record
            for line in lines(file, begin, end, methodcaller("splitlines", True), (b"\n", b"\r"), longest):
                if offset + len(line) - start > longest:
                    raise self._too_long(start, longest)
                text = self._decoded(line, offset, encoding, errors)
                offset += len(line)
                within_record = True
                yield text
            if within_record and end < self._seen.size:
                raise SourceError(
                    f"{self._path}: byte {end:,}: the cut here lies within a record, for the file's quotes are not "
                    "those of RFC 4180: cut it again with cut_by='parsing'"
                )

        rows = csv.reader(texts(), **self._format.reader_options())
        while True:
            within_record = False
            start = offset
            try:
                row = next(rows, None)
            except csv.Error as error:
                hint = "; csv.field_size_limit(...) sets it" if "field limit" in str(error) else ""
                raise SourceError(f"{self._path}: record at byte {start:,}: {error}{hint}") from None
            if row is None:
                return
            if row:
                yield row, offset

    def _record_start(self, file: OpenFile, known: int, target: int) -> int:
        how = self._format.effective_cut
        if how == "lines":
            return first_line_end(file, target - 1, self._end, _LINE_END)
        if how == "quotes":
            try:
                return self._start_by_quotes(file, target - 1)
            except csv_cuts.Undecided:
                pass  # parse what lies before
        return next((offset for _, offset in self._rows(file, known, self._end) if offset >= target), self._end)

    def _start_by_quotes(self, file: OpenFile, offset: int) -> int:
        quoting = csv_cuts.Quoting.of(self._format.delimiter, self._format.quotechar or "")
        longest, size = min(csv.field_size_limit(), _LONGEST_FIELD), _WINDOW_BYTES
        while size <= _LARGEST_WINDOW_BYTES:
            data = file.read(offset, size)
            at_end = offset + len(data) >= self._seen.size
            start = csv_cuts.record_start(
                data, quoting, at_end=at_end, longest_field=longest, encoding=self._format.codec
            )
            if start is not None:
                return offset + start
            # Where the first quotes do not decide, those of a whole field do.
            size = max(4 * size, longest + longest // 8) if size < longest else 4 * size
        raise csv_cuts.Undecided


def _named(names: list[str], row: list[str]) -> dict[Any, Any]:
    """As `csv.DictReader`: missing fields are None, and additional ones are a list under the key None."""
    record: dict[Any, Any] = dict(zip(names, row, strict=False))
    if len(row) > len(names):
        record[None] = row[len(names) :]
    for name in names[len(row) :]:
        record[name] = None
    return record
