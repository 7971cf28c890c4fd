"""What goes back over HTTP, in Retell's shapes. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Answer:
    """What goes back: after ``delay`` seconds, or, with ``drop``, never (the connection is closed)."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: bool = False


def json_bytes(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def json_answer(status: int, value: object) -> Answer:
    return Answer(status, json_bytes(value))


def error_answer(status: int, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, json_bytes({"status": "error", "message": message}), headers or {})
