"""What happens inside the horse: serve orders, run the job's code, tidy up after it.

The horse is a fork of the worker, so it has copies of all objects. Its changes reach the worker only through Redis,
the shared page and the channel.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, NoReturn

from redis.exceptions import RedisError

from rqmem import events
from rqmem.errors import MemoryLimitExceeded, RedisUnavailable
from rqmem.measure import procfs
from rqmem.measure.threads import Threads, native_threads
from rqmem.rq_names import Execution, Job, JobTimeoutException, NoSuchJobError, Queue, Worker, utcformat
from rqmem.store import codec
from rqmem.store.history.history_records import OK
from rqmem.store.retrying import keep_reach, spent_seconds, until_redis_answers
from rqmem.type_of_job import type_of_path
from rqmem.worker.claim import mark_started
from rqmem.worker.commit import Committer
from rqmem.worker.execution import Event
from rqmem.worker.horse import environment, process_state, self_report, user_code
from rqmem.worker.horse.channel import Channel, LeaseEnd, LeaseOrder, Order, Report, unpacked
from rqmem.worker.horse.hook_runner import ENDING_SECONDS, Hooking
from rqmem.worker.horse.leak_probe import Probing
from rqmem.worker.horse.lease import Lease
from rqmem.worker.horse.leased_job import JobHooks, Types
from rqmem.worker.horse.user_code import Horse
from rqmem.worker.horse_pool import HorsePool
from rqmem.worker.imports import check_importable
from rqmem.worker.lent_connection import lent
from rqmem.worker.profiling import Capturing
from rqmem.worker.rq_worker import queue_of
from rqmem.worker.shared_memory import SharedPage
from rqmem.worker.take import restored
from rqmem.worker.unreadable_jobs import check_readable
from rqmem.worker.worker_setup import Setup

_KNOWN_TO_WORKER = ("job_id", "queue", "worker")  # left out of the events that the horse sends
_LEAST_HOOK_SECONDS, _MOST_HOOK_SECONDS = 5, 60  # time limits of hooks after a job; RQ's callbacks have 60 too
_WORKER_ID, _JOB_ID = environment.Again("RQ_WORKER_ID"), environment.Again("RQ_JOB_ID")
_log = logging.getLogger("rqmem.worker")


@dataclass(eq=False, repr=False)
class HorseMain:
    _worker: Worker
    _setup: Setup
    _pool: HorsePool
    _captures: Capturing
    _committer: Committer

    def __post_init__(self) -> None:
        self._settings: process_state.ProcessSettings | None = None
        self._here: Horse | None = None  # the last execution
        self._is_warm = False
        self._hooking: Hooking | None = None
        self._told_of_cut: set[str] = set()

    def settle_in(self) -> None:
        pool, config = self._pool, self._pool.config
        user_code.settle_in(pool.forking_pid, pool.group, config.preload)
        keep_reach()
        self_report.install(lambda: pool.page)
        events.subscribe(self._tell_worker)
        self._hooking = Hooking(self._setup.name, integrate=config.integrations)

    def _tell_worker(self, event: events.Event) -> None:
        """Subscriber to the horse's events: sends each to the worker over the event ring."""
        if isinstance(event, events.Checkpoint) and not event.notable:
            return
        if isinstance(event, events.Breach):
            event = event.without_evidence()
        page = self._pool.page
        left_out = () if page.leased else _KNOWN_TO_WORKER
        known = {name: value for name, value in codec.event_to_values(event).items() if name not in left_out}
        page.event_ring.write(json.dumps({"at": time.time(), **known}))

    def serve(self, channel: Channel) -> NoReturn:
        """The main loop of a warm horse. It ends the process when the worker has no more orders."""
        worker, page = self._worker, self._pool.page
        try:
            worker.setup_work_horse_signals()
            worker._is_horse = self._is_warm = True
            with contextlib.suppress(RedisError):  # connect before the first order; later commands wait for Redis
                worker.connection.ping()
            begun, probing, threads, types = process_state.look(), Probing(), Threads(), Types()
            while (order := channel.order()) is not None:
                if isinstance(order, LeaseOrder):
                    report = self._run_lease(order, page, types, probing, channel)
                else:
                    report = self._run_plain(order, page, types, probing)
                self._install_handlers()  # so that our handlers do not count as changes by the job
                changed = process_state.changed(begun, process_state.look()) or report.changed
                report = replace(report, changed=changed, threads=native_threads(), new_threads=threads.new())
                if not channel.send(report):
                    break
            self._call_ending_hooks()
        except RedisUnavailable as error:
            _log.error("worker %s: its horse ends, and its job with it: %s", worker.name, error)
            os._exit(1)
        except BaseException:  # noqa: BLE001  as RQ: whatever it was, this process ends
            _log.exception("worker %s: horse failed", worker.name)
            os._exit(1)
        os._exit(0)

    def _run_plain(self, order: Order, page: SharedPage, types: Types, probing: Probing) -> Report:
        """Run one execution, then report what it has left in the process."""
        probing.before(order.job_type)
        job = self._run_order(order, page)
        doomed = page.state.ends_horse
        if doomed:  # the worker kills this horse after its report
            self._call_ending_hooks()
        elif job is not None:
            types.ran(job, page)
        return self._look_after(probing, doomed)

    def _run_lease(
        self, order: LeaseOrder, page: SharedPage, types: Types, probing: Probing, channel: Channel
    ) -> Report:
        """Run the jobs of a lease, then report what they have left in the process together."""
        worker = self._worker
        _WORKER_ID.put(os.fsencode(worker.name))
        self._committer.began_in = order.began_in
        self._install_handlers()
        worker._stopped_job_id = None
        probing.before_lease()
        told_of_cut, put_back = frozenset(self._told_of_cut), self._put_settings_back
        lease = Lease(worker, self._pool, types, order, page, channel, probing.wants, put_back, told_of_cut)
        if self._hooking is not None and self._hooking.wanted(page):
            lease.hooks = JobHooks(page, self._hooking, self._call_after_hooks, self._call_hooks)
        end = lease.run()
        self._here = lease.here or self._here
        if lease.hooks is not None and lease.here is not None:
            lease.hooks.after_several(lease.here)
        doomed = page.state.ends_horse
        if doomed:
            self._call_ending_hooks()
        return replace(self._look_after(probing, doomed, end), lease=end)

    @staticmethod
    def _look_after(probing: Probing, doomed: bool, lease: LeaseEnd | None = None) -> Report:
        try:
            return probing.after(doomed=doomed) if lease is None else probing.after_lease(lease, doomed=doomed)
        except OSError as error:  # the job has called chroot, or has used up all file descriptors
            return Report(0, changed=f"its memory cannot be read any more ({error.strerror})")

    def _run_order(self, order: Order, page: SharedPage) -> Job | None:
        """As RQ's `main_work_horse`, without a new process. None: the job was deleted."""
        worker = self._worker
        _WORKER_ID.put(os.fsencode(worker.name))
        _JOB_ID.put(os.fsencode(order.job_id))
        self._committer.began_in = order.began_in
        self._committer.begun = order.execution_id if order.begun else ""
        self._install_handlers()
        queue = queue_of(worker, order.queue)
        execution = Execution(order.execution_id, order.job_id, worker.connection, worker.name)
        execution.created_at = datetime.fromtimestamp(order.created_at, timezone.utc)
        try:
            if order.fields:
                job = restored(worker, order.job_id, unpacked(order.fields))
            else:
                job = until_redis_answers(
                    lambda: worker.job_class.fetch(
                        order.job_id, connection=worker.connection, serializer=worker.serializer
                    ),
                    f"read job {order.job_id}",
                )
        except NoSuchJobError as error:  # somebody deleted it since it was taken from the queue
            until_redis_answers(lambda: self._committer.forget(queue, execution), f"forget job {order.job_id}")
            page.outcome = type(error).__name__
            return None
        if order.begun:
            mark_started(job, execution)
        page.advance(Event.TAKEN)
        job.redis_server_version = worker.get_redis_server_version()
        execution._job = job
        worker.executions = {execution.id: execution}
        worker._stopped_job_id = None
        # In a copy, so that context variables that the job sets (a tracer's, for example) end with it.
        contextvars.copy_context().run(worker.perform_job, job, queue, execution)
        worker.executions = {}  # otherwise the job and its result stay in memory until the next job
        return job

    def _install_handlers(self) -> None:
        user_code.install_signal_handlers()
        self_report.install(lambda: self._pool.page)

    def _begin_settings(self) -> None:
        """Process settings that the job changes from here on are restored after it."""
        if self._settings is not None:
            self._settings.keep_imported()
        elif self._worker.is_horse:
            self._settings = process_state.ProcessSettings()

    def _put_settings_back(self) -> None:
        if self._settings is not None and (found := self._settings.put_back()):
            name, job = self._worker.name, self._pool.page.job
            _log.debug("worker %s: put back what %s had changed: %s", name, job, ", ".join(found))

    def perform(self, job: Job, queue: Queue, execution: Execution, rqs: Callable[[], bool]) -> bool:
        worker, pool, config = self._worker, self._pool, self._pool.config
        if not worker.is_horse:  # called in the caller's own process, as RQ's SimpleWorker does
            pool.new_page()
        page = pool.page
        most_resident = user_code.most_resident_kb()
        here = Horse(
            page=page,
            config=config,
            connection=worker.connection,
            serializer=worker.serializer,
            job_id=job.id,
            created_at=utcformat(job.created_at).encode(),
            execution_id=execution.id if execution is not None else "",  # RQ's tests fork without one
            queue=queue.name,
            worker=worker.name,
            group=pool.group,
            told_of_cut=frozenset(self._told_of_cut),
        )
        perform, timeout, began = job.perform, job.timeout, time.monotonic()
        self._here = here
        hooking = self._hooking = self._hooking or Hooking(worker.name, integrate=config.integrations)

        def import_and_perform() -> Any:
            check_readable(job)
            page.job = type_of_path(job.func_name)
            hooking.new_job(page, job, queue.name)
            hooking.before(page, job)
            page.imported_bytes = check_importable(job)
            hooking.before(page, job)
            self._begin_settings()
            return perform()

        def perform_as_user_code() -> Any:
            job.timeout = timeout  # RQ has read the capped limit; the job is saved with its own
            began, lost = time.monotonic(), _lost_seconds()
            try:
                with lent(job), self._captures.captured(page, type_of_path(job.func_name), here.execution_id):
                    return user_code.run_user_code(here, import_and_perform)
            finally:
                page.worked_seconds = time.monotonic() - began - (_lost_seconds() - lost)
                self._put_settings_back()

        job.perform = perform_as_user_code  # type: ignore[method-assign]
        job.timeout = self.capped_timeout(job)
        try:
            done = rqs()
            if done:
                page.outcome = OK
            page.advance(Event.COMMITTED)
            self._call_after_hooks(hooking, here, job, time.monotonic() - began)
            return done
        finally:
            page.burst = user_code.most_resident_kb() > most_resident
            self.remember_cut(page)

    def _call_after_hooks(self, hooking: Hooking, here: Horse, job: Job, worked_seconds: float) -> None:
        """Call the hooks after a job. The outcome is committed, so a failing hook does not change it."""
        if not hooking.wanted(here.page):
            return
        page, limit = here.page, self.capped_timeout(job)
        left = _MOST_HOOK_SECONDS if limit == -1 else int(limit - worked_seconds)
        seconds = max(_LEAST_HOOK_SECONDS, min(_MOST_HOOK_SECONDS, left))
        outcome = page.outcome
        with lent(job):
            self._call_hooks(here, seconds, lambda: hooking.after(page, job, outcome))
        page.ends_with_hooks = hooking.ends
        if not self._is_warm and page.ends_with_hooks:
            self._call_ending_hooks()

    def _call_ending_hooks(self) -> None:
        """Call the hooks before the horse ends. The worker waits meanwhile, and watches its memory."""
        here, hooking = self._here, self._hooking
        if here is not None and hooking is not None and hooking.ends:
            self._call_hooks(here, ENDING_SECONDS, lambda: hooking.ending(here.page))
            here.page.ends_with_hooks = False

    def _call_hooks(self, here: Horse, seconds: int, call: Callable[[], None]) -> None:
        """Call hooks under the ceiling and a time limit. After a breach the horse may use its reserve too."""
        try:
            with self._worker.death_penalty_class(seconds, JobTimeoutException, job_id=here.job_id):
                if here.page.breach_json:
                    call()
                else:
                    user_code.run_user_code(here, call)
        except (MemoryLimitExceeded, JobTimeoutException) as error:  # raised between two hooks
            _log.error("worker %s: hooks of job %s were cut short: %s", self._worker.name, here.job_id, error)
        finally:
            self._put_settings_back()

    def remember_cut(self, page: SharedPage) -> None:
        """Remember that it was logged that this job type's ceiling was cut. Called in the horse and in the worker."""
        if page.wanted_bytes > page.ceiling_bytes:
            self._told_of_cut.add(page.job)

    def capped_timeout(self, job: Job) -> int:
        """The job's time limit in seconds, at most the worker's ``--timeout``; -1: none."""
        timeout = int(job.timeout or self._worker.queue_class.DEFAULT_TIMEOUT)
        cap = self._setup.config.timeout_seconds
        if cap is None:
            return timeout
        return cap if timeout == -1 else min(timeout, cap)


def _lost_seconds() -> float:
    """Seconds that this process has waited so far: for a processor, and for Redis to write rqmem's records."""
    return procfs.waited_for_processor_seconds() + spent_seconds()
