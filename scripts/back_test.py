"""Shows how recommended ceilings would have done: ``python -m scripts.back_test --output back_test.svg``.

Replays generated traces of peaks under three kinds of ceilings: a fixed one, 15 % above the highest peak so far, and
the recommended one (`rqmem.policy.recommendation`). The last two are set each night, by what the journal would have by
then: peaks in buckets by day, and for a run that was stopped only the usage at that moment. Prints breaches and idle
memory (ceiling minus peak), and draws ceilings over peaks. Nothing is measured on this machine.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from rqmem.policy.histogram import bucket
from rqmem.policy.recommendation import BUMP_MB, BUMP_RATIO, MARGIN, Day, Recommendation, TypeHistory, recommend
from scripts.drawing import drawing, output_option

FIXED_MB = 256.0
KEPT_DAYS = 30
WARNING_FRACTION = 0.8
COLUMNS = 2
Trace = list[list[float]]
"""Peaks in MB that runs would have if nobody stopped them, by day."""


@dataclass(frozen=True)
class Night:
    """A day in the journal: the peaks of its runs until they ended or were stopped, and how many were stopped."""

    seen_mb: Sequence[float]
    stopped: int


@dataclass(frozen=True)
class Replay:
    """A trace under one kind of ceiling. ``ceilings_mb`` has the ceiling of each day."""

    name: str
    ceilings_mb: list[float]
    breaches: int
    idle_mb: float


def traces(days: int, runs: int, seed: int) -> dict[str, Trace]:
    """One trace of each kind, with ``runs`` runs a day."""
    rng = random.Random(seed)

    def trace(peak: Callable[[int], float]) -> Trace:
        return [[peak(day) for _ in range(runs)] for day in range(days)]

    return {
        "constant": trace(lambda day: rng.gauss(140, 2)),
        "heavy-tailed": trace(lambda day: 60 + rng.lognormvariate(math.log(60), 0.6)),
        "drifting": trace(lambda day: rng.gauss(100 + 200 * day / days, 8)),
        "bimodal": trace(lambda day: rng.gauss(320, 10) if rng.random() < 0.1 else rng.gauss(90, 5)),
        "seasonal": trace(lambda day: rng.gauss(300 if day % 7 == 6 else 120, 8)),
        "mended": trace(lambda day: rng.gauss(400 if day < days // 3 else 120, 8)),
    }


def fixed(nights: Sequence[Night]) -> float:
    return FIXED_MB


def peak_so_far(nights: Sequence[Night]) -> float:
    """Never lower than before. A stopped run counts as needing more, by the same rule as in the recommendation."""
    highest = 0.0
    for night in nights:
        top = max(night.seen_mb)
        highest = max(highest, max(BUMP_RATIO * top, top + BUMP_MB) if night.stopped else top)
    return MARGIN * highest if nights else FIXED_MB


def recommended(nights: Sequence[Night]) -> float:
    """The recommendation, made from the days that the journal keeps."""
    kept = list(reversed(nights))[:KEPT_DAYS]
    days = [Day(age + 0.5, Counter(map(bucket, night.seen_mb)), night.stopped) for age, night in enumerate(kept)]
    found = recommend(TypeHistory(days, float(len(kept))), WARNING_FRACTION)
    return found.ceiling_mb if isinstance(found, Recommendation) else FIXED_MB


KINDS: dict[str, Callable[[Sequence[Night]], float]] = {
    f"fixed {FIXED_MB:.0f} MB": fixed,
    "peak so far": peak_so_far,
    "recommended": recommended,
}


def replay(trace: Trace, name: str) -> Replay:
    """What would have happened under one kind of ceiling."""
    nights: list[Night] = []
    ceilings: list[float] = []
    idle = 0.0
    for peaks in trace:
        ceiling = KINDS[name](nights)
        ceilings.append(ceiling)
        idle += sum(max(0.0, ceiling - peak) for peak in peaks)
        stopped = sum(peak > ceiling for peak in peaks)
        nights.append(Night([min(peak, 1.01 * ceiling) for peak in peaks], stopped))
    runs = sum(map(len, trace))
    return Replay(name, ceilings, sum(night.stopped for night in nights), idle / runs)


@click.command()
@output_option
@click.option("--days", type=click.IntRange(min=8), default=60, show_default=True)
@click.option("--runs", type=click.IntRange(min=1), default=100, show_default=True, help="A day.")
@click.option("--seed", type=int, default=1, show_default=True)
def main(output: Path | None, days: int, runs: int, seed: int) -> None:
    """Replay kinds of memory use under kinds of ceilings; print a table, and draw it."""
    found = traces(days, runs, seed)
    click.echo(f"{days} days of {runs} runs. Breaches in 1,000 runs, and idle memory (ceiling minus peak) a run:\n")
    click.echo(f"{'':<14}" + "".join(f"{name:>22}" for name in KINDS))
    replays = {kind: [replay(trace, name) for name in KINDS] for kind, trace in found.items()}
    for kind, done in replays.items():
        cells = (f"{1000 * each.breaches / (days * runs):>11.1f} {each.idle_mb:>7.0f} MB" for each in done)
        click.echo(f"{kind:<14}" + "".join(cells))
    if output is None:
        return
    rows = -(-len(found) // COLUMNS)
    with drawing(output, 6 * COLUMNS, 2.6 * rows) as figure:
        axes = figure.subplots(rows, COLUMNS).flat
        for (kind, trace), part in zip(found.items(), axes, strict=False):
            _draw_trace(part, kind, trace, replays[kind])
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower right", ncols=len(labels), markerscale=5)


def _draw_trace(axes: Any, kind: str, trace: Trace, done: Sequence[Replay]) -> None:
    points = [(day + number / len(peaks), peak) for day, peaks in enumerate(trace) for number, peak in enumerate(peaks)]
    axes.scatter(*zip(*points, strict=True), s=1, color="0.6", linewidths=0, rasterized=True, label="peak of a run")
    for each, colour in zip(done, ("tab:grey", "tab:orange", "tab:blue"), strict=True):
        axes.step(range(len(trace) + 1), [*each.ceilings_mb, each.ceilings_mb[-1]], where="post", color=colour,
                  linewidth=1.2, label=each.name)  # fmt: skip
    counts = ", ".join(f"{each.breaches} {each.name}" for each in done)
    axes.set_title(f"{kind}: breaches {counts}", loc="left")
    axes.set_xlim(0, len(trace))
    axes.set_ylim(0, None)
    axes.set_xlabel("days")
    axes.set_ylabel("MB")


if __name__ == "__main__":
    main()
