"""The names by which a slice's JSON names its class.

rqmem's own kinds of source have short names (`KINDS`). A class of yours is named by ``module:Class``. The worker
imports it as it imports jobs, so the class must be defined at the top level of a module that the worker can import.
"""

from __future__ import annotations

import json
from typing import Any

from rqmem import named_code
from rqmem.errors import ConfigError, SourceError
from rqmem.sources.contract import Source, lacks
from rqmem.text import did_you_mean

# Slices in Redis name their class by these: neither a name nor a path may change.
KINDS = {
    "sequence": "rqmem.sources.sequence:Sequence",
    "range": "rqmem.sources.range:Range",
    "csv": "rqmem.sources.csv_file:CsvFile",
    "json-lines": "rqmem.sources.json_lines:JsonLines",
    "sql": "rqmem.sources.sql_rows:SqlRows",
    "concat": "rqmem.sources.concat:Concat",
}
_NAMES = {path: name for name, path in KINDS.items()}


def describe_slice(source: Source[Any]) -> dict[str, Any]:
    """``source`` as JSON that `rqmem.sources.open_slice` opens again.

    Raises:
        SourceError: the source has no ``describe``, what it returned is no JSON, or its class cannot be imported.
    """
    describe = getattr(source, "describe", None)
    if describe is None:
        raise lacks(source, "describe")
    fields, name = describe(), type(source).__qualname__
    try:
        if not isinstance(fields, dict):
            raise TypeError("it is no dict")
        json.dumps(fields, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SourceError(f"{name}.describe() returned {fields!r:.200}, which cannot be sent: {error}") from None
    return fields if "kind" in fields else {"kind": kind_of(type(source)), **fields}


def kind_of(cls: type) -> str:
    """The name by which ``cls`` is found again. Raises `SourceError` where a worker could not import it."""
    path = f"{cls.__module__}:{cls.__qualname__}"
    if path in _NAMES:
        return _NAMES[path]
    if cls.__module__ == "__main__" or imported(path) is not cls:
        raise SourceError(f"{path} cannot be imported by a worker: define the class at the top level of a module")
    return path


def imported(path: str) -> Any:
    """Import the object at ``module:name``; the name may have dots. Raises `SourceError`."""
    try:
        return named_code.attribute(path.replace(":", "."), path)
    except ConfigError as error:
        raise SourceError(str(error)) from error


def class_of(kind: str) -> Any:
    """The class that `kind_of` has named so. Raises `SourceError`."""
    if ":" in kind:
        return imported(kind)
    if kind not in KINDS:
        hint = did_you_mean(kind, KINDS, f"rqmem knows {', '.join(KINDS)}, and module:Class")
        raise SourceError(f"no source is called {kind!r}: {hint}")
    return imported(KINDS[kind])
