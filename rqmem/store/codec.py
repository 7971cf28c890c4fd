"""Frozen dataclasses as JSON and as Redis hashes, by the types of their fields.

A field that has its default is not written, and a field that is missing gets it. Fields that this version does not
know are ignored. So two versions of rqmem that share a Redis read each other's records.
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from rqmem import events

T = TypeVar("T")
Decoder = Callable[[Any], Any]


def to_json(record: Any) -> str:
    """The record as text for `from_json`."""
    return json.dumps(record, default=_without_defaults)


def from_json(kind: type[T], text: str | bytes) -> T:
    """The record of this class that `to_json` wrote."""
    return from_values(kind, json.loads(text))


def from_values(kind: type[T], values: Mapping[str, Any]) -> T:
    """The record of this class with these values, as JSON has them."""
    return kind(**{name: decode(values[name]) for name, decode in _decoders(kind) if name in values})  # type: ignore[arg-type]


def event_to_values(event: events.Event) -> dict[str, Any]:
    """All of the event, and the name of its class."""
    return {"event": type(event).__name__, **vars(event)}


def event_from_values(values: Mapping[str, Any]) -> events.Event | None:
    """The event of `event_to_values`; None for a class of events that this version does not know."""
    kind = events.CATALOGUE.get(values["event"])
    return None if kind is None else from_values(kind, values)


def from_hash(kind: type[T], raw: Mapping[bytes, bytes], prefix: str = "") -> T:
    """The record of this class in those fields of a hash whose names begin with ``prefix``.

    A dict comes from the fields ``name:key``; its metadata says ``{"name": "name:"}``.
    """
    texts: dict[str, Any] = {}
    for field, value in raw.items():
        name, colon, key = field.decode().partition(":")
        if colon:
            texts.setdefault(f"{name}:", {})[key] = value.decode()
        else:
            texts[name] = value.decode()
    named = ((name, prefix + stored, decode) for name, stored, decode in _text_decoders(kind))  # type: ignore[arg-type]
    return kind(**{name: decode(texts[stored]) for name, stored, decode in named if stored in texts})


def _without_defaults(record: Any) -> dict[str, Any]:
    """Raises TypeError for what is no dataclass."""
    values = ((each, getattr(record, each.name)) for each in dataclasses.fields(record))
    return {each.name: value for each, value in values if value != _default(each)}


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@cache
def _decoders(kind: Any) -> list[tuple[str, Decoder]]:
    """Name of each field, and the function that makes its value of JSON's."""
    return [(name, _decoder(hint)) for name, hint in get_type_hints(kind).items()]


def _decoder(hint: Any) -> Decoder:
    origin, args = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return partial(from_values, cast("type", hint))
    if origin is tuple and Ellipsis not in args:
        return tuple
    if origin in (list, tuple):
        decode = _decoder(args[0])
        return lambda values: origin(map(decode, values))
    if origin in (Union, types.UnionType):  # of something and None
        decode = _decoder(args[0])
        return lambda value: None if value is None else decode(value)
    return lambda value: value


@cache
def _text_decoders(kind: Any) -> list[tuple[str, str, Decoder]]:
    """Name of each field, its name in a hash, and the function that makes its value of the text there."""
    hints, fields = get_type_hints(kind), dataclasses.fields(kind)
    return [(each.name, each.metadata.get("name", each.name), _text_decoder(hints[each.name])) for each in fields]


def _text_decoder(hint: Any) -> Decoder:
    args = get_args(hint)
    if get_origin(hint) is dict:
        key_of, value_of = map(_text_decoder, args)
        return lambda texts: {key_of(key): value_of(value) for key, value in texts.items()}
    if get_origin(hint) is tuple:
        return lambda text: tuple(text.splitlines())
    by_type: dict[Any, Decoder] = {bool: lambda text: text == "1", Any: json.loads}
    return by_type.get(hint, args[0] if args else hint)
