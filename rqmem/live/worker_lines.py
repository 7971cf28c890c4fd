"""The lines of workers in the live view: memory against the ceiling as a bar, its history, the job. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rqmem.child_ids import short_id
from rqmem.live.record import Record
from rqmem.observe.model import Kind, Worker
from rqmem.observe.snapshot import HISTORY_SECONDS
from rqmem.observe.worker_histories import Point
from rqmem.store.history.history_records import LiveJob
from rqmem.text import Line, Mood, Part, bar, cut, cut_middle, cut_names, duration, line, sparkline
from rqmem.values import dataclass

NARROW, WIDE, _VERY_WIDE = 80, 100, 140
_STALE_SECONDS = 4.0  # a worker with a job speaks each second
WITHOUT_REPORT: dict[Kind, str] = {
    "rq": "not watched: a stock rq worker",
    "rqmem": "reports nothing: its journal is off",
    "silent": "not heard of: it hangs, or is dead",
}


@dataclass(frozen=True)
class _Layout:
    """Widths of columns; 0: left out. ``job``: what remains."""

    name: int
    bar: int
    figures: int
    spark: int
    own: int
    job: int

    @classmethod
    def of(cls, width: int, name: int, figures: int) -> _Layout:
        drawn, spark, own = (16, 20, 6) if width >= _VERY_WIDE else (10, 12, 0) if width >= WIDE else (6, 8, 0)
        if width < NARROW:
            spark = 0
        if width < NARROW * 3 // 4:
            drawn = 0
        own_figures = own + len("  itself  512 MB") if own else 0
        taken = 2 + name + sum(2 + each for each in (drawn, figures, spark) if each) + own_figures + 2
        return cls(name, drawn, figures, spark, own, max(0, width - taken))


def worker_lines(
    workers: Sequence[Worker], record: Record, now: float, width: int, *, ascii_only: bool = False
) -> list[Line]:
    """A line a worker, what matters most at the left."""
    names = cut_names([each.name for each in workers], max(8, width // 5))
    figures = [_figures(each) for each in workers]
    layout = _Layout.of(width, max(map(len, names)), max(map(len, figures)))
    return [
        _line(worker, name, figure, record, now, layout, ascii_only)
        for worker, name, figure in zip(workers, names, figures, strict=True)
    ]


def percent(share: float) -> str:
    """``48 %`` for 0.48."""
    return f"{100 * share:.0f} %"


def _figures(worker: Worker) -> str:
    if worker.live is None:
        return ""
    job = worker.live.job
    if job is None:
        return "idle"
    return f"{job.usage_mb:,.0f}/{job.limit_mb:,.0f} MB {percent(worker.share or 0.0):>5}"


def _line(
    worker: Worker, name: str, figures: str, record: Record, now: float, layout: _Layout, ascii_only: bool
) -> Line:
    live, share = worker.live, worker.share or 0.0
    if live is None:
        unseen: Mood = "bad" if worker.kind == "silent" else "faint"
        return line(f"  {name:<{layout.name}}  {worker.state}; ", (WITHOUT_REPORT[worker.kind], unseen))
    mood = _mood(share, record.threshold_percentage)
    parts: list[str | Part] = [("! " if mood in ("warning", "bad") else "  ", mood), f"{name:<{layout.name}}"]
    if layout.bar:
        parts += ["  ", (bar(share, layout.bar, ascii_only=ascii_only), mood)]
    parts += ["  ", (f"{figures:>{layout.figures}}", mood if live.job is not None else "faint")]
    if layout.spark:
        heights = _history(record.workers.histories.points.get(worker.name, {}), live.limit_mb, now, layout.spark)
        parts += ["  ", sparkline(heights, layout.spark, top=1.0, ascii_only=ascii_only)]
    if layout.own:
        own = live.worker_mb / live.worker_limit_mb if live.worker_limit_mb else 0.0
        parts += ["  itself ", bar(own, layout.own, ascii_only=ascii_only), f" {live.worker_mb:>4.0f} MB"]
    if live.job is not None:
        silent = record.workers.silent_seconds(worker.name, record.look.at)
        said = f" ({duration(math.floor(silent))} ago)" if silent > _STALE_SECONDS else ""
        parts += ["  ", _job(live.job, layout.job - len(said)), (said, "warning")]
    return line(*parts)


def _job(job: LiveJob, width: int) -> str:
    """Its class, its id where there is room, the place it named last and items done."""
    name = job.job.rpartition(".")[2]
    place = f" at {job.operation}" if job.operation else ""
    items = f", {job.items_done:,} items" if job.items_done else ""
    for text in (f"{name} ({short_id(job.job_id)}){place}{items}", f"{name}{place}{items}", f"{name}{place}"):
        if len(text) <= width:
            return text
    short = cut_middle(name, max(8, width - len(place), width // 2))
    return cut(f"{short}{place}", width)


def _mood(share: float, threshold_percentage: float) -> Mood:
    if 100 * share <= threshold_percentage:
        return "good"
    return "bad" if share > 1 else "warning"


def _history(points: Mapping[int, Point], limit_mb: float, now: float, width: int) -> list[float | None]:
    """Usage as a fraction of the ceiling by column, over `HISTORY_SECONDS`; None where nothing was said."""
    seconds, begin = HISTORY_SECONDS / width, now - HISTORY_SECONDS
    found: list[float | None] = [None] * width
    for at, (usage_mb, ceiling_mb) in points.items():
        column = int((at - begin) / seconds)
        if 0 <= column < width:
            found[column] = max(found[column] or 0.0, usage_mb / (ceiling_mb or limit_mb or 1.0))
    return found
