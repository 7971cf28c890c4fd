"""The chart of `scripts.bench.throughput`: jobs a second and processor time a job, on scales of powers of ten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripts.drawing import drawing

_OURS, _OTHERS = "#1f6f5c", "#b9bec4"


def draw(found: dict[str, Any], path: Path) -> None:
    """Raises `click.ClickException` without matplotlib."""
    rows = sorted(found["sections"]["noop"]["rows"], key=lambda row: row["jobs a second"])
    names = [row["system"] for row in rows]
    colours = [_OURS if name.startswith("rqmem") else _OTHERS for name in names]
    with drawing(path, 9, 0.32 * len(rows) + 1.1) as figure:
        rates, costs = figure.subplots(1, 2, sharey=True)
        for axes, column, title in (
            (rates, "jobs a second", "jobs a second, one worker (more is better)"),
            (costs, "CPU us a job", "processor time a job, Redis included, µs (less is better)"),
        ):
            values = [row[column] for row in rows]
            bars = axes.barh(names, values, color=colours)
            axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3)
            axes.set_xscale("log")
            axes.set_xlim(min(values) / 2, max(values) * 4)
            axes.set_title(title, fontsize=8, loc="left")
            axes.spines["right"].set_visible(False)
        figure.supxlabel(described(found["machine"]), fontsize=7, x=0.01, ha="left")


def described(machine: dict[str, Any]) -> str:
    """The machine, in one line."""
    return (
        f"jobs that do nothing, default settings; {machine['processors']} x {machine['processor']}, "
        f"Linux {machine['kernel'].partition('-')[0]}, Python {machine['python']}, Redis {machine['redis_server']}"
    )
