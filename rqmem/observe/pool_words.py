"""What keeps jobs waiting that could run, and what pools do for want of memory, in words. Pure."""

from __future__ import annotations

from rqmem.observe.model import Limit, Pool
from rqmem.store.history.pool_records import PoolIncident, PoolTenant, PoolWait
from rqmem.text import counted, span
from rqmem.units import show_mb


def limit_words(limit: Limit) -> str:
    """Why jobs wait that this limit holds back."""
    return f"{limit.admitted} of this {'key' if limit.value else 'type'} already wait in a queue or run (concurrency)"


def holding_words(limit: Limit) -> str:
    """The same with how many jobs wait."""
    key = f" ({limit.value})" if limit.value else ""
    verb = "waits" if limit.waiting == 1 else "wait"
    return f"{counted(limit.waiting, 'job')} of {limit.job_type}{key} {verb}: {limit_words(limit)}"


def refused_words(pool: str, wait: PoolWait, now: float) -> str:
    """Why a job waits that a pool has refused."""
    whose = f" for {wait.tenant}" if wait.tenant else ""
    needs = f"it needs {_mb(wait.need_mb)} MB{whose}"
    return f"pool {pool} has had no room for it for {_waited(wait, now)}: {needs}, and {wait.reason}"


def wait_words(wait: PoolWait, now: float) -> str:
    """A job that waits for room, how long, and why."""
    whose = f" of {wait.tenant}" if wait.tenant else ""
    return (
        f"{wait.job} {wait.job_id}{whose} for {_waited(wait, now)}: it needs {_mb(wait.need_mb)} MB, and {wait.reason}"
    )


def incident_words(each: PoolIncident) -> str:
    """A pause, its end, or an eviction."""
    if each.what == "evicted":
        used = f", which used {_mb(each.usage_mb)} MB" if each.usage_mb is not None else ""
        return f"evicted {each.job} {each.job_id}{used}: {each.reason}"
    return f"paused: {each.reason}" if each.what == "paused" else f"took jobs again; it was paused: {each.reason}"


def tenant_words(each: PoolTenant, pool: Pool) -> str:
    """What the jobs of a tenant use of what they may."""
    of = f" of {_mb(pool.tenant_ceiling_mb)}" if pool.tenant_ceiling_mb is not None else ""
    waiting = f", {counted(each.waiting, 'job')} waiting" if each.waiting else ""
    return f"{each.tenant}: {_mb(each.usage_mb)} MB used, {_mb(each.reserved_mb)}{of} MB reserved{waiting}"


def _waited(wait: PoolWait, now: float) -> str:
    return span(max(0.0, now - wait.since))


def _mb(size_mb: float) -> str:
    return show_mb(round(size_mb))
