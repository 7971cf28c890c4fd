"""Every metric of the exporter: its name, kind, labels and meaning. ``docs/metrics.md`` says the same (tested).

Labels are few: ``job_type`` (the journal keeps 100; ``job`` is Prometheus' own label), ``queue``, and ``worker`` on
metrics of workers only; never a job's id. Sizes are in bytes and times in seconds, as Prometheus wants them; a MB of
rqmem is 2**20 bytes.
"""

from __future__ import annotations

from typing import Literal

from rqmem.values import dataclass

Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True)
class Metric:
    """A metric of the page; names of counters end in ``_total``."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


_ALL = (
    Metric("rqmem_up", "gauge", "1 when Redis answered this scrape. When it did not: 0, and there is no other metric."),
    Metric("rqmem_build_info", "gauge", "1; the version of the exporter.", ("version",)),
    Metric("rqmem_scrape_seconds", "gauge", "How long this scrape read from Redis."),
    Metric("rqmem_redis_refuses", "gauge", "1 while Redis answers and refuses writes; workers wait."),
    Metric("rqmem_suspended", "gauge", "1 while 'rq suspend' keeps workers from taking jobs."),
    Metric(
        "rqmem_journal_readable", "gauge",
        "0 when another version of rqmem wrote the journal. Then no metric is read from it.",
    ),
    Metric(
        "rqmem_journal_dropped_total", "counter",
        "Entries that were never written to the journal: Redis away or full, or too much at once.", ("kind",),
    ),
    Metric("rqmem_redis_used_bytes", "gauge", "Memory that Redis uses."),
    Metric("rqmem_redis_limit_bytes", "gauge", "Redis' maxmemory; 0 for no limit."),
    # Queues
    Metric(
        "rqmem_queue_jobs", "gauge",
        "Jobs of a queue by state: queued, started, deferred, scheduled, failed.", ("queue", "state"),
    ),
    Metric("rqmem_queue_overdue_jobs", "gauge", "Scheduled jobs that are due, and not moved.", ("queue",)),
    Metric("rqmem_queue_workers", "gauge", "Workers that take jobs from a queue.", ("queue",)),
    Metric("rqmem_queue_oldest_seconds", "gauge", "How long the next job of a queue has waited; 0: none.", ("queue",)),
    Metric(
        "rqmem_queue_expected_wait_seconds", "gauge",
        "Expected wait of a job that is enqueued now; 0: not known.", ("queue",),
    ),
    Metric("rqmem_held_back_jobs", "gauge", "Jobs that wait for others of their type (concurrency).", ("job_type",)),
    # Workers
    Metric(
        "rqmem_workers", "gauge",
        "Workers by kind (rqmem: keeps ceilings; rq: does not; silent: rqmem's, and not heard of) and state.",
        ("kind", "state"),
    ),
    Metric("rqmem_worker_start_time_seconds", "gauge", "When a worker started, in seconds since 1970.", ("worker",)),
    Metric("rqmem_worker_memory_bytes", "gauge", "Memory of the worker's own process, without its jobs.", ("worker",)),
    Metric("rqmem_worker_memory_limit_bytes", "gauge", "The ceiling of the worker's own process.", ("worker",)),
    Metric("rqmem_worker_job_usage_bytes", "gauge", "Usage of the running job and all that it started.", ("worker",)),
    Metric("rqmem_worker_job_limit_bytes", "gauge", "The ceiling of that job, else the worker's.", ("worker",)),
    Metric("rqmem_worker_job_usage_ratio", "gauge", "Usage of the running job, as a part of its ceiling.", ("worker",)),
    Metric("rqmem_worker_job_seconds", "gauge", "How long the running job has run; 0: none runs.", ("worker",)),
    Metric("rqmem_worker_jobs_total", "counter", "Executions since the worker started.", ("worker",)),
    Metric("rqmem_worker_breaches_total", "counter", "Breaches since the worker started.", ("worker",)),
    Metric("rqmem_worker_recycled_horses_total", "counter", "Horses replaced since the worker started.", ("worker",)),
    # Pools
    Metric("rqmem_pool_workers", "gauge", "Workers of a pool.", ("pool",)),
    Metric("rqmem_pool_budget_bytes", "gauge", "What all jobs of a pool may use together.", ("pool",)),
    Metric("rqmem_pool_reserved_bytes", "gauge", "What is reserved for the jobs that run.", ("pool",)),
    Metric("rqmem_pool_usage_bytes", "gauge", "What those jobs use.", ("pool",)),
    Metric("rqmem_pool_held_bytes", "gauge", "What the horses of idle workers hold.", ("pool",)),
    Metric("rqmem_pool_job_reserved_bytes", "gauge", "What is reserved for the job of a worker.", ("pool", "worker")),
    Metric(
        "rqmem_pool_tenant_reserved_bytes", "gauge", "What is reserved for the jobs of a tenant.", ("pool", "tenant"),
    ),
    Metric("rqmem_pool_tenant_usage_bytes", "gauge", "What those jobs use.", ("pool", "tenant")),
    Metric("rqmem_pool_tenant_waiting_jobs", "gauge", "Jobs of a tenant that wait for room.", ("pool", "tenant")),
    Metric("rqmem_pool_tenant_limit_bytes", "gauge", "What the jobs of one tenant may use; 0: as all.", ("pool",)),
    Metric("rqmem_pool_waiting_jobs", "gauge", "Jobs that wait in their queues until there is room.", ("pool",)),
    Metric("rqmem_pool_waiting_seconds", "gauge", "How long the first of them has waited; 0: none waits.", ("pool",)),
    Metric("rqmem_pool_paused", "gauge", "1 while a pool takes no jobs because memory is short.", ("pool",)),
    Metric("rqmem_pool_pauses_total", "counter", "How often a pool has paused since it began.", ("pool",)),
    Metric("rqmem_pool_evictions_total", "counter", "Jobs that a pool has evicted since it began.", ("pool",)),
    # Job types
    Metric("rqmem_job_running", "gauge", "Executions that run now.", ("job_type",)),
    Metric(
        "rqmem_job_jobs_total", "counter",
        "Jobs that somebody enqueued: without children, and once also where one was resumed, retried or gathered.",
        ("job_type",),
    ),
    Metric("rqmem_job_jobs_split_total", "counter", "Jobs of rqmem_job_jobs_total that split.", ("job_type",)),
    Metric("rqmem_job_runs_total", "counter", "Executions that ended.", ("job_type",)),
    Metric("rqmem_job_failures_total", "counter", "Executions with which their job failed.", ("job_type",)),
    Metric(
        "rqmem_job_breaches_total", "counter",
        "Executions that went above their ceiling, by the layer that acted: checkpoint, watch, kill, kernel.",
        ("job_type", "layer"),
    ),
    Metric("rqmem_job_resumes_total", "counter", "Executions after which the job went on in another.", ("job_type",)),
    Metric(
        "rqmem_job_escalations_total", "counter", "Executions after which the job went on under a higher ceiling.",
        ("job_type",),
    ),
    Metric(
        "rqmem_job_needed_ceiling_runs_total", "counter",
        "Runs that ended well of a type that escalates, by the ceiling in MB that they needed.",
        ("job_type", "ceiling_mb"),
    ),
    Metric("rqmem_job_splits_total", "counter", "Executions that split into child jobs.", ("job_type",)),
    Metric(
        "rqmem_job_leaks_total", "counter",
        "How often a leak was found.", ("job_type",),
    ),
    Metric(
        "rqmem_job_leak_run_bytes", "gauge", "What each run leaves behind: the average of leaks found.", ("job_type",)
    ),
    Metric("rqmem_job_collections_total", "counter", "Collections of garbage at checkpoints.", ("job_type",)),
    Metric("rqmem_job_freed_bytes_total", "counter", "Memory that these collections freed.", ("job_type",)),
    Metric("rqmem_job_chunks_total", "counter", "Chunks that were finished.", ("job_type",)),
    Metric("rqmem_job_items_total", "counter", "Items of finished chunks.", ("job_type",)),
    Metric(
        "rqmem_job_alerts_total", "counter",
        "Alerts that were raised, by rule; without a job type: those about a worker.", ("job_type", "rule"),
    ),
    Metric(
        "rqmem_job_memory_byte_seconds_total", "counter", "Memory of executions, added up over each second.",
        ("job_type",),
    ),
    Metric(
        "rqmem_tenant_memory_byte_seconds_total", "counter",
        "The same by tenant, for the 200 tenants that used most.", ("tenant",),
    ),
    Metric("rqmem_job_open_alerts", "gauge", "Alerts that have not ended, by rule.", ("job_type", "rule")),
    Metric("rqmem_job_peak_bytes", "histogram", "The highest usage of each execution.", ("job_type",)),
    Metric("rqmem_job_run_seconds", "histogram", "How long each execution took.", ("job_type",)),
    Metric("rqmem_job_limit_bytes", "gauge", "The ceiling that the last execution had.", ("job_type",)),
    Metric(
        "rqmem_job_seen_timestamp_seconds", "gauge",
        "When the journal last heard of the job type, in seconds since 1970.", ("job_type",),
    ),
)  # fmt: skip

METRICS: dict[str, Metric] = {each.name: each for each in _ALL}
"""Name -> metric, in the order of the page."""
