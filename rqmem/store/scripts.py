"""The Lua scripts of the journal, each in a file of the directory `lua`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline


def script(connection: Redis | Pipeline, name: str) -> Any:
    """What runs ``<name>.lua`` on that Redis: call it with ``keys=`` and ``args=``."""
    return connection.register_script(_source(name))


@cache
def _source(name: str) -> str:
    return (Path(__file__).parent / "lua" / f"{name}.lua").read_text()
