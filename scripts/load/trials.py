"""What is run and what is measured of it: values. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rqmem.units import show_mb

Way = Literal["rqmem", "naive"]
Setting = Literal["declared", "fixed", "lower", "preload"]


@dataclass(frozen=True)
class Trial:
    """One run to be made.

    Attributes:
        setting: the worker's ceiling is the one that the job declares; that, and chunks are of one size; it is a lower
            one; that, with ``--preload``.
        job: its class.
        memory_mb: the worker's ``--memory``; a stock worker knows none.
        timeout_seconds: its ``--timeout``; None: the job's own.
    """

    way: Way
    setting: Setting
    job: str
    records: int
    memory_mb: float
    timeout_seconds: int | None = None

    def command(self, url: str, queue: str, needs: tuple[str, ...]) -> list[str]:
        if self.way == "naive":
            return ["rq.cli", "worker", "--url", url, "--quiet", queue]
        options = ["--queue", queue, "--memory", show_mb(self.memory_mb), "--log-level", "warning"]
        if self.timeout_seconds is not None:
            options += ["--timeout", str(self.timeout_seconds)]
        preloaded = {"preload": needs, "fixed": ("scripts.load.fixed",)}.get(self.setting, ())
        options += [part for name in preloaded for part in ("--preload", name)]
        return ["rqmem", "worker", *options]

    @property
    def words(self) -> str:
        """The worker as one would start it."""
        if self.way == "naive":
            return "rq worker"
        timeout = f" --timeout {self.timeout_seconds}" if self.timeout_seconds is not None else ""
        preload = " --preload ..." if self.setting == "preload" else ""
        fixed = ", chunks of one size" if self.setting == "fixed" else ""
        return f"rqmem worker --memory {show_mb(self.memory_mb)}{timeout}{preload}{fixed}"


@dataclass(frozen=True)
class Measured:
    """One run that was made.

    Attributes:
        outcome: ``finished``, ``failed``, ``killed`` (a naive job, by us) or ``did not end`` (in time).
        error: the last line of the job's.
        seconds: from the worker's start to the job's end, its imports included.
        peak_mb: of the job's tree of processes, as rqmem's watcher saw it, or as it was sampled, whichever is higher.
        sampled_peak_mb: as sampled from /proc.
        crossed_after_seconds: when it was first sampled above the ceiling that the job declares; None: never.
        above: executions that were above their ceiling, in words.
        right, found: whether every record has its outcome once; the figures in words.
        samples: seconds, and MB of the job's tree.
    """

    trial: Trial
    outcome: str
    error: str = ""
    seconds: float = 0.0
    peak_mb: float = 0.0
    sampled_peak_mb: float = 0.0
    crossed_after_seconds: float | None = None
    above: tuple[str, ...] = ()
    breaches: int = 0
    resumes: int = 0
    children: int = 0
    chunks: int = 0
    largest_chunk: int = 0
    right: bool = False
    found: str = ""
    balanced_f1: float | None = None
    samples: list[tuple[float, float]] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return self.outcome == "finished"


@dataclass(frozen=True)
class Idle:
    """What a job's horse takes before it does anything, in MB; ``preloaded_mb`` where its imports are the worker's."""

    job: str
    idle_mb: float
    preloaded_mb: float
