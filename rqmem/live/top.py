"""One worker by line of code, for ``rqmem top``: reading what it reports, as lines and as JSON. Only reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import Redis

from rqmem import words
from rqmem.child_ids import short_id
from rqmem.errors import RqmemError, UnknownName
from rqmem.live.worker_lines import percent
from rqmem.observe.model import Kind, Pool, Worker
from rqmem.observe.pool_words import incident_words, wait_words
from rqmem.observe.snapshot import Before, read_news
from rqmem.observe.vocabulary import encoded, versioned
from rqmem.store.history import history_reader
from rqmem.store.history.history_records import Grown, LiveJob
from rqmem.store.history.samples import Sample
from rqmem.text import Line, Mood, bar, clock, did_you_mean, fit, line, listed, span, sparkline
from rqmem.units import show_mb
from rqmem.values import dataclass

_MOST_TYPES = 20  # whose records are read
_MOST_RECORDS = 5
_LINES_OF_A_RECORD = 3
_NAMED = 5
_HIGH = 0.8
_BAR_COLUMNS, _SPARK_COLUMNS = 20, 30
_WITHOUT_REPORT: dict[Kind, str] = {
    "rq": "a stock rq worker: its memory is not watched; 'rqmem worker' runs its queues too",
    "rqmem": "it reports nothing: its journal is off (RQMEM_JOURNAL)",
    "silent": "not heard of: it hangs, or is dead ('rqmem status' says what becomes of its jobs)",
}


@dataclass(frozen=True)
class Top:
    """A worker at one moment (``at``, epoch seconds). ``samples``: its last minutes, oldest first.

    ``pool``: its pool; None: it is in none.
    """

    at: float
    redis: str
    worker: Worker
    samples: tuple[Sample, ...] = ()
    records: tuple[Grown, ...] = ()
    pool: Pool | None = None

    @property
    def job(self) -> LiveJob | None:
        return self.worker.job


def choose(names: Sequence[str], wanted: str | None) -> str:
    """The worker that is wanted; without a name, the only one. Raises `RqmemError` and `UnknownName`."""
    if not names:
        raise RqmemError("no worker runs on this Redis: 'rqmem worker' starts one; is it the right --url?")
    known = listed(names, _NAMED)
    if wanted is None:
        if len(names) > 1:
            raise UnknownName(f"{len(names)} workers run: name one with --worker: {known}")
        return names[0]
    if wanted not in names:
        raise UnknownName(f"--worker {wanted!r} does not run: {did_you_mean(wanted, names, f'there are {known}')}")
    return wanted


def read(connection: Redis, redis: str, name: str | None, now: float) -> Top:
    """Read it now. Raises `RqmemError` if there is no such worker, and redis-py's errors."""
    news = read_news(connection, now, Before())
    workers = {each.name: each for each in news.workers}
    worker = workers[choose(sorted(workers), name)]
    in_pool = worker.live.pool if worker.live is not None else ""
    pool = next((each for each in news.pools if each.pool == in_pool), None)
    return Top(now, redis, worker, worker.samples, tuple(_records(connection, worker.name, now)), pool)


def _records(connection: Redis, worker: str, now: float) -> list[Grown]:
    """Of the job types that were seen last."""
    seen = history_reader.types(connection)
    latest = sorted(seen, key=lambda each: -seen[each])[:_MOST_TYPES]
    found = [each for name in latest for each in history_reader.grown(connection, name, now) if each.worker == worker]
    return sorted(found, key=lambda each: -each.at)[:_MOST_RECORDS]


