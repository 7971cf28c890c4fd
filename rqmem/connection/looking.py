"""A connection for looking at a Redis, which need not answer yet. Its commands fail soon, and are not repeated."""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rqmem.connection import embedded
from rqmem.connection.connect import check, choose_url
from rqmem.errors import RqmemError

EMBEDDED = "the embedded Redis of this directory"
"""What people know it as."""


def to_look_at(url: str | None, answer_seconds: float) -> tuple[redis.Redis, str]:
    """A connection and where it leads, for people. Starts no server to look at it, and contacts none.

    Raises `ConfigError` for a URL that cannot be used, `RqmemError` for an embedded server that does not run.
    """
    choice = choose_url(url)
    if choice is None:
        connection, shown = redis.Redis.from_url(running_embedded().url), EMBEDDED
    else:
        check(choice)
        connection, shown = choice.client(), choice.shown
    connection.connection_pool.connection_kwargs.update(  # it has no connection yet
        socket_timeout=answer_seconds, socket_connect_timeout=answer_seconds, retry=Retry(NoBackoff(), 0)
    )
    return connection, shown


def running_embedded() -> embedded.Server:
    """The embedded server of this directory. Raises `RqmemError` if it does not run."""
    server = embedded.status()
    if server is None:
        raise RqmemError(
            "no Redis is named, and the embedded one of this directory does not run, so nothing does: "
            "'rqmem worker' starts both; or name a Redis with --url or RQMEM_REDIS_URL"
        )
    return server
