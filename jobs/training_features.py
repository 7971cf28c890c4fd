"""What is learnt from a row: its numbers, and a token for each category and each word. Pure, no arrays yet.

A row's id decides by its hash whether the row is held out, and at which place it is learnt. So neither depends on the
order of the file, on how it was cut, or on what other rows there are; with another seed rows are learnt in another
order, and the same ones are held out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from jobs.training_order import Columns, Order
from rqmem.errors import ConfigError

HELD_OUT = 0.2  # of the rows
PLACES = 2**64
_LARGEST_NUMBER = 1e100  # squares of it are numbers still
_WORD = re.compile(r"\w+")
_HELD_OUT_BELOW = int(HELD_OUT * PLACES)


class Row(NamedTuple):
    """A row as it is learnt. ``numbers``: nan where one is missing; ``place``: 0 to `PLACES` - 1."""

    label: str
    held_out: bool
    place: int
    numbers: list[float]
    tokens: list[tuple[str, float]]


def read_row(row: Mapping[Any, Any], order: Order) -> Row:
    """A record of the file. Raises `ConfigError` naming the row and its field."""
    columns = order.columns
    row_id = row.get(columns.id)
    if not row_id:
        raise ConfigError(f"{order.rows}: a row has no {columns.id} ({_shown(row)}): each row needs one")
    where = f"{order.rows}: row {columns.id}={row_id!r:.60}"
    if None in row:
        raise ConfigError(f"{where} has more fields than the header has names: is a delimiter not quoted?")
    missing = [name for name in columns.names if row.get(name) is None]
    if missing:
        raise ConfigError(f"{where} ends before its field {missing[0]!r}: is the file cut off there?")
    label = row[columns.label].strip()
    if not label:
        raise ConfigError(f"{where} has no {columns.label}: leave out rows whose class is not known")
    return Row(
        label,
        _hashed(row_id, b"held out") < _HELD_OUT_BELOW,
        _hashed(row_id, order.seed.to_bytes(8, "big")),
        numbers(row, columns, where),
        list(tokens(row, columns)),
    )


def numbers(row: Mapping[Any, Any], columns: Columns, where: str) -> list[float]:
    """The numeric fields; nan where one is empty. Raises `ConfigError` beginning with ``where``."""
    found = []
    for name in columns.numeric:
        text = row[name].strip()
        try:
            number = float(text) if text else math.nan
        except ValueError:
            raise ConfigError(
                f"{where}: {name} is {text!r:.60}, which is no number: mend it or leave it empty"
            ) from None
        if text and not abs(number) <= _LARGEST_NUMBER:
            raise ConfigError(f"{where}: {name} is {text!r:.60}: nothing can be learnt from that; leave it empty")
        found.append(number)
    return found


def tokens(row: Mapping[Any, Any], columns: Columns) -> Iterator[tuple[str, float]]:
    """What is hashed, each with its value. The words of a text have the length 1 together, however many they are."""
    for name in columns.categorical:
        yield f"{name}={row[name]}", 1.0
    for name in columns.numeric:
        if not row[name].strip():
            yield f"{name}?", 1.0
    for name in columns.text:
        words = _WORD.findall(row[name].lower())
        value = 1 / math.sqrt(len(words)) if words else 0.0
        for word in words:
            yield f"{name}:{word}", value


def _hashed(row_id: str, purpose: bytes) -> int:
    digest = blake2b(row_id.encode("utf-8", "surrogatepass"), digest_size=8, person=purpose)
    return int.from_bytes(digest.digest(), "big")


def _shown(row: Mapping[Any, Any]) -> str:
    return ", ".join(f"{name}={value!r:.30}" for name, value in row.items() if value)[:200] or "all fields are empty"
