"""All that is in Redis, in a form in which two runs of the same jobs can be compared."""

from __future__ import annotations

import re
import time
import zlib
from base64 import b64decode
from dataclasses import dataclass
from typing import Any

from redis import Redis

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_EXECUTION = re.compile(r"\b[0-9a-f]{32}\b")
_TIMES_IN_A_STREAM = ("execution_started_at", "execution_ended_at")
_OF_A_PROCESS = ("pid", "hostname", "ip_address", "version", "python_version", "rqmem_process", "total_working_time")
_NEAR_SECONDS = 60


@dataclass(eq=False)
class Near:
    """Seconds from now, or to live: equal to what is less than a minute away."""

    seconds: float

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Near) and abs(self.seconds - other.seconds) < _NEAR_SECONDS


def dump(connection: Redis, *, with_ours: bool = False) -> dict[str, Any]:
    """Name of each key -> its type, its value, and how long it lives; ``with_ours``: of rqmem's own keys too."""
    found = {}
    for raw in sorted(connection.scan_iter("*", count=10_000)):
        name = raw.decode()
        if with_ours or not name.startswith("rqmem:"):
            kind = connection.type(raw).decode()
            seconds = connection.ttl(raw)
            lives = Near(seconds) if seconds >= 0 else seconds
            found[_text(name)] = (kind, _value(connection, name, kind), lives)
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What differs, a line for each key, field or member."""
    left, right = _flat(one), _flat(other)
    return [
        f"{name}: {left.get(name, 'is not there')} / {right.get(name, 'is not there')}"
        for name in sorted(left.keys() | right.keys())
        if left.get(name) != right.get(name)
    ]


def _flat(found: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, (kind, value, lives) in found.items():
        flat[name] = (kind, lives)
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        flat.update({f"{name} {part}": each for part, each in parts})
        if not isinstance(value, dict | list):
            flat[f"{name} has"] = value
    return flat


def _value(connection: Redis, name: str, kind: str) -> Any:
    if kind == "hash":
        return {field.decode(): _field(field.decode(), value) for field, value in connection.hgetall(name).items()}
    if kind == "stream":
        return [_entry(fields) for _, fields in connection.xrange(name)]
    if kind == "zset":
        return {_text(member): _score(score) for member, score in connection.zrange(name, 0, -1, withscores=True)}
    if kind == "set":
        return {_text(member) for member in connection.smembers(name)}
    if kind == "list":
        return [_text(member) for member in connection.lrange(name, 0, -1)]
    return _text(connection.get(name))


def _field(name: str, value: bytes) -> Any:
    if name in _OF_A_PROCESS:
        return "there"
    return value if name in ("data", "meta") else _text(value)


def _entry(fields: dict[bytes, bytes]) -> dict[str, Any]:
    entry = {}
    for field, value in fields.items():
        name = field.decode()
        if name == "exc_string":  # the stack differs
            entry[name] = zlib.decompress(b64decode(value)).decode().strip().splitlines()[-1]
        elif name in _TIMES_IN_A_STREAM:
            entry[name] = Near(float(value) - time.time())
        else:
            entry[name] = _text(value)
    return entry


def _score(score: float) -> Any:
    return Near(score - time.time()) if 0 <= score < float("inf") else score


def _text(value: str | bytes | None) -> str:
    text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
    return _EXECUTION.sub("EXECUTION", _TIME.sub("TIME", text))
