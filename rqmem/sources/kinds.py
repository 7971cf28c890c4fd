"""Slices as JSON and back: which class a description belongs to, found by a short name or by its path.

rqmem's own kinds have short names. A class of one's own is named by ``module:Class``, which the worker imports as it
imports jobs: the class must stand at the top of a module that the worker can import.
"""

from __future__ import annotations

import difflib
import json
from importlib import import_module
from typing import Any

from rqmem.errors import SourceError
from rqmem.sources.contract import Cuttable, Source, lacks

KINDS = {
    "sequence": "rqmem.sources.sequence:Sequence",
    "range": "rqmem.sources.range:Range",
    "csv": "rqmem.sources.csv_file:CsvFile",
    "json-lines": "rqmem.sources.json_lines:JsonLines",
    "sql": "rqmem.sources.sql_rows:SqlRows",
    "concat": "rqmem.sources.concat:Concat",
}
_NAMES = {path: name for name, path in KINDS.items()}


def open_slice(description: Any) -> Cuttable[Any]:
    """The slice that ``description`` describes (what its ``describe`` gave, through JSON).

    Raises:
        SourceError: it describes none, its class cannot be imported here, or the data are gone or have changed since
            they were cut.
    """
    from rqmem.sources.wrapping import as_source

    if not isinstance(description, dict) or not isinstance(description.get("kind"), str):
        raise SourceError(f"{description!r:.200} is no description of a slice: give what describe() returned")
    fields = {name: value for name, value in description.items() if name != "kind"}
    cls = _class_of(description["kind"])
    make = getattr(cls, "from_description", None)
    try:
        source = make(fields) if make is not None else cls(**fields)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise SourceError(f"{description!r:.200} does not describe a slice of {cls.__qualname__}: {reason}") from error
    if not isinstance(source, Source):
        raise SourceError(f"{description['kind']} made a {type(source).__name__}, which has no items_after()")
    return as_source(source)


def describe_slice(source: Source[Any]) -> dict[str, Any]:
    """``source`` as JSON, complete and checked: what `open_slice` opens.

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
        raise SourceError(
            f"{path} cannot be imported by a worker: put the class at the top of a module of your package"
        )
    return path


def imported(path: str) -> Any:
    """What stands at ``module:name`` (dots in the name allowed). Raises `SourceError`."""
    module, _, name = path.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise SourceError(f"{path} cannot be imported here: {error}") from error
    return found


def _class_of(kind: str) -> Any:
    if ":" in kind:
        return imported(kind)
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"rqmem knows {', '.join(KINDS)}, and module:Class"
        raise SourceError(f"no source is called {kind!r}: {hint}")
    return imported(KINDS[kind])
