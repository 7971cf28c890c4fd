"""A worker's name: taken over from a dead worker at once, waited for where that is not known yet, refused else.

RQ refuses a name until its record runs out, eight minutes after a kill. Here the rule is that for runs
(`rqmem.policy.dead_workers`): at once where the process is known to have ended, else after two heartbeats of silence.
RQ's own workers say nothing so often, but they listen for commands, and the kernel hangs up for a dead one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from typing import Any, cast

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError, WatchError

from rqmem.errors import NameTaken
from rqmem.measure import process_tree, procfs
from rqmem.policy.dead_workers import Holder, name_is
from rqmem.rq_names import WORKERS_BY_QUEUE_KEY, Worker, now, register_worker, utcformat, utcparse
from rqmem.store import codec, keys
from rqmem.store.history.history_records import Live
from rqmem.values import dataclass

_LOOK_SECONDS = 0.1
_log = logging.getLogger("rqmem.worker")


@dataclass(frozen=True)
class _Record:
    fields: dict[str, str]
    live: Live | None
    subscribers: int | None

    @property
    def whose(self) -> str:
        return f"process {self.fields.get('pid', '?')} on {self.fields.get('hostname') or 'an unknown host'}"

    def is_of(self, worker: Worker) -> bool:
        birth = worker.birth_date
        ours = self.fields.get(keys.PROCESS) == procfs.process_identity()
        return ours and birth is not None and self.fields.get("birth") == utcformat(birth)


def has(worker: Worker) -> bool:
    """Whether this process is registered under its name. A stop may have come just after that."""
    found = cast("bytes | None", worker.connection.hget(worker.key, keys.PROCESS))
    return found is not None and found.decode() == procfs.process_identity()


def register(worker: Worker, heartbeat_seconds: float) -> None:
    """Register the birth of ``worker``, once its name is free. Raises `NameTaken` where a living worker has it."""
    first: Holder | None = None
    began = silent_since = time.monotonic()
    with worker.connection.pipeline() as pipeline:
        while True:
            pipeline.watch(worker.key)
            record = _read(pipeline, worker.connection, worker)
            if record is not None and record.is_of(worker):
                return  # it was written, and the reply was lost
            if record is not None:
                holder = _seen(record)
                first = first or holder
                at = time.monotonic()
                silent_since = silent_since if holder.silent else at
                silent_seconds = at - silent_since if holder.silent else None
                found = name_is(first, holder, at - began, silent_seconds, heartbeat_seconds)
                if found == "taken":
                    raise NameTaken(
                        f"a worker named {worker.name!r} is alive ({record.whose}): stop that one, or give this one "
                        f"another --name"
                    )
                if found == "not known":
                    if holder is first:
                        _log.warning(
                            "worker %s: the name was another worker's (%s), which may be dead: waiting until that is "
                            "known, some %.0f s", worker.name, record.whose, 4 * heartbeat_seconds,
                        )  # fmt: skip
                    pipeline.unwatch()
                    time.sleep(min(_LOOK_SECONDS, heartbeat_seconds))
                    continue
                _log.warning("worker %s: takes the name over from a dead worker (%s)", worker.name, record.whose)
            with contextlib.suppress(WatchError):  # another new worker was faster: look at that one
                _write(pipeline, worker, record)
                return


def _write(pipeline: Pipeline, worker: Worker, dead: _Record | None) -> None:
    """As RQ's `register_birth`; of a dead worker that had the name nothing stays."""
    pipeline.multi()
    pipeline.delete(worker.key, worker.executions_key)
    for queue in (dead.fields.get("queues", "") if dead is not None else "").split(","):
        pipeline.srem(WORKERS_BY_QUEUE_KEY % queue, worker.key)
    worker.birth_date = worker.last_heartbeat = now()
    _write_birth(pipeline, worker, worker.serialize())


def _write_birth(pipeline: Pipeline, worker: Worker, fields: dict[Any, Any]) -> None:
    pipeline.hset(worker.key, mapping=fields)
    register_worker(worker, pipeline)
    pipeline.expire(worker.key, worker.worker_ttl + 60)
    pipeline.execute()


def register_again(worker: Worker, connection: Redis, state: str) -> bool:
    """As RQ's `register_birth`, for a worker that lives and that Redis has forgotten. Whether it had to be.

    Its counts of jobs begin anew.
    """
    names = [worker.redis_workers_keys, *(WORKERS_BY_QUEUE_KEY % name for name in worker.queue_names())]
    with connection.pipeline() as pipeline:
        for name in names:
            pipeline.sismember(name, worker.key)
        pipeline.hexists(worker.key, "birth")
        if all(pipeline.execute()) or worker.birth_date is None:
            return False
        _write_birth(pipeline, worker, {**worker.serialize(), "state": state})
    return True


def _read(pipeline: Pipeline, connection: Redis, worker: Worker) -> _Record | None:
    """None: nobody has the name, or who had it has registered its death."""
    raw = cast("dict[bytes, bytes]", pipeline.hgetall(worker.key))
    fields = {name.decode(): value.decode(errors="replace") for name, value in raw.items()}
    if not fields or "death" in fields:
        return None
    said = cast("bytes | None", pipeline.get(keys.alive(worker.name)))
    live = codec.from_json(Live, said) if said is not None and said.startswith(b"{") else None
    subscribers: int | None = None
    with contextlib.suppress(RedisError):  # forbidden, perhaps
        [(_, subscribers)] = connection.pubsub_numsub(worker.pubsub_channel_name)
    return _Record(fields, live, subscribers)


def _seen(record: _Record) -> Holder:
    live, process = record.live, record.fields.get(keys.PROCESS, "")
    if live is not None and process and live.process != process:
        live = None  # of one that had the name before
    return Holder(
        dead=process_tree.has_ended(process) if process else _is_dead_by_rqs_word(record.fields),
        said_at=live.at if live is not None else None,
        subscribed=None if record.subscribers is None else record.subscribers > 0,
        tells=bool(process) or live is not None,
    )


def _is_dead_by_rqs_word(fields: dict[str, str]) -> bool | None:
    """RQ names host and pid, so True is not certain: containers may share a host's name."""
    pid = fields.get("pid", "")
    if fields.get("hostname") != socket.gethostname() or not pid.isdigit():
        return None
    start_time = procfs.read_start_time(int(pid))
    if start_time is None:
        return True
    begun_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + start_time / os.sysconf("SC_CLK_TCK")
    later = "birth" in fields and begun_at > utcparse(fields["birth"]).timestamp() + 1
    return True if later else None
