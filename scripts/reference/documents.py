"""The JSON documents: their fields, as the golden files have them. The page explains the names above."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from scripts.harness import ROOT
from scripts.reference.markdown import code, table

GOLDEN = ROOT / "tests" / "golden"

DOCUMENTS = {
    "status": "rqmem status --json",
    "status-worker": "rqmem status --worker NAME --json",
    "status-job": "rqmem status --job ID --json",
    "inspect": "rqmem inspect ID --json",
    "inspect-split": "rqmem inspect ID --json",
    "report": "rqmem report --json",
    "recommend": "rqmem recommend --json",
    "alerts": "rqmem alerts --json",
    "monitor": "rqmem monitor --json",
    "top": "rqmem top --worker NAME --json",
    "config": "rqmem config --json",
    "config-jobs": "rqmem config --jobs --json",
    "journal": "rqmem journal size --json",
    "redis": "rqmem redis status --json",
    "doctor": "rqmem doctor --json",
}
"""Golden file -> the command that prints such a document. Those of the dashboard's API are on its own page."""

_MORE = {"inspect-split": "of a job that has split"}
_LONGEST_EXAMPLE = 60


def page() -> str:
    parts = []
    for name, command in DOCUMENTS.items():
        value = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
        more = f" {_MORE[name]}" if name in _MORE else ""
        rows = [(code(path), kind, code(example)) for path, kind, example in fields(value)]
        link = f"[A whole document](../../tests/golden/{name}.json), with times and sizes of machines as zeros."
        parts += [f"## {command}{more}", link, table(("field", "type", "example"), rows)]
    return "\n\n".join(parts)


def fields(value: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Each field once: its path, its type, and an example. ``[]`` stands for each element of a list."""
    found: dict[str, tuple[str, str]] = {}
    for each, leaf in _leaves(value, path):
        kind = _kind(leaf)
        known = found.get(each)
        if known is None or known[0] == "null":
            found[each] = (kind, json.dumps(leaf, ensure_ascii=False)[:_LONGEST_EXAMPLE])
    known_inside = {each[:end] for each in found for end in range(len(each)) if each[end] in ".["}
    return ((each, kind, example) for each, (kind, example) in found.items() if each not in known_inside)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from _leaves(each, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value:
        for each in value:
            yield from _leaves(each, f"{path}[]")
    else:
        yield path, value


def _kind(value: Any) -> str:
    kinds = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return kinds.get(type(value), "null")
