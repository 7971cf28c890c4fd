"""Inputs that can be counted, cut into slices, and read from a cursor.

A source yields its items in a fixed order, each with the cursor *after* it: a JSON value from which a later run, in
another process on another machine, goes on with the next item. Cut into slices, each described as JSON, it is spread
over child jobs without being read into memory.

`Sequence`, `Range`, `CsvFile`, `JsonLines`, `SqlRows` and `Concat` come with rqmem. `contract` says how to write your
own: `items_after` is enough to be processed in chunks and resumed. Reading order: `contract`, `naming` (slices as
JSON), `typed_json`, `sequence`, `range`, `registry`, `concat`; `fingerprint`, `open_file`, `files`, `csv_cuts` (where a
CSV file can be cut), `csv_file`, `json_lines`; `sql_queries`, `sql_selectable`, `sql_dbapi`, `sql_rows`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rqmem.sources.contract import Count, Cursor, Cuttable, Source, even_bounds
from rqmem.sources.naming import KINDS, describe_slice, imported
from rqmem.sources.range import Range
from rqmem.sources.registry import as_source, open_slice, slices_of
from rqmem.sources.sequence import Positional, Sequence

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

_PATHS = {path.partition(":")[2]: path for path in KINDS.values()}


def __getattr__(name: str) -> Any:
    """Import a source when it is first used: not every job needs each."""
    if name not in _PATHS:
        raise AttributeError(f"module 'rqmem.sources' has no attribute {name!r}")
    value = globals()[name] = imported(_PATHS[name])
    return value
