"""What is wrong, and what to do: facts in, troubles out. Pure.

A *problem* makes ``rqmem status`` end with 1; a *note* is worth a look and does not.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rqmem.observe.model import Facts, JobType
from rqmem.units import show_leak, show_mb, to_mb

Mark = Literal["note", "problem"]

NEAR_CEILING = 0.9  # of its ceiling: a job there is about to be stopped
NEARLY_FULL = 0.9  # of Redis' maxmemory, as in `rqmem doctor`
_NAMED = 5  # queues in one advice
REPEATED = 3  # breaches of one job type since the last full hour but one


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong. ``name`` is stable, for programs; ``text`` tells it, ``advice`` says what to do."""

    mark: Mark
    name: str
    text: str
    advice: str


def troubles(facts: Facts) -> list[Trouble]:
    """All of them, problems first."""
    found = [
        *_running(facts),
        *_silent(facts),
        *_queues(facts),
        *_redis(facts),
        *_breaches(facts),
        *_leaks(facts),
        *_alerts(facts),
        *_near_ceiling(facts),
        *_journal(facts),
    ]
    return sorted(found, key=lambda each: each.mark != "problem")  # a stable sort


def healthy(found: Sequence[Trouble]) -> bool:
    """Whether there is no problem."""
    return not any(each.mark == "problem" for each in found)


def _running(facts: Facts) -> Iterator[Trouble]:
    queues = [queue for queue in facts.queues if queue.queued]
    waiting = sum(queue.queued for queue in queues)
    if facts.state == "no workers" and not facts.refuses:
        text = f"no worker is running{f', and {_wait(waiting)}' if waiting else ''}"
        yield Trouble("problem", "no-workers", text, _start(*(queue.name for queue in queues)))
    if facts.suspended:
        text = f"RQ is suspended: no worker takes a job{f', and {_wait(waiting)}' if waiting else ''}"
        yield Trouble("problem", "suspended", text, "'rq resume' lets workers go on")


def _silent(facts: Facts) -> Iterator[Trouble]:
    for worker in facts.workers:
        if worker.kind == "silent" and not facts.refuses:
            where = f" (pid {worker.pid} on {worker.host})" if worker.host else ""
            running = f"; its job {worker.job_id} is taken over by another rqmem worker" if worker.job_id else ""
            yield Trouble(
                "problem",
                "silent-worker",
                f"worker {worker.name}{where} is registered and has not been heard of for two heartbeats",
                f"see whether that process and its machine live{running}",
            )


def _queues(facts: Facts) -> Iterator[Trouble]:
    for queue in facts.queues:
        serving = facts.serving(queue.name)
        if queue.queued and not serving and facts.alive:
            text = f"{_wait(queue.queued)} in queue {queue.name!r}, which no worker serves"
            yield Trouble("problem", "unserved-queue", text, _start(queue.name))
        elif queue.queued and serving and not facts.suspended and all(worker.busy for worker in serving):
            who = "its only worker is" if len(serving) == 1 else f"all its {len(serving)} workers are"
            text = f"{_wait(queue.queued)} in queue {queue.name!r}: {who} busy"
            yield Trouble("note", "busy-queue", text, f"another worker would help: {_start(queue.name)}")
        if queue.due and not queue.scheduler:
            text = f"jobs scheduled for queue {queue.name!r} are due ({queue.due:,}), and nobody moves them there"
            yield Trouble("problem", "no-scheduler", text, f"{_start(queue.name)} --with-scheduler")


def _redis(facts: Facts) -> Iterator[Trouble]:
    if facts.refuses:
        text = f"Redis refuses writes ({facts.refuses}): workers wait, and nobody hears of them"
        yield Trouble("problem", "redis-refuses", text, "mend Redis: they go on by themselves, and nothing is lost")
    memory = facts.memory
    if memory is None or not memory.max_bytes:
        return
    if memory.policy != "noeviction":
        text = f"Redis deletes jobs and results when it is full (maxmemory-policy {memory.policy})"
        yield Trouble("problem", "eviction", text, "CONFIG SET maxmemory-policy noeviction, and in its configuration")
    if memory.used_bytes > NEARLY_FULL * memory.max_bytes:
        share = 100 * memory.used_bytes / memory.max_bytes
        text = f"Redis uses {share:.0f} % of its maxmemory ({to_mb(memory.max_bytes):,.0f} MB)"
        advice = "when it is full, jobs can neither be enqueued nor finished: raise maxmemory, or shorten result_ttl"
        yield Trouble("problem", "redis-full", text, advice)


def _breaches(facts: Facts) -> Iterator[Trouble]:
    for each in facts.types:
        if each.tally.breached >= REPEATED:
            text = f"{each.tally.breached:.0f} breaches of {each.job} lately{_ceiling(each)}"
            look = f"; rqmem inspect {each.last_breach.job_id}" if each.last_breach else ""
            yield Trouble("problem", "breaches", text, f"raise memory_limit_mb or lower chunk_size{look}")


def _leaks(facts: Facts) -> Iterator[Trouble]:
    for each in facts.types:
        if each.tally.leak_mb_per_run is not None:
            size = show_leak(each.tally.leak_mb_per_run)
            found = each.last_leak.text if each.last_leak is not None else f"leaks {size} a run"
            advice = "something outlives its runs (a global, a cache without bound); horses are replaced meanwhile"
            look = f"; rqmem inspect {each.last_leak.job_id}" if each.last_leak is not None else ""
            yield Trouble("problem", "leak", f"{each.job} {found}", f"{advice}{look}")


def _ceiling(each: JobType) -> str:
    run = each.last_breach
    return f" (the last: peak {show_mb(run.peak_mb)} of {show_mb(run.limit_mb)} MB)" if run else ""


def _alerts(facts: Facts) -> Iterator[Trouble]:
    for alert in facts.alerts:
        job = f" of {alert.job}" if alert.job else ""
        yield Trouble("problem", "alert", f"open alert {alert.rule}{job}: {alert.text}", "rqmem alerts")


def _near_ceiling(facts: Facts) -> Iterator[Trouble]:
    for worker in facts.alive:
        job = worker.live.job if worker.live is not None else None
        if job is not None and job.limit_mb and job.usage_mb >= NEAR_CEILING * job.limit_mb:
            share = 100 * job.usage_mb / job.limit_mb
            text = f"{job.job} uses {share:.0f} % of its {show_mb(job.limit_mb)} MB: it is stopped at the ceiling"
            yield Trouble("note", "near-ceiling", text, f"rqmem inspect {job.job_id}")


def _journal(facts: Facts) -> Iterator[Trouble]:
    if facts.journal_error:
        text, _, advice = facts.journal_error.partition(": ")  # our errors end with what to do
        yield Trouble("problem", "journal-version", text, advice or "use the rqmem that wrote it")
    if facts.dropped:
        lost = ", ".join(f"{count:,} {kind}" for kind, count in sorted(facts.dropped.items()))
        advice = "Redis was away or full, or there was too much; figures here may miss them; jobs lost nothing"
        yield Trouble("note", "journal-dropped", f"the journal did not take everything: {lost}", advice)


def _wait(count: int) -> str:
    return "1 job waits" if count == 1 else f"{count:,} jobs wait"


def _start(*queues: str) -> str:
    more = f" and {len(queues) - _NAMED:,} more queues" if len(queues) > _NAMED else ""
    return shlex.join(["rqmem", "worker", *queues[:_NAMED]]) + more
