"""What is wrong in a snapshot, and what to do about it. Pure.

A problem whose mark is *problem* makes ``rqmem status`` end with 1; one whose mark is *note* does not.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from typing import Literal

from rqmem.errors import JournalVersionError
from rqmem.observe.metric_words import escalation_words
from rqmem.observe.model import JobType, Snapshot
from rqmem.observe.pool_words import holding_words
from rqmem.policy.admission import PATIENCE_SECONDS
from rqmem.text import span
from rqmem.units import show_leak, show_mb, to_mb
from rqmem.values import dataclass

Mark = Literal["ok", "note", "problem"]

NEAR_CEILING = 0.9  # of its ceiling: a job there is about to be stopped
NEARLY_FULL = 0.9  # of Redis' maxmemory
_NAMED = 5  # queues in one advice
REPEATED = 3  # breaches of one job type since the last full hour but one


@dataclass(frozen=True)
class Finding:
    """What a check says, here and in the doctor.

    Attributes:
        name: what it is about, in a word or two; of a problem in a snapshot it is stable, for programs.
        mark: ``ok``; ``note``: it works, and something could be better; ``problem``: it does not.
        text: what was found.
        advice: what to do, where it is not ``ok``.
    """

    name: str
    mark: Mark
    text: str
    advice: str = ""


def problems(snapshot: Snapshot) -> list[Finding]:
    """All of them, problems first."""
    found = [
        *_running(snapshot),
        *_silent(snapshot),
        *_pools(snapshot),
        *_limits(snapshot),
        *_queues(snapshot),
        *_redis(snapshot),
        *_breaches(snapshot),
        *_escalations(snapshot),
        *_leaks(snapshot),
        *_alerts(snapshot),
        *_near_ceiling(snapshot),
        *_journal(snapshot),
    ]
    return sorted(found, key=lambda each: each.mark != "problem")  # a stable sort


def healthy(found: Iterable[Finding]) -> bool:
    """Whether none of these is marked as a problem."""
    return not any(each.mark == "problem" for each in found)


def _running(snapshot: Snapshot) -> Iterator[Finding]:
    queues = [queue for queue in snapshot.queues if queue.queued]
    waiting = sum(queue.queued for queue in queues)
    if snapshot.state == "no workers" and not snapshot.refuses:
        text = f"no worker is running{f', and {_wait(waiting)}' if waiting else ''}"
        yield Finding("no-workers", "problem", text, _start(*(queue.name for queue in queues)))
    if snapshot.suspended:
        text = f"RQ is suspended: no worker takes a job{f', and {_wait(waiting)}' if waiting else ''}"
        yield Finding("suspended", "problem", text, "'rq resume' lets workers go on")


def _silent(snapshot: Snapshot) -> Iterator[Finding]:
    for worker in snapshot.workers:
        if worker.kind == "silent" and not snapshot.refuses:
            where = f" (pid {worker.pid} on {worker.host})" if worker.host else ""
            running = f"; its job {worker.job_id} is taken over by another rqmem worker" if worker.job_id else ""
            yield Finding(
                "silent-worker",
                "problem",
                f"worker {worker.name}{where} is registered and has not been heard of for two heartbeats",
                f"see whether that process and its machine live{running}",
            )


def _pools(snapshot: Snapshot) -> Iterator[Finding]:
    for pool in snapshot.pools:
        if pool.paused:
            text = f"pool {pool.pool} takes no jobs: {pool.paused}"
            yield Finding(
                "pool-paused", "problem", text, "see what else uses memory on that machine; it goes on by itself"
            )
        elif pool.waiting and (pool.waiting_seconds or 0.0) > PATIENCE_SECONDS:
            text = (
                f"{_wait(pool.waiting)} for room in pool {pool.pool}, the first for {span(pool.waiting_seconds or 0.0)}"
            )
            first = pool.waits[0] if pool.waits else None
            if first is not None:
                text += f" ({first.job}, which needs {show_mb(round(first.need_mb))} MB: {first.reason})"
            option = "--tenant-memory" if first is not None and first.why == "tenant" else "--total-memory"
            yield Finding("pool-full", "note", text, f"give {option} more, or add a machine")


def _limits(snapshot: Snapshot) -> Iterator[Finding]:
    for limit in snapshot.limits[:_NAMED]:
        if limit.waiting_since is not None and snapshot.at - limit.waiting_since > PATIENCE_SECONDS:
            text = f"{holding_words(limit)}; the first has waited for {span(snapshot.at - limit.waiting_since)}"
            yield Finding("held-back", "note", text, "it goes on by itself; a higher concurrency lets more run at once")


def _queues(snapshot: Snapshot) -> Iterator[Finding]:
    short_of_memory = tuple(f"{pool.pool}-" for pool in snapshot.pools if pool.waiting or pool.paused)
    for queue in snapshot.queues:
        serving = snapshot.serving(queue.name)
        if queue.queued and not serving and snapshot.alive:
            text = f"{_wait(queue.queued)} in queue {queue.name!r}, which no worker serves"
            yield Finding("unserved-queue", "problem", text, _start(queue.name))
        elif queue.queued and serving and not snapshot.suspended and all(worker.busy for worker in serving):
            if all(worker.name.startswith(short_of_memory) for worker in serving):
                continue  # more workers would not help: `_pools` says what does
            who = "its only worker is" if len(serving) == 1 else f"all its {len(serving)} workers are"
            text = f"{_wait(queue.queued)} in queue {queue.name!r}: {who} busy"
            yield Finding("busy-queue", "note", text, f"another worker would help: {_start(queue.name)}")
        if queue.due and not queue.scheduler:
            text = f"jobs scheduled for queue {queue.name!r} are due ({queue.due:,}), and no worker moves them there"
            yield Finding("no-scheduler", "problem", text, f"{_start(queue.name)} --with-scheduler")


def _redis(snapshot: Snapshot) -> Iterator[Finding]:
    if snapshot.refuses:
        text = f"Redis refuses writes ({snapshot.refuses}): workers wait, and their heartbeats are not written"
        yield Finding("redis-refuses", "problem", text, "mend Redis: they go on by themselves, and nothing is lost")
    memory = snapshot.memory
    if memory is None or not memory.max_bytes:
        return
    if memory.policy != "noeviction":
        text = f"Redis deletes jobs and results when it is full (maxmemory-policy {memory.policy})"
        yield Finding("eviction", "problem", text, "CONFIG SET maxmemory-policy noeviction, and in its configuration")
    if memory.used_bytes > NEARLY_FULL * memory.max_bytes:
        share = 100 * memory.used_bytes / memory.max_bytes
        text = f"Redis uses {share:.0f} % of its maxmemory ({to_mb(memory.max_bytes):,.0f} MB)"
        advice = "when it is full, jobs can neither be enqueued nor finished: raise maxmemory, or shorten result_ttl"
        yield Finding("redis-full", "problem", text, advice)


def _breaches(snapshot: Snapshot) -> Iterator[Finding]:
    for each in snapshot.job_types:
        breached = each.tally.breached - each.tally.escalations  # others were answered with a higher ceiling
        if breached >= REPEATED:
            text = f"{breached:.0f} breaches of {each.job_type} lately{_ceiling(each)}"
            less = "lower chunk_size" if each.tally.chunks else "let it work in chunks"
            look = f"; rqmem inspect {each.last_breach.job_id}" if each.last_breach else ""
            yield Finding("breaches", "problem", text, f"raise its ceiling or {less}{look}")


def _escalations(snapshot: Snapshot) -> Iterator[Finding]:
    for each in snapshot.job_types:
        advice = escalation_words(each.tally.needed, each.ceilings.declared_ceiling_mb)
        if advice and each.tally.escalations:
            text = f"{each.job_type} escalated {each.tally.escalations:.0f} times lately"
            yield Finding("escalations", "note", text, advice)


def _leaks(snapshot: Snapshot) -> Iterator[Finding]:
    for each in snapshot.job_types:
        if each.tally.leak_mb_per_run is not None:
            size = show_leak(each.tally.leak_mb_per_run)
            found = each.last_leak.text if each.last_leak is not None else f"leaks {size} a run"
            advice = "something outlives its runs (a global, a cache without bound); horses are replaced meanwhile"
            look = f"; rqmem inspect {each.last_leak.job_id}" if each.last_leak is not None else ""
            yield Finding("leak", "problem", f"{each.job_type} {found}", f"{advice}{look}")


def _ceiling(each: JobType) -> str:
    run = each.last_breach
    return f" (the last: peak {show_mb(run.peak_mb)} of {show_mb(run.limit_mb)} MB)" if run else ""


def _alerts(snapshot: Snapshot) -> Iterator[Finding]:
    for alert in snapshot.open_alerts:
        job = f" of {alert.job}" if alert.job else ""
        yield Finding("alert", "problem", f"open alert {alert.rule}{job}: {alert.text}", "rqmem alerts")


def _near_ceiling(snapshot: Snapshot) -> Iterator[Finding]:
    for worker in snapshot.alive:
        job, share = worker.job, worker.share
        if job is not None and share is not None and share >= NEAR_CEILING:
            text = f"{job.job} uses {100 * share:.0f} % of its {show_mb(job.limit_mb)} MB: it is stopped at the ceiling"
            yield Finding("near-ceiling", "note", text, f"rqmem inspect {job.job_id}")


def _journal(snapshot: Snapshot) -> Iterator[Finding]:
    if snapshot.journal_error:
        yield Finding("journal-version", "problem", snapshot.journal_error, JournalVersionError.ADVICE)
    if snapshot.dropped:
        lost = ", ".join(f"{count:,} {kind}" for kind, count in sorted(snapshot.dropped.items()))
        advice = "Redis was away or full, or there was too much; figures here may miss them; jobs lost nothing"
        yield Finding("journal-dropped", "note", f"the journal did not take everything: {lost}", advice)


def _wait(count: int) -> str:
    return "1 job waits" if count == 1 else f"{count:,} jobs wait"


def _start(*queues: str) -> str:
    more = f" and {len(queues) - _NAMED:,} more queues" if len(queues) > _NAMED else ""
    return shlex.join(["rqmem", "worker", *queues[:_NAMED]]) + more
