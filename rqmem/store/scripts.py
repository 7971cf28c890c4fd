"""Commands that need only one round trip: the Lua scripts in the directory `lua`, and one command for many keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.commands.core import Script

_FOLDER = Path(__file__).parent / "lua"


def script(connection: Redis | Pipeline, name: str) -> Any:
    """A function that runs ``<name>.lua`` on that Redis; call it with ``keys=`` and ``args=``."""
    return partial(_script(name), client=connection)


@cache
def _script(name: str) -> Script:
    no_client: Any = None  # who calls it names one
    return Script(no_client, source(name).encode())


@cache
def read_all() -> None:
    """Read the scripts now. In a horse it may be impossible later: a job can use up all descriptors."""
    for path in _FOLDER.glob("*.lua"):
        source(path.stem)


def of_each(connection: Redis, command: Callable[..., Any], names: Iterable[str | bytes], *arguments: Any) -> list[Any]:
    """The answers to a command (``Redis.hgetall``) for each of these keys."""
    with connection.pipeline(transaction=False) as pipeline:
        for name in names:
            command(pipeline, name, *arguments)
        return pipeline.execute()


def answers(
    connection: Redis, command: Callable[..., Any], key: Callable[..., str], names: Iterable[str], *arguments: Any
) -> dict[str, Any]:
    """Name -> the answer to a command for its ``key``, of those that have one."""
    asked = list(names)
    replies = of_each(connection, command, map(key, asked), *arguments)
    return {name: reply for name, reply in zip(asked, replies, strict=True) if reply}


@cache
def source(name: str) -> str:
    """The text of ``<name>.lua``, and before it that of the files that its first line names: ``-- needs a b``."""
    text = (_FOLDER / f"{name}.lua").read_text()
    first = text.partition("\n")[0].split()
    needed = first[2:] if first[:2] == ["--", "needs"] else []
    return "".join((_FOLDER / f"{each}.lua").read_text() for each in needed) + text
