"""What `scripts.bench.throughput` measures, a section each.

A section gives rows, whose keys are the columns of its table.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, NamedTuple

import click
from redis import Redis
from rq import Queue

import rqmem
from scripts.bench import splits, systems
from scripts.bench.peers import rq_jobs, work
from scripts.bench.systems import ALL, CELERY, DRAMATIQ, HUEY, ONE_BY_ONE, OURS, RQ, RQMEM, SAQ, TASKIQ, Notes, System

Row = dict[str, Any]
_QUEUES = 50


@dataclass(frozen=True)
class Bench:
    """What a section works with. ``scale`` is 1, or less for a short try; ``core``: for runs pinned to one."""

    connection: Redis
    notes: Notes
    rounds: int
    scale: float
    core: int

    def installed(self, chosen: tuple[System, ...]) -> Iterator[System]:
        for system in chosen:
            if system.installed:
                yield system
            else:
                click.echo(f"{system.name} is not installed: pip install -r scripts/bench/peers.txt", err=True)

    def jobs(self, system: System, seconds: float, least: int = 40, most: float = math.inf) -> int:
        """Of a run of about so many seconds."""
        return int(min(most, max(least, int(system.rate * seconds * self.scale))))

    def medians(self, chosen: tuple[System, ...], measured: Callable[[System], systems.Run]) -> list[Row]:
        """Each system in turn, so that all of them have had the machine at its best and at its worst."""
        there = list(self.installed(chosen))
        found: dict[str, list[systems.Run]] = {each.name: [] for each in there}
        for _, system in itertools.product(range(self.rounds), there):
            found[system.name].append(measured(system))
        return [{"system": name, **_figures(systems.medians(runs))} for name, runs in found.items()]

    def compare(
        self, chosen: tuple[System, ...], seconds: float, least: int = 40, most: float = math.inf, **more: Any
    ) -> list[Row]:
        """The same of runs as in `jobs`. ``more``: of `systems.measure`."""

        def measured(system: System) -> systems.Run:
            jobs = self.jobs(system, seconds, least, most)
            return systems.measure(self.connection, self.notes, system, jobs, **more)

        return self.medians(chosen, measured)


def _figures(run: systems.Run) -> Row:
    return {
        "jobs a second": _rounded(run.per_second),
        "CPU us a job": _rounded(run.all_us),
        "worker": _rounded(run.worker_us),
        "its processes": _rounded(run.rest_us),
        "Redis": _rounded(run.redis_us),
        "commands": round(run.commands, 1),
    }


def _rounded(value: float) -> float:
    """To three digits."""
    return float(f"{value:.3g}")


def _with_ratio(rows: list[Row]) -> list[Row]:
    base = next((row["jobs a second"] for row in rows if row["system"] == RQ.name), None)
    return [{**row, "times rq worker": _rounded(row["jobs a second"] / base)} if base else row for row in rows]


def nothing(bench: Bench) -> list[Row]:
    return _with_ratio(bench.compare(ALL, 3))


def pinned(bench: Bench) -> list[Row]:
    return _with_ratio(bench.compare(ALL, 3, core=bench.core))


_COMPARED = (RQ, RQMEM, ONE_BY_ONE, CELERY, DRAMATIQ, HUEY, SAQ, TASKIQ)


def durations(bench: Bench) -> list[Row]:
    rows: list[Row] = []
    one_at_a_time = tuple(each for each in _COMPARED if each not in (DRAMATIQ, SAQ, TASKIQ))
    for seconds in (0.001, 0.01, 0.1, 1.0):
        count = max(5, int(min(400, 4 / seconds) * bench.scale))
        for row in bench.compare(one_at_a_time, 4, least=5, most=count, call={"seconds": seconds}):
            beside = 1000 / row["jobs a second"] - 1000 * seconds
            rows.append({"a job sleeps ms": 1000 * seconds, **row, "beside it ms": round(beside, 2)})
    return rows


def sizes(bench: Bench) -> list[Row]:
    keeping = tuple(
        replace(each, environ={**each.environ, work.RESULTS_VARIABLE: "1"})
        for each in (RQ, RQMEM, CELERY, DRAMATIQ, HUEY)
    )
    rows: list[Row] = []
    for kb, what in itertools.product((1, 10, 100, 1000), ("argument", "result")):
        call = {"argument": "x" * kb * 1024} if what == "argument" else {"result_bytes": kb * 1024}
        most = max(40, 200_000 * bench.scale / kb)
        rows += [{"KB": kb, "of": what, **row} for row in bench.compare(keeping, 2, most=most, call=call)]
    return rows


def latency(bench: Bench) -> list[Row]:
    rows = []
    for system in bench.installed(tuple(each for each in ALL if each not in OURS[1:2])):
        found = systems.latencies(bench.connection, bench.notes, system, max(20, int(200 * bench.scale)), 0.05)
        at = {share: found[min(len(found) - 1, int(share * len(found)))] for share in (0.5, 0.9, 0.99)}
        rows.append({"system": system.name, **{f"p{100 * share:g} ms": round(at[share], 2) for share in at}})
    return rows


def workers(bench: Bench) -> list[Row]:
    rows: list[Row] = []
    for count in (1, 2, 4):
        found = bench.compare((RQ, RQMEM, HUEY), 3 * min(2, count), workers=count)
        rows += [{"workers": count, **row} for row in found]
    return rows


def queues(bench: Bench) -> list[Row]:
    names = [f"queue-{number}" for number in range(_QUEUES)]
    rows: list[Row] = []
    for where in ("all of them", "the last"):
        chosen = names if where == "all of them" else names[-1:]

        def measured(system: System, chosen: list[str] = chosen) -> systems.Run:
            each = max(2, bench.jobs(system, 3) // len(chosen))
            bench.connection.flushall()
            for name in chosen:
                rq_jobs.send(({} for _ in range(each)), name)
            jobs = each * len(chosen)
            return systems.measure(bench.connection, bench.notes, system, jobs, more=tuple(names), sent=True)

        rows += [{"jobs in": where, **row} for row in bench.medians((RQ, RQMEM), measured)]
    return rows


def depth(bench: Bench) -> list[Row]:
    """The first of so many jobs."""
    rows = []
    for waiting in (10, int(1_000_000 * bench.scale)):
        for system in (RQ, RQMEM):
            jobs = bench.jobs(system, 2)
            bench.connection.flushall()
            rq_jobs.send({} for _ in range(waiting if waiting > jobs else 0))
            if waiting > jobs:
                run = systems.measure(bench.connection, bench.notes, system, jobs, sent=True)
            else:
                run = _kept_at(bench, system, waiting, jobs)
            rows.append({"jobs that wait": waiting, "system": system.name, **_figures(run)})
    return rows


def _kept_at(bench: Bench, system: System, waiting: int, jobs: int) -> systems.Run:
    """Run with so few in the queue: each batch is sent when the last has run."""
    with systems.working(system.argv()) as processes:
        bench.notes.clear()
        meter, batches = systems.Meter(bench.connection, processes), jobs // waiting
        for number in range(1 + batches):
            rq_jobs.send({} for _ in range(waiting))
            systems.wait_for(bench.notes, (number + 1) * waiting, processes, system.name)
            if number == 0:  # it has started
                meter = systems.Meter(bench.connection, processes)
        return meter.read(batches * waiting)


def swarm(bench: Bench) -> list[Row]:
    """20,000 jobs over ten workers, from the start of the workers to the last job."""
    rows = []
    for system in bench.installed(_COMPARED):
        jobs = int(20_000 * bench.scale)
        bench.connection.flushall()
        system.send({} for _ in range(jobs))
        bench.notes.clear()
        began = time.monotonic()
        with systems.working(system.argv(), workers=10, environ=system.environ) as processes:
            systems.wait_for(bench.notes, jobs, processes, system.name)
            seconds = time.monotonic() - began
        rows.append(
            {
                "system": system.name,
                "jobs": jobs,
                "seconds": round(seconds, 1),
                "jobs a second": _rounded(jobs / seconds),
            }
        )
    return rows


def children(bench: Bench) -> list[Row]:
    rows = []
    for count in (max(100, int(3000 * bench.scale)), max(400, int(100_000 * bench.scale))):
        tree = splits.grow(bench.connection, count)
        rows.append(
            {
                "children": count,
                "all us a child": round(tree.all_us),
                "split": round(tree.split_us),
                "run": round(tree.run_us),
                "gather": round(tree.gather_us, 1),
                "commands a child": round(tree.commands, 1),
                "parent grew MB": round(tree.growth_mb, 1),
            }
        )
    return rows


def enqueue(bench: Bench) -> list[Row]:
    queue, path = Queue(work.QUEUE, connection=bench.connection), f"{work.__name__}.run"
    jobs = int(30_000 * bench.scale)

    def many(calls: Iterable[Any]) -> None:
        rqmem.enqueue_many(queue, calls)

    def stock() -> None:
        for _ in range(jobs // 500):
            queue.enqueue_many([Queue.prepare_data(path) for _ in range(500)])

    ways: dict[str, tuple[Callable[[], Any], int]] = {
        "rq: enqueue, one by one": (lambda: [queue.enqueue(path) for _ in range(jobs // 10)], jobs // 10),
        "rq: enqueue_many, 500 at a time": (stock, jobs // 500 * 500),
        "rqmem: enqueue_many of a generator": (lambda: many((path, ()) for _ in range(jobs)), jobs),
        "rqmem: enqueue_many of a list": (lambda: many([(path, ())] * jobs), jobs),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _, (name, (way, count)) in itertools.product(range(bench.rounds), ways.items()):
        bench.connection.flushall()
        at, used = time.perf_counter(), time.process_time()
        way()
        found[name].append((count / (time.perf_counter() - at), (time.process_time() - used) / count * 1e6))
    return [
        {
            "way": name,
            "jobs a second": _rounded(median(each[0] for each in runs)),
            "CPU us a job": _rounded(median(each[1] for each in runs)),
        }
        for name, runs in found.items()
    ]


class Section(NamedTuple):
    """``minutes``: about how long it takes on two processors."""

    title: str
    measure: Callable[[Bench], list[Row]]
    minutes: float


SECTIONS = {
    "noop": Section("Jobs that do nothing, one worker", nothing, 5),
    "pinned": Section("The same, worker and Redis on one processor", pinned, 5),
    "durations": Section("Jobs of 1 ms to 1 s, one at a time", durations, 6),
    "sizes": Section("Arguments and results of 1 KB to 1 MB", sizes, 12),
    "latency": Section("From the call that enqueues to the begin of the job, on an idle worker", latency, 4),
    "workers": Section("One, two and four workers on one queue", workers, 4),
    "queues": Section("50 queues on one worker", queues, 1),
    "depth": Section("10 and 1,000,000 jobs that wait", depth, 3),
    "swarm": Section("20,000 jobs over ten workers, start of the workers included", swarm, 8),
    "children": Section("Children: split, run and gathered", children, 4),
    "enqueue": Section("Enqueueing", enqueue, 1),
}
