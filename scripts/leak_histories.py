"""Tests how well leaks are told apart from lookalikes: ``python -m scripts.leak_histories [--histories 1000]``.

Simulated histories of a warm horse, run through the policies that the worker uses (`rqmem.policy.leaks` and
`rqmem.policy.recycling`): healthy ones, in which every leak found is a false alarm, and leaks of 10 KB to 10 MB a run
among healthy jobs, with the runs until they are found. Ends with 1 at a false alarm, or a leak that is not found.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import click

from rqmem.policy import leaks, recycling
from rqmem.policy.leaks import Leak, Leaks, Probed
from rqmem.policy.recycling import AfterJob, HorseState
from rqmem.units import MB

KB = 1024
CEILING_BYTES = 256 * MB
WORTH_TIDYING_BYTES = 4 * MB  # as rqmem.worker.horse.leak_probe
RUN_SECONDS, PROBE_SECONDS = 0.1, 0.015
RUNS = 4000
LONGEST_BYTES = 400 * MB  # that a leak has cost when it counts as not found
Keeps = Callable[[int, random.Random], int]
"""Run in this horse, from 0 -> bytes that it keeps for good."""


@dataclass
class Job:
    """A job type: what its runs keep, and the garbage that they leave for the collector."""

    name: str
    keeps: Callable[[random.Random], Keeps]
    garbage_bytes: int = 0


def nothing(chance: random.Random) -> Keeps:
    return lambda run, _: 0


def imports(chance: random.Random) -> Keeps:
    """Imports in the first run, and in two later ones that reach other branches of the code."""
    sizes = {run: chance.randrange(2 * MB, 15 * MB) for run in (0, chance.randrange(1, 50), chance.randrange(50, 800))}
    return lambda run, _: sizes.get(run, 0)


def cache_that_fills(chance: random.Random) -> Keeps:
    """One entry a run, until it is full."""
    size, entries = chance.randrange(1 * MB, 20 * MB), chance.randrange(100, 2000)
    return lambda run, _: size // entries if run < entries else 0


def cache_by_key(chance: random.Random) -> Keeps:
    """Each run asks for some of a number of keys; what was asked for stays."""
    keys, size, asked = chance.randrange(200, 2000), chance.randrange(10 * MB, 40 * MB), chance.randrange(1, 20)
    known: set[int] = set()

    def keep(run: int, chance: random.Random) -> int:
        if run == 0:
            known.clear()
        before = len(known)
        known.update(chance.randrange(keys) for _ in range(asked))
        return (len(known) - before) * size // keys

    return keep


def fragmentation(chance: random.Random) -> Keeps:
    """Holes in the heap that come and go: a random walk that is pulled back to the middle."""
    step, span = chance.randrange(200 * KB, 3 * MB), chance.randrange(4 * MB, 25 * MB)
    at = 0.0

    def keep(run: int, chance: random.Random) -> int:
        nonlocal at
        at = 0.0 if run == 0 else at
        before, at = at, min(float(span), max(0.0, at + chance.gauss(0, step) + 0.02 * (span / 2 - at)))
        return round(at - before)

    return keep


def leak_of(bytes_per_run: int) -> Callable[[random.Random], Keeps]:
    """``bytes_per_run`` in each run, give or take a third."""
    return lambda chance: lambda run, chance: round(bytes_per_run * chance.uniform(0.67, 1.33))


HEALTHY: dict[str, tuple[Job, ...]] = {
    "nothing but garbage": (Job("garbage", nothing, 900 * KB),),
    "imports": (Job("imports", imports, 100 * KB), Job("other", imports)),
    "a cache that fills": (Job("fills", cache_that_fills, 50 * KB),),
    "a cache by key": (Job("by key", cache_by_key, 50 * KB),),
    "fragmentation": (Job("fragments", fragmentation, 300 * KB),),
    "mixed": (Job("fills", cache_that_fills), Job("fragments", fragmentation, 2 * MB), Job("imports", imports),
              Job("garbage", nothing, 500 * KB)),
}  # fmt: skip
COMPANY = (Job("imports", imports, 100 * KB), Job("garbage", nothing, 500 * KB), Job("by key", cache_by_key))
LEAKS = {"10 KB": 10 * KB, "100 KB": 100 * KB, "1 MB": MB, "10 MB": 10 * MB}


@dataclass
class Horses:
    """One worker's horses, one after the other."""

    ceiling_bytes: int
    chance: random.Random
    leaks: Leaks = field(default_factory=Leaks)
    state: HorseState = field(default_factory=HorseState)
    kept: int = 0
    garbage: int = 0
    tidied: int = 0
    held: int = 0
    by_first_runs: int = 0
    worked_seconds: float = 0.0
    spent_seconds: float = 0.0
    recycled: int = 0
    probed: dict[str, Probed] = field(default_factory=dict)
    runs_of: dict[str, int] = field(default_factory=dict)

    def run(self, job: Job, keep: Keeps) -> Leak | None:
        """One job, and all that its horse (`rqmem.worker.horse.leak_probe`) and its worker do about it."""
        grown = self.tidied - self.by_first_runs
        before = self.probed.get(job.name, Probed())
        probe = leaks.worth_a_probe(grown, self.spent_seconds, self.worked_seconds, before)
        left = keep(self.runs_of.get(job.name, 0), self.chance)
        self.kept += left
        self.garbage += round(job.garbage_bytes * self.chance.expovariate(1))
        self.worked_seconds += RUN_SECONDS
        self.spent_seconds += PROBE_SECONDS * probe
        if probe or self.kept + self.garbage - self.tidied >= WORTH_TIDYING_BYTES:
            self.garbage, self.tidied = 0, self.kept
        held = self.kept + self.garbage
        if job.name not in self.runs_of:
            self.by_first_runs += max(0, held - self.held)
        self.held = held
        self.runs_of[job.name] = self.runs_of.get(job.name, 0) + 1
        self.probed[job.name] = before.after(left if probe else None)
        found, self.leaks = leaks.observe(self.leaks, job.name, left if probe else None, self.ceiling_bytes)
        reason, self.state = recycling.decide(self.state, AfterJob(job.name, held), self.ceiling_bytes, 0)
        if reason or found:
            self._recycle()
        return found

    def _recycle(self) -> None:
        self.leaks, self.state = self.leaks.in_new_horse(), HorseState()
        self.kept = self.garbage = self.tidied = self.held = self.by_first_runs = 0
        self.worked_seconds = self.spent_seconds = 0.0
        self.runs_of.clear()
        self.probed.clear()
        self.recycled += 1


