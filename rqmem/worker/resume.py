"""Decides whether a job whose execution ended early is resumed from its cursor or fails.

This is the same for each cause: the job unwound, its horse was killed or lost, its worker was lost. The
decision is `rqmem.policy.after_breach`'s, the commit one script (`rqmem.store.executions.requeue`).
"""

from __future__ import annotations

import json
import logging
from typing import Any, cast

from rqmem import events, words
from rqmem.policy import after_breach, escalation
from rqmem.policy.after_breach import Attempt, Cause, GiveUp, Resume
from rqmem.policy.escalation import Step
from rqmem.rq_names import Execution, Job, Queue
from rqmem.store import execution_reader, executions
from rqmem.store.execution_records import RunRecord
from rqmem.text import printable
from rqmem.type_of_job import path_of
from rqmem.units import show_mb
from rqmem.values import dataclass

_log = logging.getLogger("rqmem.worker")
_KEPT_HISTORY = 30
_SHOWN_HISTORY = 3


@dataclass(frozen=True)
class EndedEarly:
    """An execution that ended before its job did.

    ``position``: the last named place in the job. ``worker``: the worker that settles it, perhaps another than ran it.
    ``limit_mb``: the ceiling that was breached. ``allowed_mb``: the highest ceiling the worker allows; None: any.
    """

    job: Job
    queue: Queue
    execution: Execution
    cause: Cause
    worker: str
    position: str = ""
    limit_mb: float = 0.0
    allowed_mb: float | None = None


@dataclass(frozen=True)
class Plan:
    """What happens to the job. ``goes_on``: it is resumed; None: the caller fails it. ``next``: the same in words.

    ``step``: the higher ceiling it gets. ``gave_up``: it could be resumed, but its budget does not allow it.
    ``history``: how its executions ended, this one included.
    """

    ended: EndedEarly
    next: str
    stage: int | None = None
    goes_on: events.Resumed | events.Escalated | None = None
    chunk_size: int = 1
    delay_seconds: float = 0.0
    step: Step | None = None
    gave_up: events.GaveUp | None = None
    cost: int = 1
    cut: bool = False
    history: tuple[str, ...] = ()

    def carry_out(self) -> bool:
        """Put the job back into its queue if it is resumed. Returns False if the caller must fail it."""
        if self.goes_on is None:
            if self.gave_up is not None:
                events.emit(self.gave_up)
                executions.renew_budget(self.ended.job)
            return False
        ended = self.ended
        if executions.requeue(
            *(ended.job, ended.queue, ended.execution, self.stage, self.chunk_size, self.cost),
            cut=self.cut,
            history=self.history,
            delay_seconds=self.delay_seconds,
            step=self.step,
        ):
            events.emit(self.goes_on)
        else:
            _log.warning("job %s does not go on here: somebody else ended this run meanwhile", ended.job.id)
        return True


def plan(ended: EndedEarly, max_resumes: int) -> Plan:
    """Decide whether the job goes on from its cursor: if it is resumable and its budget allows."""
    job = ended.job
    record = execution_reader.run(job.connection, job.id)
    opened = _opened(job, record)
    attempt = Attempt(
        resumable=may_go_on(job, record),
        cuts=opened and record.on_breach == "split" and record.split is None,
        cut=record.cut_stage == record.stage,
        began=opened and record.began,
        chunk_size=record.chunk_size,
        progressed=opened and record.execution_chunks > 0,
        spent=record.resumes_spent,
        position=ended.position,
        escalates=opened and record.on_breach == "escalate",
        steps=escalation.read(record.escalate_to),
        ceiling_mb=ended.limit_mb,
        asked_mb=record.escalated_mb,
        allowed_mb=ended.allowed_mb,
    )
    decision = after_breach.decide(ended.cause, attempt, max_resumes)
    whose = {"job": record.job, "job_id": job.id, "queue": ended.queue.name, "worker": ended.worker}
    if isinstance(decision, GiveUp):
        if not decision.reason:
            return Plan(ended, "failed")
        reason = decision.reason + _told(record.history, len(record.history) if attempt.escalates else _SHOWN_HISTORY)
        gave_up = events.GaveUp(cause=ended.cause, reason=reason, resumes=record.resumes, **whose)
        return Plan(ended, f"failed; not resumed: {reason}", gave_up=gave_up)
    if decision.step is not None:
        return _escalate(ended, record, decision, decision.step)
    resumed = events.Resumed(
        **whose,
        cause=ended.cause,
        cursor=_cursor(record),
        chunk_size=decision.chunk_size,
        resumes=record.resumes + (decision.cost > 0),
        spent=record.resumes_spent + decision.cost,
        max_resumes=max_resumes,
        delay_seconds=decision.delay_seconds,
    )
    history = record.history
    if decision.cost:
        history = (*history, f"{ended.cause}{_place(ended)}, chunk size {record.chunk_size}")[-_KEPT_HISTORY:]
    text = "what is left is cut in two child jobs" if decision.cut else words.goes_on(resumed)
    return Plan(
        ended, text, record.stage, resumed, decision.chunk_size, decision.delay_seconds,
        cost=decision.cost, cut=decision.cut, history=history,
    )  # fmt: skip


