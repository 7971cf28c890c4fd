"""The table of adversaries: how far above the ceiling, who acted, whether the error is right, what was left behind."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import click
from rq import Callback, Queue
from rq.job import Job, JobStatus

from rqmem.store import execution_reader
from rqmem.testing.catalogue import Adversary
from rqmem.testing.meanwhile import happen
from scripts.bench import jobs
from scripts.bench.worker_runs import Ended, How, Running, empty_queue, milliseconds_between, run
from scripts.harness import error_of

UNWOUND_MB, KILLED_MB = 8.0, 32.0 + 8.0
UNWOUND_LAYERS = {"watch", "checkpoint"}
_UNSEEN_MB = KILLED_MB + 64  # a largest process above that (mapped files are in it) was not watched

HEADER = """
"above": the highest usage in the breach record less the ceiling, in MB: what the watcher saw, or the kernel's
layer. "largest": the kernel's own mark of the largest single process below the worker, mapped files included,
over all runs; it also knows of what nobody watched, and nothing of what many processes used together.
"""


@dataclass
class Row:
    runs: int
    above: list[tuple[str, float]] = field(default_factory=list)
    right: int = 0
    next_ms: list[float] = field(default_factory=list)
    next_ran: int = 0
    left: list[str] = field(default_factory=list)
    largest_mb: float = 0.0
    failures: list[str] = field(default_factory=list)

    def add(self, adversary: Adversary, job: Job, after: Job) -> None:
        breaches = execution_reader.breaches(job.connection, job.id)
        right = f"MemoryLimitExceeded: {adversary.path} used " in error_of(job)
        self.right += bool(right and breaches and job.get_status() == JobStatus.FAILED)
        self.above += [(breach.layer, breach.peak_mb - breach.limit_mb) for breach in breaches]
        pause = milliseconds_between(job, after)
        self.next_ran += after.get_status() == JobStatus.FINISHED
        if pause is not None and not adversary.meanwhile:
            self.next_ms.append(pause)

    def end(self, ended: Ended) -> None:
        self.largest_mb = max(self.largest_mb, ended.largest_mb)
        self.left += ended.left
        if ended.code != 0:
            self.failures.append(f"the worker ended with {ended.code}: {ended.last_line}")

    def faults(self, ceiling_mb: int, adversary: Adversary) -> list[str]:
        faults = list(self.failures)
        if self.right < self.runs:
            faults.append(f"the right error {self.right} of {self.runs}")
        if self.next_ran < self.runs:
            faults.append(f"next job ran {self.next_ran} of {self.runs}")
        unwound = [mb for layer, mb in self.above if layer in UNWOUND_LAYERS]
        killed = [mb for layer, mb in self.above if layer not in UNWOUND_LAYERS]
        bound_mb = UNWOUND_MB + adversary.step_mb if adversary.unwinds else KILLED_MB
        if max(unwound, default=0) > bound_mb:
            faults.append(f"{max(unwound):.0f} MB above, unwound (at most {bound_mb:.0f})")
        if max(killed, default=0) > KILLED_MB:
            faults.append(f"{max(killed):.0f} MB above, killed (at most {KILLED_MB:.0f})")
        if self.largest_mb > ceiling_mb + _UNSEEN_MB:
            faults.append(f"a process of {self.largest_mb:.0f} MB")
        if self.left:
            faults.append(f"left behind: {', '.join(sorted(set(self.left)))}")
        return faults


def table(how: How, adversaries: Sequence[Adversary], runs: int) -> list[str]:
    """Print the table; returns what is outside the budget."""
    click.echo(f"\nAdversaries: MB above a ceiling of {how.memory_mb} MB, {runs} runs, {how}")
    click.echo(f"\n{'':<31}{'above':>14}{'':>14}{'error':>7}{'next job':>10}{'largest':>9}  left")
    click.echo(f"{'adversary':<31}{'median':>7}{'worst':>7}  {'acted':<12}{'right':>7}{'ms':>10}{'MB':>9}  behind")
    outside = []
    for adversary in adversaries:
        name = adversary.name.replace("_", " ")
        if adversary.missing:
            click.echo(f"{name:<31}needs {', '.join(adversary.missing)}")
            continue
        row = measure(how, adversary, runs)
        above = [mb for _, mb in row.above]
        figures = f"{statistics.median(above):>7.1f}{max(above):>7.1f}" if above else f"{'-':>7}{'-':>7}"
        acted = ", ".join(sorted({layer for layer, _ in row.above})) or "nobody"
        pause = f"{statistics.median(row.next_ms):.0f}" if row.next_ms else "-"
        left = ", ".join(sorted(set(row.left))) or "-"
        click.echo(
            f"{name:<31}{figures}  {acted:<12}{row.right:>4}/{row.runs}{pause:>10}{row.largest_mb:>9.0f}  {left}"
        )
        faults = row.faults(how.memory_mb, adversary)
        if faults:
            outside.append(f"{name} ({how}): {'; '.join(faults)}")
    return outside


def measure(how: How, adversary: Adversary, runs: int) -> Row:
    """Run an adversary, each time followed by a job that does nothing."""
    queue, row = empty_queue(), Row(runs)
    if not adversary.meanwhile:
        pairs = [(_enqueue(queue, adversary, how), queue.enqueue(jobs.nothing)) for _ in range(runs)]
        row.end(run(how.command("--burst")))
        for pair in pairs:
            row.add(adversary, *pair)
        return row
    for _ in range(runs):
        job, after = _enqueue(queue, adversary, how), queue.enqueue(jobs.nothing)
        worker = Running(how.command("--burst"))
        happen(adversary, queue.connection, worker.pid)
        row.end(worker.finish())
        run(how.command("--burst"))  # one that was terminated leaves the next job to others
        row.add(adversary, job, after)
    return row


def _enqueue(queue: Queue, adversary: Adversary, how: How) -> Job:
    more = {"on_failure": Callback(adversary.on_failure)} if adversary.on_failure else {}
    return queue.enqueue(adversary.path, kwargs=adversary.kwargs(how.memory_mb), **more)
