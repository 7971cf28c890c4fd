"""Workers told to begin anew, and how one sees that they have."""

from __future__ import annotations

import json
from typing import Literal, cast

from redis import Redis

from rqmem.rq_names import PUBSUB_CHANNEL_TEMPLATE, Worker
from rqmem.store import keys
from rqmem.values import dataclass

COMMAND = "rqmem-restart"
"""The command as RQ sends commands to workers; RQ's own workers ignore it."""

Way = Literal["in place", "exit", "none"]
"""How a worker begins anew: by `exec`; it ends, and who started it starts another one (a pool, a supervisor); not."""


@dataclass(frozen=True)
class Life:
    """A life of a worker: ``birth`` differs in the next one. ``way``: empty for an RQ's own worker."""

    birth: str
    way: str


def life(connection: Redis, worker: str) -> Life | None:
    """The present life of the worker with that name; None: none is registered."""
    key = f"{Worker.redis_worker_namespace_prefix}{worker}"
    values = cast("list[bytes | None]", connection.hmget(key, "birth", "death", keys.RESTARTS, "pid"))
    birth, death, way, pid = (value.decode() if value else "" for value in values)
    return None if not birth or death else Life(f"{birth} {pid}", way)


def tell(connection: Redis, worker: str) -> bool:
    """Tell a worker to begin anew, after the job in hand. Whether anybody heard it."""
    channel = PUBSUB_CHANNEL_TEMPLATE % worker
    return connection.publish(channel, json.dumps({"command": COMMAND})) > 0


def is_told(message: object) -> bool:
    """Whether a message on that channel, as redis-py gives it, tells its worker to begin anew."""
    try:
        payload = json.loads(message["data"])  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        return False
    return isinstance(payload, dict) and payload.get("command") == COMMAND
