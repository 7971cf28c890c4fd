"""The snapshot as one screen of text. Pure.

The worst comes first. What does not fit is left out where there is most of it, and counted with how it is; problems are
left out last. A text of any length takes some lines only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from rqmem.observe.model import JobType, Limit, Pool, Queue, Snapshot, Worker
from rqmem.observe.pool_words import incident_words, limit_words, tenant_words, wait_words
from rqmem.observe.problems import NEAR_CEILING, Finding
from rqmem.store.history.history_records import LiveJob
from rqmem.store.history.pool_records import PoolTenant
from rqmem.text import Mood, bar, below, clock, counted, cut, printable, span, wrapped
from rqmem.units import show_mb

Colour = Callable[[str, Mood], str]

_FEWEST = (2, 1)  # entries of a table that stay; where they are too many, fewer
_MOST_WRONGS = 3  # named of those left out
_MOST_LINES = 6  # of one text
_MOST_OF_POOL = 3  # jobs that wait, tenants, incidents
_BAR_COLUMNS = 8
_BAR = " ▏▎▍▌▋▊▉█"
_SHORT_ID = 8
_MARK_COLUMNS = 9
_NAME_COLUMNS = 10  # at least
_NARROW = 64 + _NAME_COLUMNS  # a row of workers has less


@dataclass(frozen=True)
class _Entry:
    """Some lines. ``wrong``: what with it, in a word or two; empty: it is well."""

    lines: list[str]
    wrong: str = ""


@dataclass
class _Table:
    """A heading and entries, the worst first. ``last``: shortened only when the others are."""

    heading: str
    entries: list[_Entry]
    last: bool = False
    hidden: list[_Entry] = field(default_factory=list)

    def lines(self, columns: int, colour: Colour) -> list[str]:
        shown = [line for entry in self.entries for line in entry.lines]
        return ["", colour(self.heading, "title"), *shown, *([cut(self._rest(), columns)] if self.hidden else [])]

    def _rest(self) -> str:
        wrong = Counter(entry.wrong for entry in self.hidden if entry.wrong)
        words = ", ".join(f"{count:,} {what}" for what, count in wrong.most_common(_MOST_WRONGS)) or "all well"
        return f"  and {len(self.hidden):,} more, {words}"

    @property
    def height(self) -> int:
        return 2 + sum(len(entry.lines) for entry in self.entries) + bool(self.hidden)


def screen(snapshot: Snapshot, found: Sequence[Finding], columns: int, rows: int | None, colour: Colour) -> list[str]:
    """The lines to show.

    Args:
        found: what is wrong.
        columns: no line is longer.
        rows: about how many lines may be shown; None: any number.
        colour: gives a text the colour of its mood.
    """
    head = _head(snapshot, columns, colour)
    tables = [table for table in _tables(snapshot, found, columns, colour) if table.entries]
    foot = [] if found else ["", colour("nothing is wrong", "good")]
    if rows is not None:
        _shorten(tables, rows - len(head) - len(foot))
    return head + [line for table in tables for line in table.lines(columns, colour)] + foot


def _head(snapshot: Snapshot, columns: int, colour: Colour) -> list[str]:
    mood: Mood = "good" if snapshot.state == "running" else "bad"
    busy = sum(worker.busy for worker in snapshot.alive)
    counts = [counted(len(snapshot.alive), "worker") + (f" ({busy} busy)" if busy else "")]
    for state in ("queued", "started", "failed"):
        total = sum(getattr(queue, state) for queue in snapshot.queues)
        counts.append(f"{total:,} {state}")
    shown_clock = clock(snapshot.at)
    title, told = f"rqmem: {colour(snapshot.state, mood)}", ", ".join(counts)
    fits = len(told) <= columns - 10 - len(snapshot.state)
    return [
        *([f"{title}   {told}"] if fits else [title, cut(told, columns)]),
        cut(snapshot.where, columns - len(shown_clock) - 2) + "  " + shown_clock,
    ]


def _tables(snapshot: Snapshot, found: Sequence[Finding], columns: int, colour: Colour) -> list[_Table]:
    workers = sorted(
        snapshot.workers, key=lambda each: (-bool(_wrong_worker(each)), -(each.share or 0.0), not each.busy, each.name)
    )
    served = {queue for worker in snapshot.alive for queue in worker.queues}
    queues = sorted(snapshot.queues, key=lambda each: (not _wrong_queue(each, served), -each.queued, each.name))
    types = sorted(snapshot.job_types, key=lambda each: not _wrong_type(each))  # a stable sort
    since = clock(snapshot.since)[:5]
    wrong = "what is wrong" if any(each.mark == "problem" for each in found) else "worth a look"
    return [
        _Table(_worker_row("workers", "state", "usage of ceiling", "own MB", "jobs", "breaches", "up", columns),
               [_Entry(_worker(each, snapshot.at, columns, colour), _wrong_worker(each)) for each in workers]),
        _Table(_row("pools", ("workers", "used MB", "reserved", "budget", "waiting"), columns),
               [_Entry(_pool(each, columns, colour), "full or paused" if each.paused or each.waiting else "")
                for each in sorted(snapshot.pools, key=lambda each: (not each.paused, not each.waiting, each.pool))]),
        _Table(_row("limits", ("at most", "admitted", "waiting", "for"), columns),
               [_Entry(_limit(each, snapshot.at, columns)) for each in snapshot.limits]),
        _Table(_row("queues", ("queued", "started", "deferred", "scheduled", "failed"), columns),
               [_Entry([_queue(each, columns)], _wrong_queue(each, served)) for each in queues]),
        _Table(_row(f"since {since}", ("runs", "failed", "breaches", "resumes"), columns),
               [_Entry([_type(each, columns)], _wrong_type(each)) for each in types]),
        _Table(wrong, [_Entry(_trouble(each, columns, colour), each.name) for each in found], last=True),
    ]  # fmt: skip


def _shorten(tables: Sequence[_Table], room: int) -> None:
    """Take entries away until all fit, from where there is most."""
    for table in tables:
        fitting = max(1, room)  # each has a line at least
        table.hidden, table.entries = table.entries[fitting:], table.entries[:fitting]
    for fewest in _FEWEST:
        while sum(table.height for table in tables) > room:
            long = [table for table in tables if len(table.entries) > fewest]
            if not long:
                break
            longest = max(long, key=lambda table: (not table.last, table.height))
            longest.hidden.append(longest.entries.pop())


def _wrong_worker(worker: Worker) -> str:
    if worker.kind == "silent":
        return "not heard of"
    return "near their ceilings" if (worker.share or 0.0) >= NEAR_CEILING else ""


def _wrong_queue(queue: Queue, served: Collection[str]) -> str:
    if queue.queued and queue.name not in served:
        return "not served"
    return "overdue" if queue.due and not queue.scheduler else ""


def _wrong_type(each: JobType) -> str:
    if each.tally.breached or each.tally.leaks:
        return "with breaches or leaks"
    return "with failures" if each.tally.failed else ""


def worker_lines(worker: Worker, now: float, columns: int, colour: Colour) -> list[str]:
    """One worker, with the heading of the table."""
    heading = _worker_row("worker", "state", "usage of ceiling", "own MB", "jobs", "breaches", "up", columns)
    leases = ["  leases: on"] if worker.live is not None and worker.live.leases == "on" else []
    return [colour(heading, "title"), *_worker(worker, now, columns, colour), *leases]


def _worker_row(name: str, state: str, usage: str, own: str, jobs: str, breaches: str, up: str, columns: int) -> str:
    """A narrow one has no room for a bar in ``usage``, nor for ``own``."""
    if columns < _NARROW:
        width = columns - 51
        row = f"{cut(name, width):<{width}} {state:<9} {cut(usage.lstrip(_BAR), 16):<16}"
    else:
        width = max(_NAME_COLUMNS, columns - 64)
        row = f"{cut(name, width):<{width}} {state:<9} {usage:<22} {own:>6}"
    return cut(f"{row} {jobs:>7} {breaches:>8} {up:>6}".rstrip(), columns)


def _worker(worker: Worker, now: float, columns: int, colour: Colour) -> list[str]:
    live = worker.live
    up = span(now - worker.started_at) if worker.started_at is not None else ""
    if live is None:
        usage = {"rq": "not watched (rq's own)", "silent": "silent", "rqmem": "tells nothing"}[worker.kind]
        line = _worker_row(worker.name, worker.state, usage, "", f"{worker.jobs:,}", "", up, columns)
        running = [cut(f"  job {worker.job_id}", columns)] if worker.job_id else []
        return [colour(line, "bad") if worker.kind == "silent" else line, *running]
    line = _worker_row(
        worker.name, worker.state, _usage(live.job), f"{live.worker_mb:.0f}", f"{live.jobs:,}",
        f"{live.breaches:,}", up, columns,
    )  # fmt: skip
    off = [cut(f"  leases {live.leases}", columns)] if live.leases.startswith("off") else []
    if live.job is None:
        return [line, *off]
    near = (worker.share or 0.0) >= NEAR_CEILING
    return [colour(line, "warning") if near else line, cut(f"  {_doing(live.job, now)}", columns), *off]


def _usage(job: LiveJob | None) -> str:
    if job is None or not job.limit_mb:
        return ""
    share = job.usage_mb / job.limit_mb
    return f"{bar(min(1.0, share), _BAR_COLUMNS)} {100 * share:.0f} % of {show_mb(round(job.limit_mb))}"


def _doing(job: LiveJob, now: float) -> str:
    parts = [f"{job.job} {job.job_id[:_SHORT_ID]}"]
    parts += [f"at {job.operation}"] if job.operation else []
    parts += [f"{counted(job.items_done, 'item')} done"] if job.items_done else []
    return ", ".join([*parts, span(now - job.started_at)])


def _row(name: str, cells: Sequence[object], columns: int, *, tail: bool = False) -> str:
    width = columns - 10 * len(cells)
    name = printable(name[-columns:] if tail else name[: columns + 1])
    shown = f"…{name[-(width - 1) :]}" if tail and len(name) > width else cut(name, width)
    return f"{shown:<{width}}" + "".join(f"{cell:>10}" for cell in cells)


def _pool(pool: Pool, columns: int, colour: Colour) -> list[str]:
    sizes = (f"{size_mb:,.0f}" for size_mb in (pool.usage_mb, pool.reserved_mb, pool.budget_mb))
    line = _row(pool.pool, [f"{pool.workers:,}", *sizes, f"{pool.waiting:,}"], columns)
    told = []
    if pool.paused:
        told.append(f"takes no jobs: {pool.paused}")
    if pool.waiting_seconds is not None:
        told.append(f"the first job has waited for room for {span(pool.waiting_seconds)}")
    if pool.evictions:
        told.append(f"{counted(pool.evictions, 'eviction')} so far")
    lines = [", ".join(told)] if told else []
    lines += [f"waits: {wait_words(each, pool.read_at)}" for each in pool.waits[:_MOST_OF_POOL]]
    lines += [f"tenant {tenant_words(each, pool)}" for each in _busiest(pool)]
    lines += [f"{clock(each.at)} {incident_words(each)}" for each in pool.incidents[-_MOST_OF_POOL:]]
    return [
        colour(line, "bad") if pool.paused else line,
        *(f"  {part}" for each in lines for part in _broken(each, columns - 2)),
    ]


def _busiest(pool: Pool) -> list[PoolTenant]:
    """The tenants with most of the budget, where each may have a part of it only."""
    if pool.tenant_ceiling_mb is None:
        return []
    return sorted(pool.tenants, key=lambda each: -max(each.reserved_mb, each.usage_mb))[:_MOST_OF_POOL]


def _limit(each: Limit, at: float, columns: int) -> list[str]:
    since = span(at - each.waiting_since) if each.waiting_since is not None else ""
    row = _row(each.key, (each.concurrency, each.admitted, f"{each.waiting:,}", since), columns, tail=True)
    return [row, cut(f"  waits: {limit_words(each)}", columns)]


def _queue(queue: Queue, columns: int) -> str:
    counts = (queue.queued, queue.started, queue.deferred, queue.scheduled, queue.failed)
    return _row(queue.name, [f"{count:,}" for count in counts], columns)


def _type(each: JobType, columns: int) -> str:
    tally = each.tally
    counts = (tally.runs, tally.failed, tally.breached, tally.resumed)
    return _row(each.job_type, [f"{count:,.0f}" for count in counts], columns, tail=True)


def _trouble(trouble: Finding, columns: int, colour: Colour) -> list[str]:
    mark = colour(f"{trouble.mark:<{_MARK_COLUMNS}}", "bad" if trouble.mark == "problem" else "warning")
    told = below(mark, _broken(trouble.text, columns - _MARK_COLUMNS), _MARK_COLUMNS)
    indent = _MARK_COLUMNS + 3
    return told + below(f"{'-> ':>{indent}}", _broken(trouble.advice, columns - indent), indent)


def _broken(text: str, columns: int) -> list[str]:
    columns = max(30, columns)
    return wrapped(cut(text, _MOST_LINES * columns), columns)
