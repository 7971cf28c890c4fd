"""A client that reads, for pages: a key of another type than ours is noted, and is as if it were not there.

So a page shows everything else. Actions do not use it: they must know.
"""

from __future__ import annotations

from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ResponseError

from rqmem.store import unreadable

_NONE = ("GET", "HGET", "LINDEX", "LPOS", "ZSCORE", "ZRANK", "ZREVRANK")
_COUNTS = ("LLEN", "ZCARD", "SCARD", "HLEN", "XLEN", "ZCOUNT", "HEXISTS", "SISMEMBER")
_LISTS = ("LRANGE", "ZRANGE", "ZREVRANGE", "XREVRANGE", "XRANGE", "SORT", "HKEYS", "HVALS")


class ReadingRedis(Redis):
    """Shares the pool of the client that it is made for."""

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().execute_command(*arguments, **options)
        except ResponseError as error:
            return _instead(arguments, error)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return _ReadingPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _ReadingPipeline(Pipeline):
    def raise_first_error(self, commands: Any, response: Any) -> None:
        for place, (answer, command) in enumerate(zip(response, commands, strict=False)):
            if isinstance(answer, ResponseError):
                try:
                    response[place] = _instead(command[0], answer)
                except ResponseError:
                    break
        super().raise_first_error(commands, response)


def for_pages(connection: Redis) -> Redis:
    """Such a client over the same pool; of a client without a pool that one itself."""
    pool = getattr(connection, "connection_pool", None)
    return ReadingRedis(connection_pool=pool) if pool is not None else connection


def _instead(arguments: Any, error: ResponseError) -> Any:
    """What that command would have answered without the key. Raises the error where it is another one."""
    command, *rest = (each.decode(errors="replace") if isinstance(each, bytes) else str(each) for each in arguments)
    answers: dict[str, Any] = {
        **dict.fromkeys(_NONE), **dict.fromkeys(_COUNTS, 0), "HGETALL": {}, "SMEMBERS": set(), "GETRANGE": b"",
        "HMGET": [None] * (len(rest) - 1), **{name: [] for name in _LISTS},
    }  # fmt: skip
    if "WRONGTYPE" not in str(error) or command.upper() not in answers:
        raise error
    unreadable.note(rest[0])
    return answers[command.upper()]
