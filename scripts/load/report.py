"""What a load test found, as JSON and as a table. Pure. docs/six-jobs.md explains the names of the JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import rqmem
from rqmem.text import timestamp
from rqmem.units import show_mb
from scripts.load import rules
from scripts.load.jobs import JOBS
from scripts.load.trials import Idle, Measured

VERSION = 1
CEILINGS_MB = {each.name: each.ceiling_mb for each in JOBS}


@dataclass(frozen=True)
class Found:
    """All that a load test found. ``at``: epoch seconds."""

    few: int
    many: int
    runs: Sequence[Measured]
    idle: Sequence[Idle]
    faults: Sequence[str]
    seconds: float
    at: float


def to_json(found: Found) -> dict[str, Any]:
    return {
        "version": VERSION,
        "at": timestamp(found.at),
        "machine": machine(),
        "records": {"few": found.few, "many": found.many},
        "seconds": round(found.seconds, 1),
        "holds": not found.faults,
        "faults": list(found.faults),
        "runs": [_run(each) for each in found.runs],
        "idle": [_rounded(vars(each)) for each in found.idle],
        "growth": [
            _rounded({
                "job": each.job, "way": each.way, "few": each.records[0], "many": each.records[1],
                "few_peak_mb": each.peaks_mb[0], "many_peak_mb": each.peaks_mb[1], "share": each.share,
            })
            for each in rules.growths(found.runs)
        ],
    }  # fmt: skip


def machine() -> dict[str, Any]:
    memory_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    versions = {"python": platform.python_version(), "rqmem": rqmem.__version__}
    return {"processors": len(os.sched_getaffinity(0)), "memory_mb": memory_mb, **versions}


def _run(run: Measured) -> dict[str, Any]:
    trial = run.trial
    measured = {name: value for name, value in vars(run).items() if name not in ("trial", "above", "samples")}
    return {
        "way": trial.way, "setting": trial.setting, "worker": trial.words, "job": trial.job, "records": trial.records,
        "memory_mb": None if trial.way == "naive" else trial.memory_mb, "ceiling_mb": CEILINGS_MB[trial.job],
        **_rounded(measured),
        "samples": [[round(seconds, 2), round(usage_mb, 1)] for seconds, usage_mb in run.samples],
    }  # fmt: skip


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Sizes with one digit after the point, spans with two, figures of models and shares with four."""
    digits = {"mb": 1, "seconds": 2}
    return {
        name: round(value, digits.get(name.rpartition("_")[2], 4)) if isinstance(value, float) else value
        for name, value in values.items()
    }


def heading() -> str:
    return f"{'worker':<54}{'records':>9}{'outcome':>13}{'peak MB':>9}{'seconds':>9}  what was found"


def line(run: Measured) -> str:
    breached = f", {run.breaches} breaches" if run.breaches else ""
    return (
        f"{run.trial.words:<54}{run.trial.records:>9,}{run.outcome:>13}{run.peak_mb:>9.1f}{run.seconds:>9.1f}"
        f"  {run.found}{breached}"
    )


def remark(run: Measured, idle: Idle | None) -> str:
    """A remark on a run next to its figures; empty if there is none."""
    if run.trial.way == "naive":
        ceiling = CEILINGS_MB[run.trial.job]
        if run.outcome == "killed":
            return f"killed at {show_mb(run.peak_mb)} MB, the most that the load test allows"
        if run.crossed_after_seconds is not None:
            at = f"after {run.crossed_after_seconds:.1f} s"
            return f"above the {show_mb(ceiling)} MB that the job declares {at}: a container of that size kills it then"
        return ""
    if not run.finished and run.breaches and run.trial.setting in ("lower", "preload"):
        return rules.why_not(run, idle)
    return ""


def summary(found: Found) -> Iterator[str]:
    """Lines for people: growth, and what an idle horse takes."""
    growths = {(each.job, each.way): each for each in rules.growths(found.runs)}
    if growths:
        yield f"{'peak MB, fewer and more records':<38}{'rqmem':>26}{'naive':>30}"
    for name in dict.fromkeys(job for job, _ in growths):
        cells = [growths.get((name, way)) for way in ("rqmem", "naive")]
        words = [
            f"{each.peaks_mb[0]:>9.1f} ->{each.peaks_mb[1]:>8.1f} {each.share:>+7.1%}" if each else "" for each in cells
        ]
        yield f"{name:<38}{words[0]:>26}{words[1]:>30}"
    for idle in found.idle:
        yield (
            f"{idle.job}: its idle horse takes {show_mb(idle.idle_mb)} MB, "
            f"{show_mb(idle.preloaded_mb)} MB with --preload"
        )
