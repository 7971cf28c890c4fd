"""A record as lines of a log, for pipes and files. Each line begins with the time and can be found with grep. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from rqmem.live.crossings import Crossing
from rqmem.live.record import Record
from rqmem.live.worker_lines import WITHOUT_REPORT
from rqmem.observe.model import Pool, Worker
from rqmem.observe.pool_words import holding_words, incident_words, wait_words
from rqmem.store.alerts.alert_records import Alert
from rqmem.text import clock, counted, printable
from rqmem.units import show_mb

_MOST_OF_POOL = 3  # jobs that wait, incidents


def block(record: Record) -> Iterator[str]:
    """The present state: a line for the machine, and one for each worker, queue and open alert."""
    system, look = record.system, record.look
    begin = clock(look.at)
    pressure = system.pressure
    pressed = (
        f"pressure {pressure.some_10:.1f} % some, {pressure.full_10:.1f} % full" if pressure else "pressure not told"
    )
    rate = record.ended_per_minute
    yield printable(
        f"{begin} memory of {system.host}: {system.used_mb:,.0f} of {system.total_mb:,.0f} MB "
        f"({system.used_percentage:.0f} %), {pressed}{f', {rate:,.0f} jobs ended a minute' if rate is not None else ''}"
    )
    if not look.workers:
        yield f"{begin} no workers"
    for worker in look.workers:
        yield printable(f"{begin} worker {worker.name}: {_worker(worker, record)}")
    for pool in look.pools:
        yield printable(f"{begin} pool {pool.pool}: {_pool(pool)}")
        for wait in pool.waits[:_MOST_OF_POOL]:
            yield printable(f"{begin} pool {pool.pool}: waits: {wait_words(wait, look.at)}")
        for incident in pool.incidents[-_MOST_OF_POOL:]:
            yield printable(f"{begin} pool {pool.pool}: at {clock(incident.at)} {incident_words(incident)}")
    for limit in look.limits:
        yield printable(f"{begin} {holding_words(limit)}")
    for queue in look.queues:
        yield printable(
            f"{begin} queue {queue.name}: {queue.queued:,} queued, {queue.started:,} started, "
            f"{queue.deferred:,} deferred, {queue.failed:,} failed"
        )
    for each in look.open_alerts:
        yield printable(f"{begin} open alert since {clock(each.since)}: {each.rule}: {each.text}")


def _pool(pool: Pool) -> str:
    paused = f"; takes no jobs: {pool.paused}" if pool.paused else ""
    return (
        f"{show_mb(round(pool.usage_mb))} used, {show_mb(round(pool.reserved_mb))} reserved of "
        f"{show_mb(round(pool.budget_mb))} MB, {counted(pool.workers, 'worker')}, {pool.waiting:,} waiting, "
        f"{counted(pool.evictions, 'eviction')}{paused}"
    )


def _worker(worker: Worker, record: Record) -> str:
    live = worker.live
    if live is None:
        return f"{worker.state}; {WITHOUT_REPORT[worker.kind]}"
    itself = f"itself {show_mb(live.worker_mb)} of {show_mb(live.worker_limit_mb)} MB"
    job = live.job
    if job is None:
        return f"idle; {itself}"
    share = 100 * job.usage_mb / job.limit_mb if job.limit_mb > 0 else 0.0
    above = f", ABOVE {record.threshold_percentage:g} %" if share > record.threshold_percentage else ""
    return (
        f"{show_mb(job.usage_mb)} of {show_mb(job.limit_mb)} MB ({share:.0f} %{above}) {job.job} ({job.job_id})"
        f"{f' at {job.operation}' if job.operation else ''}"
        f"{f', {job.items_done:,} items' if job.items_done else ''}; {itself}"
    )


def crossing(each: Crossing, threshold_percentage: float) -> str:
    """The line that says that a job rose above the threshold."""
    return printable(
        f"{clock(each.at)} ABOVE {threshold_percentage:g} %: {each.job} ({each.job_id}) on {each.worker} uses "
        f"{show_mb(each.usage_mb)} of {show_mb(each.limit_mb)} MB ({each.usage_percentage:.0f} %)"
    )


def alert(each: Alert) -> str:
    return printable(f"{clock(each.at)} alert {each.state}: {each.rule}: {each.text}")
