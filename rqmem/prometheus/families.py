"""A snapshot as Prometheus' metric families. Pure; needs prometheus-client (the extra ``metrics``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from prometheus_client import Metric as Family
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from rqmem._version import __version__
from rqmem.events import Layer
from rqmem.observe.model import JobType, Snapshot, Worker
from rqmem.policy.alert_rules import RULES, WORKER_FULL
from rqmem.policy.histogram import cumulative
from rqmem.prometheus.metrics import METRICS
from rqmem.store.history.history_records import PEAK_BOUNDS_MB, SECONDS_BOUNDS, Live
from rqmem.text import printable
from rqmem.units import MB

KINDS = ("rqmem", "rq", "silent")
_KINDS: dict[str, Any] = {
    "gauge": GaugeMetricFamily, "counter": CounterMetricFamily, "histogram": HistogramMetricFamily,
}  # fmt: skip
_USUAL_STATES = ("busy", "idle")
_QUEUE_STATES = ("queued", "started", "deferred", "scheduled", "failed")
_DROPPED = ("events", "runs", "alerts", "refused")
_RULES = tuple(name for name in RULES if name != WORKER_FULL.name)  # that one is about no job


class _Page:
    """The families of one snapshot, in the catalogue's order."""

    def __init__(self) -> None:
        self._families = {name: empty(name) for name in METRICS}

    def put(self, name: str, value: float, *labels: str) -> None:
        """A sample of a gauge or counter."""
        self._families[name].add_metric(_shown(labels), value)

    def spread(self, name: str, counts: Sequence[tuple[float | None, float]], total: float, *labels: str) -> None:
        """A histogram: how many are up to each bound, None for all, and their sum."""
        buckets = [("+Inf" if bound is None else floatToGoString(bound), count) for bound, count in counts]
        self._families[name].add_metric(_shown(labels), buckets, total)

    def families(self) -> list[Family]:
        return [family for family in self._families.values() if family.samples]


def _shown(labels: Sequence[str]) -> list[str]:
    """Names as labels, each on one line. A backslash in one is doubled, so that two names never become one label."""
    return [printable(label.replace("\\", r"\\")) for label in labels]


def empty(name: str) -> Any:
    metric = METRICS[name]
    return _KINDS[metric.kind](name, metric.help, labels=metric.labels)


def families(snapshot: Snapshot | None, seconds: float) -> list[Family]:
    """The page. ``snapshot`` None: Redis did not answer; ``seconds``: how long reading took."""
    page = _Page()
    page.put("rqmem_up", snapshot is not None)
    page.put("rqmem_build_info", 1, __version__)
    if snapshot is not None:
        page.put("rqmem_scrape_seconds", seconds)
        _of_redis(page, snapshot)
        _of_queues(page, snapshot)
        _of_workers(page, snapshot)
        _of_pools(page, snapshot)
        if not snapshot.journal_error:
            _of_jobs(page, snapshot)
    return page.families()


def _of_redis(page: _Page, snapshot: Snapshot) -> None:
    page.put("rqmem_redis_refuses", bool(snapshot.refuses))
    page.put("rqmem_suspended", snapshot.suspended)
    page.put("rqmem_journal_readable", not snapshot.journal_error)
    for kind in dict.fromkeys([*_DROPPED, *sorted(snapshot.dropped)]):
        page.put("rqmem_journal_dropped_total", snapshot.dropped.get(kind, 0), kind)
    if snapshot.memory is not None:
        page.put("rqmem_redis_used_bytes", snapshot.memory.used_bytes)
        page.put("rqmem_redis_limit_bytes", snapshot.memory.max_bytes)


def _of_queues(page: _Page, snapshot: Snapshot) -> None:
    serving = Counter(queue for worker in snapshot.workers if worker.kind != "silent" for queue in set(worker.queues))
    for queue in snapshot.queues:
        for state in _QUEUE_STATES:
            page.put("rqmem_queue_jobs", getattr(queue, state), queue.name, state)
        page.put("rqmem_queue_overdue_jobs", queue.due, queue.name)
        page.put("rqmem_queue_workers", serving[queue.name], queue.name)
        page.put("rqmem_queue_oldest_seconds", queue.oldest_seconds, queue.name)
        page.put("rqmem_queue_expected_wait_seconds", queue.expected_wait_seconds, queue.name)

    held_back: Counter[str] = Counter()
    for limit in snapshot.limits:
        held_back[limit.job_type] += limit.waiting
    for job, count in sorted(held_back.items()):
        page.put("rqmem_held_back_jobs", count, job)


def _of_workers(page: _Page, snapshot: Snapshot) -> None:
    there = Counter((str(worker.kind), worker.state) for worker in snapshot.workers)
    usual = [(kind, state) for kind in KINDS for state in _USUAL_STATES]
    for kind, state in sorted({*usual, *there}):
        page.put("rqmem_workers", there[kind, state], kind, state)
    for worker in snapshot.workers:
        if worker.live is not None:
            _of_worker(page, worker, worker.live, snapshot.at)


