"""Decides when a horse is replaced, by what this worker has seen of it and of its job types.

The rules and their thresholds are in `rqmem.policy.recycling` and `rqmem.policy.leaks`.
"""

from __future__ import annotations

import logging
import sys

from rqmem import events
from rqmem.policy import leaks, recycling
from rqmem.policy.leaks import Leaks
from rqmem.policy.needs import Needs
from rqmem.policy.recycling import AfterJob, Fit
from rqmem.store.history.history_records import OK
from rqmem.units import MB, show_leak
from rqmem.worker.horse.channel import LeaseEnd, Report
from rqmem.worker.shared_memory import SharedPage
from rqmem.worker.warm_horse import WarmHorse
from rqmem.worker.watcher import Identity
from rqmem.worker.worker_setup import Setup

_log = logging.getLogger("rqmem.worker")


class Recycling:
    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._leaks = Leaks()
        self._needs = Needs()

    def new_horse(self) -> None:
        """A new horse begins: forget what was seen of leaks in the last one."""
        self._leaks = self._leaks.in_new_horse()

    def fit(self, warm: WarmHorse, job_type: str, idle_bytes: int) -> Fit:
        return recycling.fit(warm.state, job_type, self._needs.of(job_type), idle_bytes)

    def crowded(self, warm: WarmHorse, job_type: str, idle_bytes: int) -> str:
        """The reason why such a job needs a new horse; empty if it may run in this one."""
        declared_bytes = self._needs.of(job_type).declared_bytes
        return recycling.crowded(self.fit(warm, job_type, idle_bytes), self._ceiling_of(declared_bytes))

    def declined(self, page: SharedPage, job_type: str) -> str:
        self._needs.of(job_type).declared_bytes = page.wanted_bytes
        need = page.need_bytes if page.need_bytes >= 0 else None
        before = Fit(page.held_before, page.left_before, need)
        return recycling.crowded(before, self._ceiling_of(page.wanted_bytes)) or "it holds more than the job's ceiling"

    def after_job(self, warm: WarmHorse, about: Identity, report: Report, outside_bytes: int) -> str:
        """The reason to replace the horse after this job; empty to keep it."""
        page, name = warm.page, about.job
        first = not warm.state.has_run(name)
        reason = self._decide(warm, AfterJob(name, report.kept_bytes, report.threads, report.changed, outside_bytes))
        if page.outcome == OK:
            self._needs.ran(name, page.peak_bytes - page.held_before, page.wanted_bytes, first=first)
        threads = warm.state.threads_by.get(name, 0)
        if self._needs.left_threads(name, threads):
            named = f" ({', '.join(report.new_threads)})" if report.new_threads else ""
            _log.info(
                "worker %s: %s left %d threads running%s: they stay, and only more of them replace the horse",
                about.worker, name, threads, named,
            )  # fmt: skip
        return self._leak(page, about, report) or reason

    def after_lease(self, warm: WarmHorse, about: Identity, report: Report, lease: LeaseEnd, outside_bytes: int) -> str:
        """The reason to replace the horse after a lease; empty to keep it. ``about``: the last job of the lease."""
        jobs = lease.jobs + lease.handed_over
        for ran in lease.ran:
            self._leaks = leaks.ran(self._leaks, ran.job, ran.times)
        after = AfterJob(about.job, report.kept_bytes, report.threads, report.changed, outside_bytes, jobs)
        return self._decide(warm, after)

    def _decide(self, warm: WarmHorse, after: AfterJob) -> str:
        most_jobs = self._setup.config.max_jobs_per_horse or 0
        threads_allowed = self._needs.of(after.job).threads_allowed
        reason, warm.state = recycling.decide(warm.state, after, self._setup.limit_bytes, most_jobs, threads_allowed)
        return reason

    def not_crowded(self, warm: WarmHorse) -> list[str] | None:
        """The job types for which the other types have left next to no memory in the horse; None: all."""
        return recycling.not_crowded(warm.state, lambda job: self._ceiling_of(self._needs.of(job).declared_bytes))

    def _leak(self, page: SharedPage, about: Identity, report: Report) -> str:
        """The reason to replace the horse if this run shows that the job type leaks; else empty."""
        name = page.job or about.job
        found, self._leaks = leaks.observe(self._leaks, name, report.left_bytes, page.ceiling_bytes)
        if found is None:
            return ""
        leak = events.LeakFound(
            mb_per_run=found.bytes_per_run / MB, runs=found.runs, grew=report.grew,
            job=name, job_id=about.job_id, queue=about.queue, worker=about.worker,
        )  # fmt: skip
        events.emit(leak)
        return f"{leak.job} leaks {show_leak(leak.mb_per_run)} a run"

    def _ceiling_of(self, declared_bytes: int) -> int:
        """The ceiling of a job that declares ``declared_bytes``; 0: it declares none."""
        return min(self._setup.limit_bytes, declared_bytes or sys.maxsize)
