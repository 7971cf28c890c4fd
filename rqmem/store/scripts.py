"""The Lua scripts of the journal, each in a file of the directory `lua`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

_FOLDER = Path(__file__).parent / "lua"


def script(connection: Redis | Pipeline, name: str) -> Any:
    """What runs ``<name>.lua`` on that Redis: call it with ``keys=`` and ``args=``."""
    return connection.register_script(_source(name))


def read_all() -> None:
    """Read the scripts now. In a horse it may be impossible later: a job can use up all descriptors."""
    for path in _FOLDER.glob("*.lua"):
        _source(path.stem)


@cache
def _source(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text()
