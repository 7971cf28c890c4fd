"""Waiting for a Redis that is away, so that no finished work is lost with it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

T = TypeVar("T")

AWAY = (RedisConnectionError, RedisTimeoutError)
"""What redis-py raises while the server is gone, does not answer, or still loads its data."""

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0
_log = logging.getLogger("rqmem.redis")


def until_redis_answers(step: Callable[[], T], what: str) -> T:
    """Repeat ``step`` until Redis has answered it; one line when the wait begins and one when it ends.

    The step may have been done although its reply was lost, so it must bear being repeated. Whatever else
    it raises is raised here too.
    """
    pause = _FIRST_PAUSE_SECONDS
    since: float | None = None
    while True:
        try:
            result = step()
        except AWAY as error:
            if since is None:
                since = time.monotonic()
                _log.warning("Redis is away (%s): waiting for it to %s", error, what)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            continue
        if since is not None:
            _log.warning("Redis is back after %.1f s: could %s", time.monotonic() - since, what)
        return result
