"""The live view: a record and the size of a terminal to lines. Pure.

What does not fit is left out at the right and below, and counted. If there are more workers than rows, the view shows
those nearest their ceilings.
"""

from __future__ import annotations

import math

from rqmem import words
from rqmem.live.record import Record
from rqmem.live.system import System
from rqmem.live.worker_lines import NARROW, WIDE, percent, worker_lines
from rqmem.observe.pool_words import incident_words, wait_words
from rqmem.text import Line, Mood, bar, clock, columns, counted, cut_middle, duration, fit, line
from rqmem.values import dataclass

_MOST_QUEUES, _MOST_ALERTS, _FEWEST_WORKERS, _MOST_POOLS = 6, 8, 3, 3


@dataclass(frozen=True)
class Frame:
    """What the view needs in addition to the record.

    Attributes:
        now: epoch seconds.
        redis: which one, for people.
        until: when it ends, epoch seconds; None: when a signal comes.
        notice: one more line, at the top; empty: none.
        ascii_only: the terminal has no block characters.
    """

    now: float
    redis: str
    until: float | None
    width: int
    height: int
    notice: str = ""
    ascii_only: bool = False


def view(record: Record, frame: Frame) -> list[Line]:
    """The lines, at most as many and as wide as the frame."""
    top = [_title(record, frame), *_notices(record, frame), _memory(record.system, frame)]
    alerts = _alerts(record, max(1, min(_MOST_ALERTS, frame.height // 6)))
    queues = _queues(record, max(1, min(_MOST_QUEUES, frame.height // 8)))
    pools = _pools(record, frame, max(1, min(_MOST_POOLS, frame.height // 8)))
    room = frame.height - len(top) - len(alerts) - len(queues) - len(pools) - 1
    workers = _workers(record, frame, max(_FEWEST_WORKERS, room))
    return [fit(each, frame.width) for each in [*top, line(), *workers, *pools, *queues, *alerts]][: frame.height]


def _title(record: Record, frame: Frame) -> Line:
    passed = duration(math.floor(frame.now - record.started_at))
    asked = f" of {duration(frame.until - record.started_at)}" if frame.until is not None else ""
    alerts, crossings = record.alerts_raised, record.workers.crossings.count
    return line(
        ("rqmem monitor", "title"),
        f"  {passed}{asked}  ",
        (f"{crossings} over {record.threshold_percentage:g} %", "warning" if crossings else "plain"),
        "  ",
        (counted(alerts, "alert"), "bad" if alerts else "plain"),
        (f"  {frame.redis}", "faint"),
    )


def _notices(record: Record, frame: Frame) -> list[Line]:
    lines = [line((frame.notice, "warning"))] if frame.notice else []
    if record.away_since is not None:
        away = duration(math.floor(frame.now - record.away_since))
        lines.append(line((words.redis_gone_since(away), "bad")))
    return lines


def _memory(system: System, frame: Frame) -> Line:
    share = system.used_percentage / 100
    pressure = system.pressure
    told = (
        f"pressure {pressure.some_10:.1f} % some, {pressure.full_10:.1f} % full"
        if pressure is not None
        else "pressure: this kernel tells none"
    )
    pressed = pressure is not None and pressure.full_10 >= 1
    width = 0 if frame.width < NARROW else 10 if frame.width < WIDE else 20
    return line(
        "memory  ",
        (bar(share, width, ascii_only=frame.ascii_only), "bad" if share > 0.95 else "good"),
        "  " if width else "",
        f"{_gb(system.used_mb)} of {_gb(system.total_mb)} GB ({percent(share)}) on {system.host}  ",
        (told, "bad" if pressed else "plain"),
        f"  swap {_gb(system.swap_used_mb)} of {_gb(system.swap_total_mb)} GB" if system.swap_total_mb else "",
    )


def _gb(size_mb: float) -> str:
    return f"{size_mb / 1024:.1f}"


def _workers(record: Record, frame: Frame, rows: int) -> list[Line]:
    workers, rate = record.look.workers, record.ended_per_minute
    ended = f", {rate:,.0f} jobs ended a minute" if rate is not None else ""
    title = line((f"{counted(len(workers), 'worker')}{ended}", "title"))
    if not workers:
        return [title, line("  'rqmem worker' starts one")]
    fitting = len(workers) if len(workers) < rows else rows - 2
    nearest = sorted(workers, key=lambda each: -1.0 if each.share is None else each.share, reverse=True)
    shown = sorted(nearest[:fitting], key=lambda each: each.name)
    hidden = nearest[fitting:]
    lines = [title, *worker_lines(shown, record, frame.now, frame.width, ascii_only=frame.ascii_only)]
    if hidden:
        highest = hidden[0].share
        near = f", at {percent(highest)} of their ceilings at most" if highest is not None else ", without a job"
        lines.append(line((f"  and {counted(len(hidden), 'more worker')}{near}", "faint")))
    return lines


def _pools(record: Record, frame: Frame, rows: int) -> list[Line]:
    """Of each pool its budget, who waits longest, and what it did last."""
    pools = sorted(record.look.pools, key=lambda each: (not each.paused, not each.waiting, each.pool))
    if not pools:
        return []
    lines = [line((counted(len(pools), "pool"), "title"))]
    width = 0 if frame.width < NARROW else 10
    for pool in pools[:rows]:
        mood: Mood = "bad" if pool.paused else "warning" if pool.waiting else "good"
        lines.append(
            line(
                f"  {cut_middle(pool.pool, 24)}  ",
                (bar(min(1.0, pool.share), width, ascii_only=frame.ascii_only), mood),
                "  " if width else "",
                f"{pool.usage_mb:,.0f} used, {pool.reserved_mb:,.0f} reserved of {pool.budget_mb:,.0f} MB, "
                f"{pool.waiting:,} waiting, {counted(pool.evictions, 'eviction')}",
                (f", takes no jobs: {pool.paused}" if pool.paused else "", "bad"),
            )
        )
        if pool.waits:
            lines.append(line(f"    waits: {wait_words(pool.waits[0], frame.now)}"))
        if pool.incidents:
            last = pool.incidents[-1]
            lines.append(line((f"    {clock(last.at)} {incident_words(last)}", "faint")))
    more = len(pools) - rows
    return [*lines, line((f"  and {counted(more, 'more pool')}", "faint"))] if more > 0 else lines


def _queues(record: Record, rows: int) -> list[Line]:
    queues = sorted(record.look.queues, key=lambda each: -(each.queued + each.started))
    shown = sorted(queues[:rows], key=lambda each: each.name)
    if not queues:
        return [line(("no queues", "title"))]
    cells = [
        [f"  {cut_middle(queue.name, 24)}", f"{queue.queued:,} queued", f"{queue.started:,} started",
         f"{queue.deferred:,} deferred", f"{queue.failed:,} failed"]
        for queue in shown
    ]  # fmt: skip
    lines = [line((counted(len(queues), "queue"), "title")), *(line(row) for row in columns(cells))]
    return [*lines, line((f"  and {len(queues) - rows} more", "faint"))] if len(queues) > rows else lines


def _alerts(record: Record, rows: int) -> list[Line]:
    """Open ones first, then what was told last, newest first; of each there is one at least where there is room."""
    opened = record.look.open_alerts
    lines = [
        line((f"  open since {clock(each.since)}  {each.rule}: {each.text}", "bad"))
        for each in opened[: rows - 1 if record.recent else rows]
    ]
    for each in list(reversed(record.recent))[: rows - len(lines)]:
        resolved = each.state == "resolved"
        told = f"  {clock(each.at)}  {each.rule}{' resolved' if resolved else ''}: {each.text}"
        lines.append(line((told, "good" if resolved else "warning")))
    title = f"alerts, {len(opened) or 'none'} open" if lines else "no alerts"
    return [line((title, "title")), *lines]
