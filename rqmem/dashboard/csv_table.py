"""A table as CSV, for spreadsheets. Pure but for the answer."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from flask import Response

_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def answer(name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Response:
    """The table as a file to keep."""
    text = to_text(columns, rows)
    response = Response(text, mimetype="text/csv")
    response.headers["Content-Disposition"] = f'attachment; filename="rqmem-{name}.csv"'
    return response


def to_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """With a heading. A text that a spreadsheet would take for a formula begins with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([[_cell(each) for each in row] for row in rows])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULAS):
        return f"'{value}"
    if isinstance(value, float):
        return int(value) if value.is_integer() else round(value, 3)
    return "" if value is None else value
