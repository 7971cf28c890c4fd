"""Plays a trace of jobs against `rqmem.policy.admission`, as workers and their pool would, without processes or time.

`play` returns when each job began and how much was reserved meanwhile.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rqmem.policy import admission
from rqmem.policy.admission import Answer, Asking, Room, Share, WaitingJobs

_TICK_SECONDS = 1.0


@dataclass(frozen=True)
class TraceJob:
    """A job of a trace. Sizes in MB.

    Attributes:
        at: when it is enqueued.
        seconds: how long it runs.
        need_mb: what is reserved for it; ``used_mb``: what it uses.
        tenant: for whom it works.
    """

    at: float
    seconds: float
    need_mb: int
    used_mb: int
    tenant: str = ""


@dataclass
class Played:
    """What came of a trace.

    Attributes:
        began: when each job began, in the order of the trace.
        refused: job -> when it was first refused.
        reserved, used: (time, MB) at each change.
    """

    began: list[float]
    reserved: list[tuple[float, int]] = field(default_factory=list)
    used: list[tuple[float, int]] = field(default_factory=list)
    refused: dict[int, float] = field(default_factory=dict)

    def average_used_mb(self) -> float:
        """Over the whole time."""
        areas = ((later - at) * mb for (at, mb), (later, _) in zip(self.used, self.used[1:], strict=False))
        return sum(areas) / max(1e-9, self.used[-1][0] - self.used[0][0])


def play(trace: Sequence[TraceJob], workers: int, budget_mb: int, tenant_mb: int | None = None) -> Played:
    """Play it to its end. Jobs stand in one queue, by the time at which they are enqueued.

    ``tenant_mb``: what the jobs of one tenant may use together; None: as all.
    """
    played = Played([-1.0] * len(trace))
    queue: list[int] = []
    running: dict[int, int] = {}  # worker -> job
    waiting: WaitingJobs = ()
    events = [(job.at, 0, number, -1) for number, job in enumerate(trace)]
    heapq.heapify(events)
    while events:
        now, kind, number, worker = heapq.heappop(events)
        if kind == 0:
            queue.append(number)
        elif kind == 1:
            del running[worker]
        while True:
            room = _room(trace, running, workers, budget_mb, tenant_mb)
            idle = next((each for each in range(workers) if each not in running), None)
            waiting = admission.tidy(room, waiting, now, idle=idle is not None)
            passed = set(admission.passed_over(room, waiting, now))
            found = next((job for job in queue if str(job) not in passed), None)
            if idle is None or found is None:
                break
            before = len(waiting)
            answer, waiting = admission.ask(
                Asking(str(found), trace[found].need_mb, trace[found].tenant), room, waiting, now
            )
            if answer is Answer.START:
                queue.remove(found)
                running[idle] = found
                played.began[found] = now
                heapq.heappush(events, (now + trace[found].seconds, 1, found, idle))
                continue
            played.refused.setdefault(found, now)
            if len(waiting) == before:  # the list is full
                break
        played.reserved.append((now, sum(trace[job].need_mb for job in running.values())))
        played.used.append((now, sum(trace[job].used_mb for job in running.values())))
        if queue and not any(each[1] == 2 for each in events):
            heapq.heappush(events, (now + _TICK_SECONDS, 2, -1, -1))
    return played


def _room(
    trace: Sequence[TraceJob], running: dict[int, int], workers: int, budget_mb: int, tenant_mb: int | None
) -> Room:
    jobs = (trace[running[each]] if each in running else None for each in range(workers))
    shares = [Share(job.need_mb, job.used_mb, job.tenant) if job is not None else Share() for job in jobs]
    return Room(budget_mb, shares, None, tenant_mb)


def mixed(count: int, seed: int, ceiling_mb: int = 600, *, by_need: bool = True) -> list[TraceJob]:
    """A usual mix: most jobs are small and short, and one in ten needs most of its ceiling.

    ``by_need`` False: the ceiling is reserved for each.
    """
    draw = random.Random(seed)
    return _made(count, draw, lambda: 400 if draw.random() < 0.1 else draw.randint(20, 80), ceiling_mb, by_need)


def heavy_tailed(count: int, seed: int, ceiling_mb: int = 600, *, by_need: bool = True) -> list[TraceJob]:
    """Sizes and times by a law in which the largest few are most of the whole."""
    draw = random.Random(seed)
    return _made(count, draw, lambda: min(ceiling_mb, int(20 * draw.paretovariate(1.1))), ceiling_mb, by_need)


def _made(count: int, draw: random.Random, size: Callable[[], int], ceiling_mb: int, by_need: bool) -> list[TraceJob]:
    jobs, at = [], 0.0
    for _ in range(count):
        used = size()
        need = min(ceiling_mb, int(admission.MARGINS["fair"] * used)) if by_need else ceiling_mb
        jobs.append(TraceJob(at, min(60.0, draw.paretovariate(1.5)), need, used))
        at += draw.expovariate(1.5)
    return jobs


def endless_small(seconds: int, big_mb: int) -> list[TraceJob]:
    """An adversary: small jobs come for so long, twice as many as fit, and one that needs nearly all of the budget."""
    small = [TraceJob(number / 4, 5.0, 60, 60) for number in range(4 * seconds)]
    return sorted([*small, TraceJob(10.0, 5.0, big_mb, big_mb)], key=lambda job: job.at)
