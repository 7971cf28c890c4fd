"""What becomes of a job whose execution ended early: it goes on from its cursor, or it fails.

One place for every way to get here: unwound in the horse, killed, horse lost, worker lost. The
decision is `rqmem.policy.resume`'s, the commit one script (`rqmem.journal.writer.requeue`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rqmem import events
from rqmem.journal import reader, writer
from rqmem.policy import resume
from rqmem.policy.resume import Attempt, Cause, GiveUp

if TYPE_CHECKING:
    from rq.executions import Execution
    from rq.job import Job
    from rq.queue import Queue


@dataclass(frozen=True)
class EndedEarly:
    """An execution that ended before its job did, and what is known of it.

    ``position`` is the place last named; ``worker`` tells it in events, and need not be the one that ran it.
    """

    job: Job
    queue: Queue
    execution: Execution
    cause: Cause
    worker: str
    position: str = ""


@dataclass(frozen=True)
class Verdict:
    """Whether the execution is settled (else the caller fails the job), and what is done next, in words."""

    settled: bool
    next: str


def try_resume(ended: EndedEarly, max_resumes: int) -> Verdict:
    """Put the job back to go on from its cursor, where it asked for that and its budget allows."""
    job = ended.job
    record = reader.run(job.connection, job.id)
    attempt = Attempt(
        resumable=record.on_breach == "resume",
        began=record.stage is not None,
        chunk_size=record.chunk_size,
        progressed=record.execution_chunks > 0,
        resumes=record.resumes,
        position=ended.position,
    )
    plan = resume.decide(ended.cause, attempt, max_resumes)
    if isinstance(plan, GiveUp):
        return Verdict(False, f"failed; not resumed: {plan.reason}" if plan.reason else "failed")
    if not writer.requeue(job, ended.queue, ended.execution, record.stage, plan.chunk_size):
        return Verdict(True, "nothing: somebody else ended this run meanwhile")
    resumed = events.Resumed(
        job=record.job,
        job_id=job.id,
        queue=ended.queue.name,
        worker=ended.worker,
        cause=ended.cause,
        cursor=json.dumps(record.cursors.get(record.stage or 0)),
        chunk_size=plan.chunk_size,
        resumes=record.resumes + 1,
        max_resumes=max_resumes,
    )
    events.emit(resumed)
    return Verdict(True, resumed.summary())
