"""The progress of a job's children in RQ's own ``meta["rqmem"]`` of the job, for tools that know RQ but not rqmem.

All workers together write it at most once a second while the job waits, and when all children have ended. rqmem itself
does not read it. A job that is gone, or whose meta the serializer refuses, is skipped.
"""

from __future__ import annotations

import logging
from typing import Any, cast

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError

from rqmem.rq_names import Job, JobStatus
from rqmem.store import execution_reader, keys
from rqmem.store.watching import watching

_PAUSE_SECONDS = 1.0
_log = logging.getLogger("rqmem.worker")


def refresh(connection: Redis, parent_id: str, serializer: Any) -> bool:
    """Write the progress while the job waits; False if another worker has done so within the last second."""
    if not connection.set(keys.parent_told(parent_id), 1, nx=True, px=int(1000 * _PAUSE_SECONDS)):
        return False
    write(connection, parent_id, serializer, None, while_deferred=True)
    return True


def write(
    connection: Redis, parent_id: str, serializer: Any, children: int | None, *, while_deferred: bool = False
) -> dict[str, int]:
    """Write and return the progress. ``children``: how many there are, if the run does not have the number yet."""
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
        watching(connection, key, change)
    except RedisError:
        raise
    except Exception as error:  # noqa: BLE001  a serializer raises what it likes
        _log.debug("job %s: meta cannot be written: %s", parent_id, error)
    return figures
