"""Judges what was measured. Pure.

**Ceilings.** On a worker with the ceiling that a job declares, the job must finish, and no execution may be above the
ceiling. On a worker with a lower ceiling, the job may be stopped with `MemoryLimitExceeded`, and resume or fail. Then
these rules hold:

- It never used more than the ceiling; if it breached, no more than the ceiling and rqmem's reserve for unwinding.
- If it finished, no record is missing or double.
- If it did not, it failed for memory and nothing else. It is reported as not fitting, with what its idle horse takes.

**Growth.** The peak with many records is compared with the peak with fewer. Adaptive chunks grow into the room that
they are given, so they depend on how busy the machine is and how long they could adapt. Therefore both numbers of
records are run with chunks of the size that the class declares (``adaptive = False``, `scripts.load.fixed`; two of the
six declare that themselves), and only the number of records makes a difference. The rule above covers the job with
adaptive chunks. If a job split, its peak is the highest of its own and its children's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rqmem.config.settings import Config
from rqmem.units import show_mb
from scripts.load.trials import Idle, Measured

MOST_GROWTH = 0.10
MOST_WORSE = 0.02  # balanced F1 of a model, against that of the same rows in memory
ROOM = 0.20  # of the ceiling, for the job's own work: with less the worker shares its imports (``--preload``)
_UNWINDING_MB = Config().reserve_mb + 8  # DESIGN.md, budgets: the reserve and 8


@dataclass(frozen=True)
class Growth:
    """Peaks of a job with fewer and with more records."""

    job: str
    way: str
    records: tuple[int, int]
    peaks_mb: tuple[float, float]

    @property
    def share(self) -> float:
        """How much more the more take; 0.1 is 10 %."""
        few, many = self.peaks_mb
        return many / few - 1 if few else 0.0


def growths(runs: Iterable[Measured]) -> list[Growth]:
    """Of each job and way that finished at its declared ceiling with two numbers of records, the least and the most.

    Where there are runs with chunks of one size, of these alone.
    """
    found: dict[tuple[str, str], list[Measured]] = {}
    listed = list(runs)
    fixed = {each.trial.job for each in listed if each.trial.setting == "fixed"}
    for each in listed:
        wanted = "fixed" if each.trial.job in fixed and each.trial.way == "rqmem" else "declared"
        if each.trial.setting == wanted and each.finished:
            found.setdefault((each.trial.job, each.trial.way), []).append(each)
    pairs = {key: (min(some, key=_records), max(some, key=_records)) for key, some in found.items()}
    return [
        Growth(job, way, (_records(few), _records(many)), (few.peak_mb, many.peak_mb))
        for (job, way), (few, many) in pairs.items()
        if _records(few) < _records(many)
    ]


def faults(runs: Sequence[Measured]) -> list[str]:
    """What does not hold, a line each; of rqmem's runs alone."""
    ours = [each for each in runs if each.trial.way == "rqmem"]
    said = [f"{_name(each)}: {words}" for each in ours for words in _faults_of(each)]
    said += [
        f"{each.job}: its peak grew by {each.share:.0%}, from {show_mb(each.peaks_mb[0])} MB with "
        f"{each.records[0]:,} records to {show_mb(each.peaks_mb[1])} MB with {each.records[1]:,}"
        for each in growths(ours)
        if each.share >= MOST_GROWTH
    ]
    said += [
        f"{_name(each)}: balanced F1 {each.balanced_f1:.4f}, {other:.4f} in memory"
        for each, other in _same_rows(runs)
        if each.balanced_f1 is not None and other - each.balanced_f1 > MOST_WORSE
    ]
    return said


def wants_preload(run: Measured, idle: Idle) -> bool:
    """Whether a job is tight under a ceiling below its own, and is to be tried there with its imports shared."""
    return not run.finished or run.breaches > 0 or idle.idle_mb > (1 - ROOM) * run.trial.memory_mb


def why_not(run: Measured, idle: Idle | None) -> str:
    """Why a job did not finish under a ceiling below its own, in words."""
    ceiling = run.trial.memory_mb
    if idle is None:
        return f"does not fit {show_mb(ceiling)} MB"
    held = idle.preloaded_mb if run.trial.setting == "preload" else idle.idle_mb
    return f"does not fit {show_mb(ceiling)} MB: its idle horse takes {show_mb(held)} MB, it reached {_peak(run)}"


def _faults_of(run: Measured) -> list[str]:
    said: list[str] = []
    declared = run.trial.setting in ("declared", "fixed")
    if run.finished and not run.right:
        said.append(f"records are missing or double: {run.found}")
    if declared and not run.finished:
        said.append(f"{run.outcome}: {run.error or run.found}")
    if declared and run.above:
        said += run.above
    allowed = run.trial.memory_mb + (_UNWINDING_MB if run.breaches else 0)
    if run.peak_mb > allowed and not (declared and run.above):
        said.append(f"used {_peak(run)}, {show_mb(allowed)} MB allowed")
    if not declared and not run.finished and not run.breaches:
        said.append(f"{run.outcome}, and not for memory: {run.error or run.found}")
    return said


def _same_rows(runs: Sequence[Measured]) -> list[tuple[Measured, float]]:
    """Runs of rqmem with the balanced F1 of the model of the same rows that was learnt in memory."""
    naive = {
        (each.trial.job, each.trial.records): each.balanced_f1
        for each in runs
        if each.trial.way == "naive" and each.balanced_f1 is not None
    }
    keyed = [(each, (each.trial.job, each.trial.records)) for each in runs if each.trial.way == "rqmem"]
    return [(each, naive[key]) for each, key in keyed if key in naive]


def _records(run: Measured) -> int:
    return run.trial.records


def _name(run: Measured) -> str:
    return f"{run.trial.job}, {run.trial.records:,} records, {run.trial.words}"


def _peak(run: Measured) -> str:
    return f"{show_mb(run.peak_mb)} MB"
