"""All reads about running and resumable jobs; changes nothing. Connections answer in bytes, as RQ demands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import cast

from redis import Redis
from redis.exceptions import RedisError

from rqmem.events import Breach
from rqmem.rq_names import Execution, Job, Queue
from rqmem.store import codec, keys
from rqmem.store.execution_records import Owner, RunRecord, Standing
from rqmem.store.executions import KEPT_EVIDENCE
from rqmem.store.history.history_records import Live
from rqmem.store.retrying import described, refusal
from rqmem.store.scripts import answers
from rqmem.store.unreadable import readable


def run(connection: Redis, job_id: str) -> RunRecord:
    """The run of a job; an empty record for one that has none."""
    return RunRecord.from_hash(cast("dict[bytes, bytes]", connection.hgetall(keys.run(job_id))))


def breaches(connection: Redis, job_id: str) -> list[Breach]:
    """The last breaches of the job's present run, newest first, with their evidence."""
    with connection.pipeline() as pipeline:
        pipeline.lrange(keys.breaches(job_id), 0, KEPT_EVIDENCE - 1)
        pipeline.hmget(keys.run(job_id), "job_created_at", "breaches")
        texts, (begun, count) = pipeline.execute()
    ours = texts[: int(count) if (count or b"").isdigit() else 0] if begun else texts
    return readable(partial(codec.from_json, Breach), ours, keys.breaches(job_id))


def results(connection: Redis, job_id: str, stage: int) -> list[bytes]:
    """The serialised results of the finished chunks of a stage, in order."""
    mark = f"{stage}:".encode()
    parts = cast("list[bytes]", connection.lrange(keys.results(job_id), 0, -1))
    return [part[len(mark) :] for part in parts if part.startswith(mark)]


def owner(connection: Redis, job_id: str) -> Owner | None:
    raw = cast("bytes | None", connection.hget(keys.RUNNING, job_id))
    return None if raw is None else codec.from_json(Owner, raw)


def standing(connection: Redis, job: Job, queue: Queue, execution: Execution) -> Standing:
    """The state of an execution, read in one transaction."""
    with connection.pipeline() as pipeline:
        pipeline.hget(keys.RUNNING, job.id)
        pipeline.zscore(queue.started_job_registry.key, execution.composite_key)
        pipeline.hmget(job.key, "status", "created_at")
        raw, score, (status, created_at) = pipeline.execute()
    owner = codec.from_json(Owner, raw).execution if raw is not None else ""
    status = status.decode() if status and created_at else ""
    return Standing(owner, owner == execution.id, score is not None, status)


def epoch(connection: Redis) -> str:
    """The name of the data in Redis (`keys.EPOCH`); empty before the first worker."""
    raw = cast("bytes | None", connection.get(keys.EPOCH))
    return raw.decode() if raw is not None else ""


def refusal_of_writes(connection: Redis) -> str:
    """What Redis says when it refuses writes; empty if it takes them, or refuses only those of this user."""
    try:
        connection.set(keys.PROBE, "", xx=True)  # changes nothing
    except RedisError as error:
        if refusal(error) not in ("", "NOPERM", "NOAUTH"):  # this user may only read; workers may write
            return described(error)
    return ""


def owners(connection: Redis) -> dict[str, Owner]:
    """Job id -> owner, of all executions that have not ended."""
    raw = cast("dict[bytes, bytes]", connection.hgetall(keys.RUNNING))
    return dict(readable(lambda one: (one[0].decode(), codec.from_json(Owner, one[1])), raw.items(), keys.RUNNING))


def absent(connection: Redis, workers: Iterable[str]) -> set[str]:
    """The workers whose heartbeat is gone."""
    names = set(workers)
    return names - answers(connection, Redis.exists, keys.alive, names).keys()


def silent(connection: Redis, owners: Mapping[str, Owner]) -> set[str]:
    """Job ids of those ``owners`` whose worker is silent, or whose worker's name another process has."""
    said = answers(connection, Redis.get, keys.alive, {owner.worker for owner in owners.values()})
    return {job_id for job_id, owner in owners.items() if not _is_heard(said.get(owner.worker), owner)}


def _is_heard(said: bytes | None, owner: Owner) -> bool:
    if said is None:
        return False
    process = codec.from_json(Live, said).process if said.startswith(b"{") else ""
    return process in ("", owner.process)  # empty: of an older rqmem