def _of_pools(page: _Page, snapshot: Snapshot) -> None:
    for pool in snapshot.pools:
        for name, value in {
            "rqmem_pool_workers": pool.workers,
            "rqmem_pool_budget_bytes": MB * pool.budget_mb,
            "rqmem_pool_reserved_bytes": MB * pool.reserved_mb,
            "rqmem_pool_usage_bytes": MB * pool.usage_mb,
            "rqmem_pool_held_bytes": MB * pool.held_mb,
            "rqmem_pool_tenant_limit_bytes": MB * (pool.tenant_ceiling_mb or 0.0),
            "rqmem_pool_waiting_jobs": pool.waiting,
            "rqmem_pool_waiting_seconds": pool.waiting_seconds or 0.0,
            "rqmem_pool_paused": bool(pool.paused),
            "rqmem_pool_pauses_total": pool.pauses,
            "rqmem_pool_evictions_total": pool.evictions,
        }.items():
            page.put(name, value, pool.pool)
        for job in pool.jobs:
            page.put("rqmem_pool_job_reserved_bytes", MB * job.reserved_mb, pool.pool, job.worker)
        for tenant in pool.tenants:
            page.put("rqmem_pool_tenant_reserved_bytes", MB * tenant.reserved_mb, pool.pool, tenant.tenant)
            page.put("rqmem_pool_tenant_usage_bytes", MB * tenant.usage_mb, pool.pool, tenant.tenant)
            page.put("rqmem_pool_tenant_waiting_jobs", tenant.waiting, pool.pool, tenant.tenant)


def _of_worker(page: _Page, worker: Worker, live: Live, now: float) -> None:
    job = live.job
    for name, value in {
        "rqmem_worker_start_time_seconds": live.started_at,
        "rqmem_worker_memory_bytes": MB * live.worker_mb,
        "rqmem_worker_memory_limit_bytes": MB * live.worker_limit_mb,
        "rqmem_worker_job_usage_bytes": MB * job.usage_mb if job is not None else 0.0,
        "rqmem_worker_job_limit_bytes": MB * (worker.ceiling_mb or 0.0),
        "rqmem_worker_job_usage_ratio": worker.share or 0.0,
        "rqmem_worker_job_seconds": max(0.0, now - job.started_at) if job is not None else 0.0,
        "rqmem_worker_jobs_total": live.jobs,
        "rqmem_worker_breaches_total": live.breaches,
        "rqmem_worker_recycled_horses_total": live.recycled,
    }.items():
        page.put(name, value, live.worker)


def _of_jobs(page: _Page, snapshot: Snapshot) -> None:
    running = Counter(worker.job.job for worker in snapshot.workers if worker.job is not None)
    for job in sorted({*(each.job_type for each in snapshot.job_types), *running}):
        page.put("rqmem_job_running", running[job], job)
    for each in snapshot.job_types:
        _of_job(page, each)
    _counts(page, "rqmem_job_alerts_total", "", snapshot.about_no_job.alerts, [WORKER_FULL.name])
    for tenant, mb_seconds in sorted(snapshot.tenants.items()):
        page.put("rqmem_tenant_memory_byte_seconds_total", MB * mb_seconds, tenant)
    for alert in snapshot.open_alerts:
        page.put("rqmem_job_open_alerts", 1, alert.job, alert.rule)


def _of_job(page: _Page, known: JobType) -> None:
    job, totals = known.job_type, known.totals
    for name, value in {
        "rqmem_job_jobs_total": totals.jobs,
        "rqmem_job_jobs_split_total": totals.jobs_split,
        "rqmem_job_runs_total": totals.runs,
        "rqmem_job_failures_total": totals.failed,
        "rqmem_job_resumes_total": totals.resumed,
        "rqmem_job_escalations_total": totals.escalations,
        "rqmem_job_memory_byte_seconds_total": MB * totals.mb_seconds,
        "rqmem_job_splits_total": totals.splits,
        "rqmem_job_leaks_total": totals.leaks,
        "rqmem_job_collections_total": totals.collections,
        "rqmem_job_freed_bytes_total": MB * totals.freed_mb,
        "rqmem_job_chunks_total": totals.chunks,
        "rqmem_job_items_total": totals.items,
        "rqmem_job_seen_timestamp_seconds": known.seen_at or 0.0,
    }.items():
        page.put(name, value, job)
    if totals.leaks:
        page.put("rqmem_job_leak_run_bytes", MB * totals.leak_mb / totals.leaks, job)
    if known.ceiling_mb is not None:
        page.put("rqmem_job_limit_bytes", MB * known.ceiling_mb, job)
    _counts(page, "rqmem_job_breaches_total", job, totals.breaches, get_args(Layer))
    _counts(page, "rqmem_job_alerts_total", job, totals.alerts, _RULES)
    for ceiling_mb in sorted(totals.needed):
        page.put("rqmem_job_needed_ceiling_runs_total", totals.needed[ceiling_mb], job, f"{ceiling_mb:g}")
    peaks = [(None if end is None else MB * end, count) for end, count in cumulative(totals.peaks, PEAK_BOUNDS_MB)]
    page.spread("rqmem_job_peak_bytes", peaks, MB * totals.peak_mb, job)
    page.spread("rqmem_job_run_seconds", cumulative(totals.durations, SECONDS_BOUNDS), totals.seconds, job)


def _counts(page: _Page, name: str, job: str, counts: Mapping[str, float], usual: Sequence[str]) -> None:
    """What has not happened is 0: for Prometheus a counter that begins with 1 has never risen."""
    for what in dict.fromkeys([*usual, *sorted(counts)]):
        page.put(name, counts.get(what, 0), job, what)
