"""A connection for looking at a Redis, which need not answer yet. Its commands fail soon, and are not repeated."""

from __future__ import annotations

import redis

from rqmem.connection import embedded
from rqmem.connection.connect import Choice, check, choose_url, hasty_client
from rqmem.errors import RqmemError

EMBEDDED = "the embedded Redis of this directory"
"""What people know it as."""


def to_look_at(url: str | None, answer_seconds: float) -> tuple[redis.Redis, str]:
    """A connection and where it leads, for people. Starts no server to look at it, and contacts none.

    Raises `ConfigError` for a URL that cannot be used, `RqmemError` for an embedded server that does not run.
    """
    choice = choose_url(url)
    if choice is None:
        return hasty_client(Choice(running_embedded().url, ""), answer_seconds), EMBEDDED
    check(choice)
    return hasty_client(choice, answer_seconds), choice.shown


def running_embedded() -> embedded.Server:
    """The embedded server of this directory. Raises `RqmemError` if it does not run."""
    server = embedded.status()
    if server is None:
        raise RqmemError(
            "no Redis is named, and the embedded one of this directory does not run: 'rqmem worker' starts it with "
            "a worker; or name a Redis with --url or RQMEM_REDIS_URL"
        )
    return server
