"""Values as JSON that come back as they were: also tuples, moments, Decimals, UUIDs and bytes, which JSON lacks.

A value that JSON has is written as itself, any other as ``{"$": kind, "v": text}``. What would come back as something
else (an object, a dict whose keys are not texts, a subclass of int) is refused, never changed.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from rqmem.errors import SourceError

_TAG, _VALUE = "$", "v"

_KINDS: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    datetime: ("datetime", datetime.isoformat, datetime.fromisoformat),
    date: ("date", date.isoformat, date.fromisoformat),
    time: ("time", time.isoformat, time.fromisoformat),
    timedelta: ("timedelta", lambda d: [d.days, d.seconds, d.microseconds], lambda v: timedelta(v[0], v[1], v[2])),
    Decimal: ("decimal", str, Decimal),
    UUID: ("uuid", str, UUID),
    bytes: ("bytes", lambda raw: base64.b64encode(raw).decode(), base64.b64decode),
}
_DECODERS = {name: decode for name, _, decode in _KINDS.values()}


def encode(value: Any) -> Any:
    """``value`` as JSON. Raises `SourceError` naming the type that cannot be."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {_TAG: "float", _VALUE: repr(value)}
    if kind is list:
        return [encode(each) for each in value]
    if kind is tuple:
        return {_TAG: "tuple", _VALUE: [encode(each) for each in value]}
    if kind is dict and all(type(name) is str for name in value):
        pairs = {name: encode(each) for name, each in value.items()}
        return {_TAG: "dict", _VALUE: pairs} if _TAG in pairs else pairs
    if kind in _KINDS:
        name, to_json, _ = _KINDS[kind]
        return {_TAG: name, _VALUE: to_json(value)}
    what = "a dict with keys that are no str" if kind is dict else f"a {kind.__module__}.{kind.__qualname__}"
    raise SourceError(
        f"{what} cannot be written as JSON and read back the same: use None, bool, int, float, str, list, tuple, dict, "
        "datetime, date, time, timedelta, Decimal, UUID or bytes"
    )


def decode(value: Any) -> Any:
    """What `encode` wrote. Raises `SourceError` for what it did not write."""
    if isinstance(value, list):
        return [decode(each) for each in value]
    if not isinstance(value, dict):
        return value
    if _TAG not in value:
        return {name: decode(each) for name, each in value.items()}
    kind = value[_TAG]
    try:
        inner: Any = value[_VALUE]
        if kind == "float":
            return float(inner)
        if kind == "tuple":
            return tuple(decode(each) for each in inner)
        if kind == "dict":
            return {name: decode(each) for name, each in inner.items()}
        return _DECODERS[kind](inner)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise SourceError(f"{value!r:.200} is no value that rqmem wrote: {type(error).__name__}: {error}") from error
