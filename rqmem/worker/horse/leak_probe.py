"""What a warm horse does about the memory its jobs leave: tidies between them, and probes some runs for leaks.

A probe is a run right before and right after which the horse has collected and trimmed, so that what it left for good
is known (`rqmem.policy.leaks` says when one is worth it, and what follows from it). A horse that has not grown since
the first runs of its job types pays a clock and a comparison for each job.
"""

from __future__ import annotations

import time
from dataclasses import replace

from rqmem.measure import procfs, trim
from rqmem.policy import leaks
from rqmem.units import MB
from rqmem.worker.horse import object_kinds
from rqmem.worker.horse.channel import LeaseEnd, Report

WORTH_TIDYING_BYTES = 4 * MB
_clock = time.perf_counter


class Probing:
    """Of one warm horse: call `before` and `after` around each run."""

    def __init__(self) -> None:
        self._at_first = self._held = self._tidied = self._kinds_at = procfs.own_held_bytes()
        self._left_by_first_runs = 0
        self._types: dict[str, leaks.Probed] = {}
        self._job_type = ""
        self._worked_seconds = self._spent_seconds = 0.0
        self._probing = self._is_tidy = False
        self._began = _clock()

    def before(self, job_type: str) -> None:
        self._job_type = job_type
        self._began = _clock()
        self._probing = self.wants(job_type)
        if self._probing and not self._is_tidy:
            cpu = time.thread_time()
            self._tidy()
            self._spent_seconds, self._began = self._spent_seconds + time.thread_time() - cpu, _clock()
        self._is_tidy = False

    def wants(self, job_type: str) -> bool:
        """Whether the next run of such a job had better be a probe."""
        grown = self._tidied - self._at_first - self._left_by_first_runs
        probed = self._types.get(job_type, leaks.Probed())
        return leaks.worth_a_probe(grown, self._spent_seconds, self._worked_seconds, probed)

    def before_lease(self) -> None:
        """Runs come that are no probes."""
        self._began, self._probing, self._is_tidy = _clock(), False, False

    def after_lease(self, lease: LeaseEnd, *, doomed: bool) -> Report:
        self._worked_seconds += _clock() - self._began
        for ran in lease.ran:
            if (probed := self._types.get(ran.job)) is not None and probed.probes:
                self._types[ran.job] = replace(probed, since=probed.since + ran.times)
        held = procfs.own_held_bytes()
        if not doomed and held - self._tidied >= WORTH_TIDYING_BYTES:
            held = self._look_at_kinds(self._tidy())
            self._is_tidy = True
        self._held = held
        return Report(held - self._at_first)

    def after(self, *, doomed: bool) -> Report:
        """The job is committed. ``doomed``: the horse will be replaced whatever it holds."""
        self._worked_seconds += _clock() - self._began
        held, left = procfs.own_held_bytes(), None
        before = self._tidied
        if not doomed and (self._probing or held - self._tidied >= WORTH_TIDYING_BYTES):
            cpu = time.thread_time()
            held = self._tidy()
            left = held - before if self._probing else None
            held = self._look_at_kinds(held)
            self._is_tidy = True
            if self._probing:
                self._spent_seconds += time.thread_time() - cpu
        probed = self._types.get(self._job_type)
        if probed is None:
            self._left_by_first_runs += max(0, held - self._held)
        if probed is None or probed.probes or left is not None:
            self._types[self._job_type] = (probed or leaks.Probed()).after(left)
        self._held = held
        grew = object_kinds.kinds_that_stay() if left is not None else []
        return Report(held - self._at_first, left_bytes=left, grew=grew)

    def _look_at_kinds(self, held: int) -> int:
        """Where the horse holds much more or less than when it last looked. Returns what it holds."""
        if abs(held - self._kinds_at) >= WORTH_TIDYING_BYTES:
            object_kinds.remember_kinds()
            held = self._tidied = self._kinds_at = procfs.own_held_bytes()
        return held

    def _tidy(self) -> int:
        trim.collect_and_trim()
        self._tidied = procfs.own_held_bytes()
        return self._tidied
