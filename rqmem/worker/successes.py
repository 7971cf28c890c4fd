"""Committing a job that has ended well in one script, without RQ's own methods: they take most of a horse's time."""

from __future__ import annotations

import time

from rqmem.child_ids import parent_of
from rqmem.rq_names import (
    RQ_KEY_PREFIX,
    WORKER_EXECUTIONS_KEY_TEMPLATE,
    Execution,
    Job,
    Result,
    Worker,
)
from rqmem.store import keys
from rqmem.store.guarded import Refused
from rqmem.store.scripts import script


def is_plain(job: Job, result_ttl: int) -> bool:
    """Whether this is all that its success changes, if nobody waits for it."""
    return (
        type(job) is Job and result_ttl > 0 and not (job._dependency_ids or job.repeats_left)
        and parent_of(job.id) is None
    )  # fmt: skip


def commit(worker: Worker, job: Job, execution: Execution, result_ttl: int) -> None:
    """As RQ's `handle_job_success` up to its log, for a job that `is_plain`. Raises `Refused` and redis-py's errors."""
    assert job.started_at is not None and job.ended_at is not None
    result = Result(
        job_id=job.id, type=Result.Type.SUCCESSFUL, connection=job.connection, return_value=job._result,
        worker_name=worker.name, serializer=job.serializer, execution_id=execution.id,
        execution_started_at=execution.created_at, execution_ended_at=job.ended_at,
    ).serialize()  # fmt: skip
    fields = job.to_dict(include_meta=False, include_result=False)
    spent = (job.ended_at - job.started_at).total_seconds()
    done = script(worker.connection, "commit_success")(
        keys=[keys.RUNNING, worker.key, WORKER_EXECUTIONS_KEY_TEMPLATE.format(worker.name)],
        args=[
            *(RQ_KEY_PREFIX, job.origin, job.id, execution.id, spent, result_ttl, int(time.time())),
            *(2 * len(result), *_words(result), *_words(fields)),
        ],
    )
    if not done:
        raise Refused


def _words(fields: dict[str, object]) -> list[object]:
    return [word for pair in fields.items() for word in pair]
