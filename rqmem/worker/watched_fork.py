"""A fork of the worker that settles the job of a lost horse. It runs callbacks, so it is watched like a job."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from rqmem import events
from rqmem.measure import linux, process_tree
from rqmem.rq_names import Job, Queue, Worker
from rqmem.type_of_job import job_type
from rqmem.worker.helper_process import fork
from rqmem.worker.horse.hook_runner import Hooking
from rqmem.worker.horse_pool import HorsePool
from rqmem.worker.imports import check_importable
from rqmem.worker.watcher import Identity, Watcher

_VERDICT_SECONDS = 60  # time for all but the callback, which has its own limit


class WatchedFork:
    def __init__(self, worker: Worker, pool: HorsePool) -> None:
        self._worker = worker
        self._pool = pool

    def settle(
        self, job: Job, queue: Queue, settle: Callable[[], None], *, callback: str, seconds: int, outcome: str
    ) -> None:
        """Call ``settle`` in a fork of this process. If the fork dies, the caller must record the outcome.

        Args:
            callback: the kind of callback that it calls; ``seconds``: the time limit of that callback.
            outcome: how the job ended, for integrations.
        """
        worker, pool = self._worker, self._pool
        horses_page = pool.page
        active = horses_page.integrations.split()
        known = process_tree.descendants(os.getpid())
        pool.new_page(horses_page.ceiling_bytes)
        page, pool.page = pool.page, horses_page
        page.operation = f"the {callback} callback"

        def as_a_horse() -> None:
            pool.page = page
            worker.setup_work_horse_signals()
            worker._is_horse = True
            self._with_integrations(job, queue, active, settle, outcome)

        # If it fails, the worker records the outcome.
        pid = fork(as_a_horse, f"worker {worker.name}: the verdict on job {job.id} was cut short")
        watcher = Watcher(pid, page, Identity(job_type(job), job.id, queue.name, worker.name), pool.config, known)
        try:
            with linux.urgent():
                if not watcher.wait(time.monotonic() + seconds + _VERDICT_SECONDS):
                    process_tree.kill(os.getpid(), known)
        finally:
            watcher.close()
            os.waitpid(pid, 0)
        if watcher.breach is not None:
            events.emit(replace(watcher.breach, next="killed; the job's own end stands"))

    def _with_integrations(
        self, job: Job, queue: Queue, active: list[str], settle: Callable[[], None], outcome: str
    ) -> None:
        """In the fork: connections of its own for callbacks, and Sentry hears of the end.

        ``active``: integrations of the horse that ran the job.
        """
        page = self._pool.page
        hooking = Hooking(self._worker.name, integrate=self._pool.config.integrations, only_integrations=True)
        if "sentry" in active and "sentry_sdk" not in sys.modules:  # the job's modules have set it up
            with contextlib.suppress(Exception):
                check_importable(job)
        hooking.new_job(page, job, queue.name)
        hooking.before(page, job)
        try:
            settle()
        finally:
            hooking.after(page, job, outcome)
            hooking.ending(page)