def _escalate(ended: EndedEarly, record: RunRecord, decision: Resume, step: Step) -> Plan:
    escalated = events.Escalated(
        job=record.job,
        job_id=ended.job.id,
        queue=ended.queue.name,
        worker=ended.worker,
        from_mb=ended.limit_mb,
        to_mb=step.ceiling_mb,
        to_queue=step.queue,
        cursor=_cursor(record),
        escalations=record.escalations + 1,
    )
    tried = f"breach{_place(ended)} under {show_mb(ended.limit_mb)} MB in queue {ended.queue.name}"
    history = (*record.history, tried)[-_KEPT_HISTORY:]
    text = words.escalates(escalated)
    return Plan(ended, text, record.stage, escalated, decision.chunk_size, step=step, cost=0, history=history)


def _place(ended: EndedEarly) -> str:
    return f" at {printable(ended.position[:100])}" if ended.position else ""


def _cursor(record: RunRecord) -> str:
    """The cursor as text for people: null if nothing is done yet, 200 characters at most."""
    stage = record.stage or 0
    return json.dumps(_shown(record.cursors.get(stage)) if record.items.get(stage) else None)[:200]


def may_go_on(job: Job, record: RunRecord) -> bool:
    """Whether the job is resumable. A job that died before its class was known has done nothing yet: it is, too."""
    if _opened(job, record):
        return record.on_breach in after_breach.GOES_ON or record.split is not None
    path, dot, name = (path_of(job) or "").rpartition(".")
    return bool(dot) and name == "run" and (job.description or "").startswith(f"{path}(")


def _opened(job: Job, record: RunRecord) -> bool:
    """Whether ``handle`` was entered, in this execution of the job or one before."""
    return record.job_created_at == job.created_at.isoformat()


def _told(history: tuple[str, ...], most: int) -> str:
    """The newest ``most`` entries of the history, as text for the final error."""
    shown = history[-most:] if most else ()
    more = f" (and {len(history) - len(shown)} before these)" if len(history) > len(shown) else ""
    return f"; earlier runs ended with {'; '.join(shown)}{more}" if shown else ""


def remember(job: Job, breach: events.Breach) -> None:
    """Keep the breach: its record in the journal, and a small summary with the job, as ``job.meta["rqmem"]``.

    Before the verdict, while the job still is this execution's. What the job itself saved in its meta stays.
    """
    executions.save_breach(job.connection, breach)
    raw = cast("bytes | None", job.connection.hget(job.key, "meta"))
    try:
        meta = job.serializer.loads(raw) if raw else {}
        meta["rqmem"] = {**meta.get("rqmem", {}), **breach.short()}
        text = job.serializer.dumps(meta)
    except Exception as error:  # noqa: BLE001  a serializer raises what it likes; the record is kept all the same
        _log.debug("job %s: meta cannot be written: %s", job.id, error)
        return
    if job.connection.hexists(job.key, "status"):  # otherwise it was deleted meanwhile
        job.connection.hset(job.key, "meta", text)
        job.meta["rqmem"] = meta["rqmem"]


def _shown(cursor: Any) -> Any:
    """The cursor to show: of a position in a list (`rqmem.sources.position`) only the number."""
    if isinstance(cursor, list):
        return [_shown(each) for each in cursor]
    return cursor["done"] if isinstance(cursor, dict) and "done" in cursor else cursor