def history(jobs: tuple[Job, ...], seed: int) -> Iterator[Leak | None]:
    """What is found after each run of a history in which those jobs come in any order."""
    chance = random.Random(seed)
    horses = Horses(CEILING_BYTES, chance)
    keeps = {job.name: job.keeps(chance) for job in jobs}
    for _ in range(RUNS):
        job = chance.choice(jobs)
        yield horses.run(job, keeps[job.name])


def false_alarms(histories: int) -> dict[str, int]:
    """Kind of healthy history -> in how many of them something was found."""
    return {name: sum(any(history(jobs, seed)) for seed in range(histories)) for name, jobs in HEALTHY.items()}


def delays(bytes_per_run: int, histories: int) -> tuple[list[int], int]:
    """Runs of the leaking job until it was found, in each history; and how often another was named."""
    found_after, wrong = [], 0
    leaky = Job("leaky", leak_of(bytes_per_run), 50 * KB)
    for seed in range(histories):
        chance = random.Random(seed)
        horses = Horses(CEILING_BYTES, chance)
        keeps = {job.name: job.keeps(chance) for job in (*COMPANY, leaky)}
        runs = 0
        while True:
            job = chance.choice((*COMPANY, leaky))
            runs += job is leaky
            found = horses.run(job, keeps[job.name])
            if found and found.job == "leaky":
                found_after.append(runs)
                break
            wrong += found is not None
            if runs * bytes_per_run > LONGEST_BYTES:
                break
    return found_after, wrong


@click.command()
@click.option("--histories", type=click.IntRange(min=1), default=1000, show_default=True, help="Of healthy jobs.")
def main(histories: int) -> None:
    """Simulate, and print false alarms and delays."""
    each = max(1, histories // len(HEALTHY))
    alarms = false_alarms(each)
    click.echo(f"healthy histories of {RUNS} runs, ceiling {CEILING_BYTES // MB} MB: false alarms")
    for name, count in alarms.items():
        click.echo(f"  {name:<22} {count} of {each}")
    click.echo("\nleaks among three healthy job types: runs of the leaking one until it was found")
    missed = wrong = 0
    few = max(1, each // 4)
    for name, size in LEAKS.items():
        after, others = delays(size, few)
        missed, wrong = missed + few - len(after), wrong + others
        shown = f"median {statistics.median(after):.0f}, at most {max(after)}" if after else "never"
        click.echo(f"  {name:>6} a run: {shown} ({len(after)} of {few} found, another named {others} times)")
    bad = sum(alarms.values()) + wrong
    if missed or bad:
        raise SystemExit(f"{bad} false alarms, {missed} leaks not found")


if __name__ == "__main__":
    main()
