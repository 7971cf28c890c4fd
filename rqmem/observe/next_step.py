"""What becomes of a job now, in one line. Pure."""

from __future__ import annotations

from rqmem import events, words
from rqmem.observe.job import Case
from rqmem.observe.model import JobRow
from rqmem.observe.pool_words import limit_words, refused_words
from rqmem.policy.after_breach import GOES_ON
from rqmem.store.history.history_records import OK
from rqmem.text import date_and_clock

_WAITING = ("queued", "deferred", "scheduled")


def outlook(case: Case) -> str:
    """What happens next to a job, and who does it."""
    if case.running:
        return _while_running(case)
    if case.in_rq is None:
        return "nothing: it ended, and RQ has forgotten it"
    if case.status in _WAITING:
        ended = [told.event for told in case.told if isinstance(told.event, events.Resumed | events.Escalated)][-1:]
        return _while_waiting(case, case.in_rq) + "".join(f"; then {_goes_on(event)}" for event in ended)
    if case.status in ("failed", "stopped"):
        stopped = "it is stopped" if case.status == "stopped" else "nothing by itself"
        return f"{stopped}; 'rqmem retry {case.job_id}' runs it again"
    if case.status == "rate_limited":
        return f"waits: {limit_words(case.limit)}" if case.limit is not None else "waits for its turn (concurrency)"
    return "nothing: it was never enqueued" if case.status == "created" else f"nothing: it is {case.status}"


def in_short(case: Case) -> str:
    """What happened to a job so far, in one sentence; of one that waits, what happens next."""
    reached = f"reached its ceiling {_often(case.breached)}" if case.breached else ""
    if case.running:
        return f"{outlook(case)}{f', and has {reached} so far' if reached else ''}."
    if case.status in _WAITING:
        return f"{f'has {reached}; ' if reached else ''}{outlook(case)}."
    if not case.well:
        ended = case.status if case.status in ("stopped", "canceled") else "failed"
        was = "has failed" if ended == "failed" else f"was {ended}"
        return f"{reached}, and {was} in the end." if reached else f"{was}."
    if case.outcome != OK:
        return f"{outlook(case)}."
    return f"{reached}, went on by itself, and finished." if reached else "finished and never reached its ceiling."


def _often(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def _goes_on(event: events.Resumed | events.Escalated) -> str:
    return words.escalates(event) if isinstance(event, events.Escalated) else words.goes_on(event)


def _while_running(case: Case) -> str:
    if not case.silent:
        return f"runs on {case.worker}" if case.worker else "runs"
    if case.owner is not None:
        goes_on = case.record.on_breach in GOES_ON or case.record.split is not None
        what = "takes the job over" if goes_on else "ends the job, which cannot go on; RQ's Retry counts"
        return f"its worker {case.worker} is silent: another rqmem worker {what}"
    return f"its worker {case.worker} is silent: RQ fails the job when its heartbeat has run out"


def _while_waiting(case: Case, in_rq: JobRow) -> str:
    if case.status == "deferred":
        if case.children is not None:
            return f"gathers when its {case.children.total or 0:,} child jobs have ended"
        return f"waits for {', '.join(in_rq.waits_for) or 'other jobs'}"
    if case.status == "scheduled" and in_rq.due_at is not None:
        late = " (it is late: does a worker run --with-scheduler?)" if in_rq.due_at < case.now else ""
        return f"moved to queue {case.queue!r} at {date_and_clock(in_rq.due_at)}{late}"
    place = f"number {in_rq.position + 1}" if in_rq.position is not None else "waits"
    refused = f"; {refused_words(case.pool, case.wait, case.now)}" if case.wait is not None else ""
    return f"{place} in queue {case.queue!r}{refused}"
