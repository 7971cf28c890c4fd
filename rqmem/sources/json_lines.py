"""JSON Lines as a source: one JSON value a line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

from rqmem.errors import SourceError
from rqmem.sources.contract import check_whole
from rqmem.sources.encodings import check_encoding, codec_of
from rqmem.sources.files import LONGEST_RECORD_BYTES, FileSource, check_errors
from rqmem.sources.open_file import OpenFile, first_line_end, lines

_LINE_END = re.compile(rb"\n")


class JsonLines(FileSource[Any]):
    """Each line's value; empty lines are skipped. See `rqmem.sources.files` for cuts, cursors and changed files.

    Args:
        path: of the file; every worker that gets a slice must see the same file there.
        longest_record: in bytes; a longer line is an error before it is parsed.
        encoding: as in `CsvFile`.
        errors: of bytes that are not of the encoding: ``"strict"``, ``"replace"`` and so on, as in `CsvFile`.
        identity: as in `CsvFile`.

    Raises:
        ConfigError: an argument cannot be used.
        SourceError: the file cannot be read, or (while reading) a line is not JSON, not of that encoding, or too long;
            its byte is named.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        longest_record: int = LONGEST_RECORD_BYTES,
        encoding: str = "utf-8",
        errors: str = "strict",
        identity: str | None = None,
    ) -> None:
        check_whole(longest_record, "JsonLines: longest_record")
        check_encoding(encoding, "\n", "JsonLines")
        check_errors(errors, "JsonLines")
        self._longest_record, self._encoding, self._errors = longest_record, encoding, errors
        super().__init__(path, identity)

    def _options(self) -> dict[str, Any]:
        given = {"longest_record": self._longest_record, "encoding": self._encoding, "errors": self._errors}
        defaults = {"longest_record": LONGEST_RECORD_BYTES, "encoding": "utf-8", "errors": "strict"}
        return {name: value for name, value in given.items() if value != defaults[name]}

    def _records(self, file: OpenFile, begin: int, end: int) -> Iterator[tuple[Any, int]]:
        for line in lines(file, begin, end, _split, (b"\n",), self._longest_record):
            start, begin = begin, begin + len(line)
            if len(line) > self._longest_record:
                raise self._too_long(start, self._longest_record)
            if not line.isspace():
                text = self._decoded(line, start, codec_of(self._encoding), self._errors)
                try:
                    value = json.loads(text)
                except (ValueError, RecursionError) as error:
                    raise SourceError(f"{self._path}: byte {start:,}: no line of JSON: {error}") from None
                yield value, begin

    def _record_start(self, file: OpenFile, known: int, target: int) -> int:
        return first_line_end(file, target - 1, self._end, _LINE_END)


def _split(data: bytes) -> list[bytes]:
    """At "\\n" alone: within JSON a "\\r" is a space."""
    *whole, last = data.split(b"\n")
    return [line + b"\n" for line in whole] + ([last] if last else [])