def lines(top: Top, width: int, *, ascii_only: bool = False, notice: str = "") -> list[Line]:
    """The lines to show, of at most ``width`` columns."""
    shown = [
        _title(top),
        *([line((notice, "bad"))] if notice else []),
        *_usage(top, ascii_only=ascii_only),
        *_pool(top),
    ]
    if top.job is not None:
        shown += [line(), line((words.where_it_grew(top.job.peak_mb, so_far=True), "title"))]
        if top.job.grew:
            shown += _grew(top.job.grew, top.job.limit_mb)
        else:
            shown.append(line(("  no line yet: it has not grown by a step (RQMEM_SAMPLE_STEP)", "faint")))
    shown += [line(), line(("records of this worker", "title"))]
    if not top.records:
        shown.append(line(("  none yet: runs whose peaks are records of their job type are shown here", "faint")))
    for each in top.records:
        peak = f"peak {show_mb(each.peak_mb)} of {show_mb(each.limit_mb)} MB"
        shown.append(line(f"  {clock(each.at)}  {peak}  {each.job} ({short_id(each.job_id)})"))
        shown += _grew(each.grew[:_LINES_OF_A_RECORD], each.limit_mb)
    return [fit(each, width) for each in shown]


def _title(top: Top) -> Line:
    live = top.worker.live
    told = (
        f"  pid {live.pid} on {live.host}  {live.jobs:,} jobs, {live.breaches:,} breaches  "
        f"itself {show_mb(live.worker_mb)} of {show_mb(live.worker_limit_mb)} MB"
        if live is not None
        else f"  on {top.worker.host}"
    )
    return line((f"rqmem top  {clock(top.at)}  {top.worker.name}", "title"), told, (f"  {top.redis}", "faint"))


def _usage(top: Top, *, ascii_only: bool) -> list[Line]:
    job = top.job
    if top.worker.live is None:
        return [line((_WITHOUT_REPORT[top.worker.kind], "bad" if top.worker.kind == "silent" else "warning"))]
    if job is None:
        return [line(("idle", "faint"))]
    share = top.worker.share or 0.0
    mood: Mood = "good" if share <= _HIGH else "warning" if share <= 1 else "bad"
    history = sparkline(
        [each.usage_mb for each in top.samples], _SPARK_COLUMNS, top=job.limit_mb, ascii_only=ascii_only
    )
    place = f" at {job.operation}" if job.operation else ""
    items = f", {job.items_done:,} items" if job.items_done else ""
    return [
        line((bar(share, _BAR_COLUMNS, ascii_only=ascii_only), mood), "  ",
             (f"{job.usage_mb:,.1f} of {show_mb(job.limit_mb)} MB ({percent(share)})", mood),
             f"  peak {job.peak_mb:,.1f} MB  {history.strip()}"),
        line(f"{job.job} ({short_id(job.job_id)}) for {span(top.at - job.started_at)}{place}{items}"),
    ]  # fmt: skip


def _pool(top: Top) -> list[Line]:
    """What its pool's budget is used for, and what of that its job has."""
    pool = top.pool
    if pool is None:
        return []
    own = next((each for each in pool.jobs if each.worker == top.worker.name), None)
    mine = f", {show_mb(round(own.reserved_mb))} for this job" if own is not None else ""
    told = (
        f"pool {pool.pool}: {pool.usage_mb:,.0f} used, {pool.reserved_mb:,.0f} reserved of {pool.budget_mb:,.0f} MB"
        f"{mine}, {pool.waiting:,} waiting"
    )
    lines = [line(told, (f", takes no jobs: {pool.paused}" if pool.paused else "", "bad"))]
    if pool.waits:
        lines.append(line(f"  waits: {wait_words(pool.waits[0], top.at)}"))
    if pool.incidents:
        lines.append(line((f"  {clock(pool.incidents[-1].at)} {incident_words(pool.incidents[-1])}", "faint")))
    return lines


def _grew(grew: Sequence[tuple[float, str]], limit_mb: float) -> list[Line]:
    """MB, that as a share of the ceiling, and the line of code."""
    return [
        line(f"  {grown_mb:>8,.1f} MB {percent(grown_mb / limit_mb) if limit_mb else '':>6}  {where}")
        for grown_mb, where in grew
    ]


def as_json(top: Top) -> dict[str, Any]:
    """What ``--json`` prints; its names are those of `rqmem.observe.as_json`."""
    head = versioned(at=top.at, redis=top.redis)
    pool = top.pool.to_json() if top.pool is not None else None
    return {**head, "worker": top.worker.to_json(), "pool": pool, "records": encoded(top.records)}
