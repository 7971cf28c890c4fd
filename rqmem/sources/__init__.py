"""Inputs that can be counted, cut into slices, and read from a cursor.

A source yields its items in a fixed order, each with the cursor *after* it: a JSON value from which a later run, in
another process on another machine, goes on with the next item. Cut into slices, each described as JSON, it is spread
over child jobs without being read into memory.

`Sequence`, `Range`, `CsvFile`, `JsonLines`, `SqlRows` and `Concat` are the ones that rqmem has; `contract` says what
to write for one's own: `items_after` is enough to be processed in chunks and resumed. Reading order: `contract`,
`wrapping`, `sequence`, `range`, `concat`; `kinds`, `typed_json` (slices as JSON); `fingerprint`, `open_file`, `files`,
`csv_cuts` (where a CSV file can be cut), `csv_file`, `json_lines`; `sql_rows`, `sql_queries`, `sql_selectable`,
`sql_dbapi`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rqmem.sources.contract import Count, Cursor, Cuttable, Source, even_bounds
from rqmem.sources.kinds import describe_slice, open_slice
from rqmem.sources.range import Range
from rqmem.sources.sequence import Positional, Sequence
from rqmem.sources.wrapping import as_source, slices_of

if TYPE_CHECKING:
    from rqmem.sources.concat import Concat
    from rqmem.sources.csv_file import CsvFile
    from rqmem.sources.json_lines import JsonLines
    from rqmem.sources.sql_rows import SqlRows

__all__ = [
    "Concat",
    "Count",
    "CsvFile",
    "Cursor",
    "Cuttable",
    "JsonLines",
    "Positional",
    "Range",
    "Sequence",
    "Source",
    "SqlRows",
    "as_source",
    "describe_slice",
    "even_bounds",
    "open_slice",
    "slices_of",
]

_HOMES = {"Concat": "concat", "CsvFile": "csv_file", "JsonLines": "json_lines", "SqlRows": "sql_rows"}


def __getattr__(name: str) -> Any:
    """The sources that not every job needs, each imported when first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rqmem.sources' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"rqmem.sources.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
