"""Draws what `scripts.bench.pool` has measured: memory over time of each system, and the jobs that each has done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scripts.drawing import drawing

if TYPE_CHECKING:
    from scripts.bench.pool import Result


def draw(results: list[Result], total_mb: int, output: Path) -> None:
    """The memory of each, one above the other; below them the jobs done of all."""
    with drawing(output, 7.5, 1.7 * (len(results) + 1)) as figure:
        axes = figure.subplots(len(results) + 1, 1, sharex=True, squeeze=False)[:, 0]
        for axis, each in zip(axes[:-1], results, strict=True):
            at = [point[0] for point in each.usage]
            axis.fill_between(at, [point[1] for point in each.usage], label="all", alpha=0.5)
            axis.fill_between(at, [point[2] for point in each.usage], label="neighbour", alpha=0.9)
            axis.axhline(total_mb, color="tab:red", linewidth=1, label=f"{total_mb} MB")
            axis.set_title(f"{each.name}: {_words(each)}", loc="left")
            axis.set_ylabel("MB")
            axes[-1].plot(at, [point[3] for point in each.usage], label=each.name)
        axes[0].legend(loc="upper right", ncols=3)
        axes[-1].legend(loc="upper left")
        axes[-1].set_ylabel("jobs done")
        axes[-1].set_xlabel("seconds")


def _words(result: Result) -> str:
    kills = "not known" if result.kernel_kills is None else str(result.kernel_kills)
    return (
        f"{result.done} of {result.enqueued} done, {result.failed} failed, {result.lost + result.left} lost or left, "
        f"{kills} killed by the kernel; {result.utilisation:.0%} of the budget used"
    )
