"""How far a job's children are, in RQ's own ``meta["rqmem"]`` of the job: for tools that know RQ and not rqmem.

Written once a second at most while it waits for them, over all workers, and when all have ended. Nothing of ours
depends on it; a serializer that does not take the job's meta, or a job that is gone, is passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from redis.exceptions import RedisError

from rqmem.rq_names import Job, JobStatus
from rqmem.store import execution_reader, keys

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

_PAUSE_SECONDS = 1.0
_log = logging.getLogger("rqmem.worker")


def refresh(connection: Redis, parent_id: str, serializer: Any) -> bool:
    """Write how far they are while the job waits for them; False: somebody has within the last second."""
    if not connection.set(keys.parent_told(parent_id), 1, nx=True, px=int(1000 * _PAUSE_SECONDS)):
        return False
    write(connection, parent_id, serializer, None, while_deferred=True)
    return True


def write(
    connection: Redis, parent_id: str, serializer: Any, children: int | None, *, while_deferred: bool = False
) -> dict[str, int]:
    """Write how far they are; returns what that is. ``children``: how many, where its run does not say so yet."""
    key = Job.key_for(parent_id)
    split = execution_reader.run(connection, parent_id).split
    if split is None:
        return {}
    total = split.total if children is None else children
    figures = {"children": total, "done": split.ended - split.failed, "failed": split.failed}

    def change(pipeline: Pipeline) -> None:
        status, raw = cast("list[bytes | None]", pipeline.hmget(key, "status", "meta"))
        meta = serializer.loads(raw) if raw else {}
        pipeline.multi()
        if status is not None and (not while_deferred or status == JobStatus.DEFERRED.encode()):
            meta["rqmem"] = {**meta.get("rqmem", {}), **figures}
            pipeline.hset(key, "meta", serializer.dumps(meta))

    try:
        connection.transaction(cast("Callable[[Pipeline], None]", change), key)
    except RedisError:
        raise
    except Exception as error:  # noqa: BLE001  a serializer raises what it likes
        _log.debug("job %s: meta cannot be written: %s", parent_id, error)
    return figures
