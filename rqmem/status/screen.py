"""The facts as one screen of text. Pure.

What does not fit is left out where there is most of it, and counted; troubles are left out last.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rqmem.drawing import bar, printable, span
from rqmem.journal.history import LiveJob
from rqmem.status.facts import Facts, JobType, Queue, Worker
from rqmem.status.troubles import NEAR_CEILING, Trouble
from rqmem.units import show_mb

Mood = Literal["plain", "title", "good", "warning", "bad"]
Colour = Callable[[str, Mood], str]

_FEWEST = 2  # entries of a table that stay
_BAR_COLUMNS = 8
_BAR = " ▏▎▍▌▋▊▉█"
_SHORT_ID = 8
_MARK_COLUMNS = 9
_NAME_COLUMNS = 10  # at least
_NARROW = 64 + _NAME_COLUMNS  # a row of workers has less


@dataclass
class _Table:
    """A heading and entries of some lines each. ``last``: shortened only when the others are."""

    heading: str
    entries: list[list[str]]
    last: bool = False
    hidden: int = field(default=0)

    def lines(self, colour: Colour) -> list[str]:
        shown = [line for entry in self.entries for line in entry]
        more = [f"  and {self.hidden:,} more"] if self.hidden else []
        return ["", colour(self.heading, "title"), *shown, *more]

    @property
    def height(self) -> int:
        return 2 + sum(map(len, self.entries)) + bool(self.hidden)


def screen(facts: Facts, found: Sequence[Trouble], columns: int, rows: int | None, colour: Colour) -> list[str]:
    """The lines to show.

    Args:
        found: what is wrong.
        columns: no line is longer.
        rows: about how many lines may be shown; None: any number.
        colour: gives a text the colour of its mood.
    """
    head = _head(facts, columns, colour)
    tables = [table for table in _tables(facts, found, columns, colour) if table.entries]
    foot = [] if found else ["", colour("nothing is wrong", "good")]
    if rows is not None:
        _shorten(tables, rows - len(head) - len(foot))
    return head + [line for table in tables for line in table.lines(colour)] + foot


def _head(facts: Facts, columns: int, colour: Colour) -> list[str]:
    mood: Mood = "good" if facts.state == "running" else "bad"
    busy = sum(worker.busy for worker in facts.alive)
    counts = [_count(len(facts.alive), "worker") + (f" ({busy} busy)" if busy else "")]
    for state in ("queued", "started", "failed"):
        total = sum(getattr(queue, state) for queue in facts.queues)
        counts.append(f"{total:,} {state}")
    shown_clock = time.strftime("%H:%M:%S", time.localtime(facts.at))
    title, told = f"rqmem: {colour(facts.state, mood)}", ", ".join(counts)
    fits = len(told) <= columns - 10 - len(facts.state)
    return [
        *([f"{title}   {told}"] if fits else [title, _cut(told, columns)]),
        _cut(facts.where, columns - len(shown_clock) - 2) + "  " + shown_clock,
    ]


def _tables(facts: Facts, found: Sequence[Trouble], columns: int, colour: Colour) -> list[_Table]:
    workers = sorted(facts.workers, key=lambda each: (each.kind != "silent", not each.busy, each.name))
    since = time.strftime("%H:%M", time.localtime(facts.since))
    wrong = "what is wrong" if any(each.mark == "problem" for each in found) else "worth a look"
    return [
        _Table(_worker_row("workers", "state", "usage of ceiling", "own MB", "jobs", "breaches", "up", columns),
               [_worker(each, facts.at, columns, colour) for each in workers]),
        _Table(_row("queues", ("queued", "started", "deferred", "scheduled", "failed"), columns),
               [[_queue(each, columns)] for each in facts.queues]),
        _Table(_row(f"since {since}", ("runs", "failed", "breaches", "resumes"), columns),
               [[_type(each, columns)] for each in facts.types]),
        _Table(wrong, [_trouble(each, columns, colour) for each in found], last=True),
    ]  # fmt: skip


def _shorten(tables: Sequence[_Table], room: int) -> None:
    """Take entries away until all fit, from where there is most."""
    while sum(table.height for table in tables) > room:
        long = [table for table in tables if len(table.entries) > _FEWEST]
        if not long:
            return
        longest = max(long, key=lambda table: (not table.last, table.height))
        longest.entries.pop()
        longest.hidden += 1


def _worker_row(name: str, state: str, usage: str, own: str, jobs: str, breaches: str, up: str, columns: int) -> str:
    """A narrow one has no room for a bar in ``usage``, nor for ``own``."""
    if columns < _NARROW:
        width = columns - 51
        row = f"{_cut(name, width):<{width}} {state:<9} {_cut(usage.lstrip(_BAR), 16):<16}"
    else:
        width = max(_NAME_COLUMNS, columns - 64)
        row = f"{_cut(name, width):<{width}} {state:<9} {usage:<22} {own:>6}"
    return _cut(f"{row} {jobs:>7} {breaches:>8} {up:>6}".rstrip(), columns)


def _worker(worker: Worker, now: float, columns: int, colour: Colour) -> list[str]:
    live = worker.live
    up = span(now - worker.born_at) if worker.born_at is not None else ""
    if live is None:
        usage = {"rq": "not watched (rq's own)", "silent": "silent", "rqmem": "tells nothing"}[worker.kind]
        line = _worker_row(worker.name, worker.state, usage, "", f"{worker.jobs:,}", "", up, columns)
        running = [_cut(f"  job {worker.job_id}", columns)] if worker.job_id else []
        return [colour(line, "bad") if worker.kind == "silent" else line, *running]
    line = _worker_row(
        worker.name, worker.state, _usage(live.job), f"{live.worker_mb:.0f}", f"{live.jobs:,}",
        f"{live.breaches:,}", up, columns,
    )  # fmt: skip
    if live.job is None:
        return [line]
    near = live.job.limit_mb and live.job.usage_mb >= NEAR_CEILING * live.job.limit_mb
    return [colour(line, "warning") if near else line, _cut(f"  {_doing(live.job, now)}", columns)]


def _usage(job: LiveJob | None) -> str:
    if job is None or not job.limit_mb:
        return ""
    share = job.usage_mb / job.limit_mb
    return f"{bar(min(1.0, share), _BAR_COLUMNS)} {100 * share:.0f} % of {show_mb(round(job.limit_mb))}"


def _doing(job: LiveJob, now: float) -> str:
    parts = [f"{job.job} {job.job_id[:_SHORT_ID]}"]
    parts += [f"at {job.operation}"] if job.operation else []
    parts += [f"{_count(job.items_done, 'item')} done"] if job.items_done else []
    return ", ".join([*parts, span(now - job.started_at)])


def _row(name: str, cells: Sequence[object], columns: int, *, tail: bool = False) -> str:
    width = columns - 10 * len(cells)
    name = printable(name)
    shown = f"…{name[-(width - 1) :]}" if tail and len(name) > width else _cut(name, width)
    return f"{shown:<{width}}" + "".join(f"{cell:>10}" for cell in cells)


def _queue(queue: Queue, columns: int) -> str:
    counts = (queue.queued, queue.started, queue.deferred, queue.scheduled, queue.failed)
    return _row(queue.name, [f"{count:,}" for count in counts], columns)


def _type(each: JobType, columns: int) -> str:
    tally = each.tally
    counts = (tally.runs, tally.failed, tally.breached, tally.resumed)
    return _row(each.job, [f"{count:,.0f}" for count in counts], columns, tail=True)


def _trouble(trouble: Trouble, columns: int, colour: Colour) -> list[str]:
    mark = colour(f"{trouble.mark:<{_MARK_COLUMNS}}", "bad" if trouble.mark == "problem" else "warning")
    indent = " " * _MARK_COLUMNS
    first, *rest = _broken(trouble.text, columns - _MARK_COLUMNS)
    advice, *more = _broken(trouble.advice, columns - _MARK_COLUMNS - 3)
    lines = [mark + first, *(indent + line for line in rest)]
    return [*lines, f"{indent}-> {advice}", *(f"{indent}   {line}" for line in more)]


def _broken(text: str, columns: int) -> list[str]:
    return textwrap.wrap(printable(text), max(30, columns), break_on_hyphens=False) or [""]


def _cut(text: str, columns: int) -> str:
    text = printable(text)
    return text if len(text) <= columns else text[: max(0, columns - 1)] + "…"


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
