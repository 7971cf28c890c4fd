"""A lease in the horse: it takes jobs, runs them and commits them by itself, until one of them is no plain success.

For each job it writes the job to the shared page, sends finished jobs for commit, and runs the job's code.

- `rqmem.worker.horse.lease_commits` sends finished jobs for commit, and reads the replies later;
- `rqmem.worker.horse.lease_batches` decides how many jobs are taken and when, and waits if there are none;
- `rqmem.worker.horse.lease_hand_over` ends a job that is no plain success by RQ's methods, which ends the lease;
- `rqmem.worker.horse.leased_job` decides which jobs may run here, and is what `rq.get_current_job` returns.

Promises: no job begins while the worker recalls the lease, while Redis is away, or before an earlier job's refusal is
dealt with. What was taken and has not begun goes back to its queue before the lease ends; if Redis does not answer, the
horse waits for it, as with any outcome.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import random
import signal
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from rqmem import events, hooks
from rqmem.child_ids import CHILD_MARK, parent_of
from rqmem.errors import RunTakenOver
from rqmem.log.lines import tells_routine
from rqmem.measure.own_process import meter_of_this_process
from rqmem.rq_names import DeserializationError, Job, JobTimeoutException, Retry, current_job
from rqmem.store import lease
from rqmem.store.execution_records import Pending
from rqmem.store.held_run import HeldRecord, HeldRun
from rqmem.store.history.history_records import OK
from rqmem.store.lease_commands import Batch, Taken
from rqmem.store.retrying import connection_with_short_timeout, note, until_redis_answers
from rqmem.type_of_job import FIRST_BYTES, path_in
from rqmem.worker.execution import Event
from rqmem.worker.finished_jobs import LONGEST_ID_BYTES, FinishedJob
from rqmem.worker.horse import environment, user_code
from rqmem.worker.horse.channel import Channel, LeaseEnd, LeaseOrder, Ran
from rqmem.worker.horse.lease_batches import OTHERS_WAIT, STOPS, Batches
from rqmem.worker.horse.lease_commits import Commits
from rqmem.worker.horse.lease_hand_over import HandOver
from rqmem.worker.horse.lease_remains import Remains
from rqmem.worker.horse.leased_job import HeldOf, JobHooks, LeasedJob, LeasedType, Types
from rqmem.worker.horse.user_code import Horse
from rqmem.worker.lent_connection import lend, take_back
from rqmem.worker.shared_memory import SharedPage

if TYPE_CHECKING:
    from rqmem.rq_names import Worker
    from rqmem.worker.horse_pool import HorsePool

_MOST_KINDS = 100  # of jobs in one report
_LONGEST_TIME = 2**31 - 1  # seconds
_OLD_SECONDS = 0.02  # a job taken longer ago may be cancelled: wait for the reply to its start
_LEAVE_SECONDS = 1.0
_JOB_ID = environment.Again("RQ_JOB_ID")
_NOT_PLAIN = (Retry, Pending)  # return values that RQ's or our own methods must handle
_log = logging.getLogger("rqmem.worker")
_RECALLED = "it was recalled"
_OF_ANOTHER_KIND = "a job of another kind is next"


class Lease:
    """One lease in the horse: `run` does all of it. In the horse's main thread.

    Attributes:
        hooks: hooks around the jobs; None: there are none.
        here: the `Horse` of the last job.
    """

    def __init__(
        self,
        worker: Worker,
        pool: HorsePool,
        types: Types,
        order: LeaseOrder,
        page: SharedPage,
        channel: Channel,
        wants_probe: Callable[[str], bool] | None,
        put_settings_back: Callable[[], None],
        told_of_cut: frozenset[str],
    ) -> None:
        self._worker = worker
        self._types = types
        self._order = order
        self._page = page
        self._wants_probe = wants_probe
        self._put_settings_back = put_settings_back
        self._held = HeldRun(HeldOf(page), self._claim)
        self._meter = meter_of_this_process(pool.config.growth_rate)
        self._here: dict[str, Any] = {
            "page": page, "config": pool.config, "connection": worker.connection, "serializer": worker.serializer,
            "worker": worker.name, "group": pool.group, "leased": True, "raised": user_code.new_raised(),
            "held": self._held, "brief": _is_brief(), "told_of_cut": told_of_cut, "meter": self._meter,
        }  # fmt: skip
        self._fit: dict[str, LeasedType] = {}  # by path: those that may run in this lease
        self._last_call = b"", b"", ""
        self._tells = _log.isEnabledFor(logging.DEBUG)
        self._timeout_cap = pool.config.timeout_seconds
        self._token = order.token.encode()
        self._default_timeout = worker.queue_class.DEFAULT_TIMEOUT
        self._commits = Commits(worker, order, page)
        self._hand_over = HandOver(worker, order, page, self._commits)
        self._job: Taken  # in hand
        self._proxy_job: LeasedJob
        self._visible = False  # RQ shows the last job as running, since its own code has asked for that
        self._batches = Batches(worker, order, page, channel, self._commits)
        self._end = LeaseEnd(k=order.k)
        self._ran: dict[tuple[Any, ...], Ran] = {}
        self.hooks: JobHooks | None = None
        self.here: Horse | None = None

    def run(self) -> LeaseEnd:
        """Take and run jobs until there is a reason to end."""
        page = self._page
        before = signal.signal(signal.SIGALRM, self._on_alarm)
        self._remains = Remains(page.held_before)
        random.seed()
        try:
            page.advance(Event.LEASED)
            self._work()
        finally:
            self._batches.close()
            self._settle_rest()
            self._meter.close()
            self._remains.close()
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
            self._worker.executions = {}
        return replace(self._end, k=self._batches.k, ran=tuple(self._ran.values()))

    def _work(self) -> None:
        batches = self._batches
        try:
            while (batch := batches.next()) is not None:
                if not self._run_all(batch):
                    return
            self._stop(batches.why, unfit=batches.unfit)
        except RedisError as error:
            note(error)
            self._commits.lost = True
            self._stop(f"Redis: {type(error).__name__}")

    def _settle_rest(self) -> None:
        """Commit what has finished, and give back what has not begun."""
        worker, commits = self._worker, self._commits
        if not self._batches.has_asked:
            commits.close()
            return
        commits.all()
        for done in commits.plain:
            self._hand_over.finish(done)
        token = self._order.token
        if self._batches.is_empty and self._page.stop_asked:  # the worker leaves, and waits for us
            short = connection_with_short_timeout(worker.connection, _LEAVE_SECONDS)
            with contextlib.suppress(RedisError), short:  # only that it had a lease stays, for others to take over
                lease.give_back(short, worker.name, token)
        else:
            until_redis_answers(
                lambda: lease.give_back(worker.connection, worker.name, token), "give back the jobs of a lease"
            )
        self._batches.put_back()
        commits.close()

    def _stop(self, why: str, *, unfit: bool = False) -> bool:
        self._end = replace(self._end, why=why, unfit=unfit)
        return False

    def _run_all(self, batch: Batch) -> bool:
        """Run the jobs of a batch. Returns whether the lease goes on."""
        batches = self._batches
        for number, job in enumerate(batch.jobs):
            batches.reached(number)
            if not self._run(job, first=number == 0):
                return False
            if why := batches.take_too_long(number):
                return self._stop(why)
        return True

    # One job

    def _run(self, job: Taken, *, first: bool) -> bool:
        """Run one job. Returns whether the next one may begin.

        Args:
            first: the first of its batch: Redis is told that it begins, in case it kills the worker.
        """
        page, order = self._page, self._order
        if page.recalled or page.stop_asked:
            return self._stop(_RECALLED if page.recalled else STOPS)
        if self._commits.plain:
            return self._stop(OTHERS_WAIT)
        data, path = self._call_in(job.data)
        known = self._fit.get(path)
        if known is None:
            known, why = self._look_up(path)
            if known is None:
                return self._stop(why, unfit=True)
        function = known.function()
        if function is None or len(job.id) > LONGEST_ID_BYTES:
            return self._stop(_OF_ANOTHER_KIND, unfit=True)
        try:
            limit, result_ttl = self._limit(job), int(job.result_ttl or self._worker.default_result_ttl)
        except ValueError:
            return self._stop("a job's time limit cannot be read", unfit=True)
        if max(limit, result_ttl) > _LONGEST_TIME:
            return self._stop("a job's time limit or time to live is too long", unfit=True)
        self._batches.count += 1
        execution = b"%b%08x" % (self._token, self._batches.count)
        if not self._begin(job, known, execution, limit, first=first):
            return not self._end.why
        job_id, queue = job.id.decode(), order.queues[job.queue]
        self.here = here = Horse.like(
            {
                **self._here, "job_id": job_id, "created_at": job.created_at, "execution_id": execution.decode(),
                "queue": queue,
            }
        )  # fmt: skip
        if page.ceiling_bytes != known.ceiling_bytes:
            here.set_ceiling(known.ceiling_bytes)
        proxy = LeasedJob.new(job_id, queue, limit, data, self._worker.serializer, self._fetch_visible)
        self._proxy_job, self._job = proxy, job
        try:
            try:
                result = contextvars.copy_context().run(self._perform, here, proxy, function, data)
            finally:
                take_back(proxy)
                self._put_settings_back()
        except BaseException:  # noqa: BLE001  as RQ's perform_job
            return self._end_with(self._hand_over.fail(job, proxy, sys.exc_info()), "a job failed")
        payload = self._serialized(result)
        if (payload is None and result is not None) or proxy.rqmem_was_changed():
            return self._end_with(self._hand_over.succeed(job, proxy, result), "a job is no plain one")
        self._finished(job, known.job_type, execution, result_ttl, payload)
        if self.hooks is not None:
            if self.hooks.around_each and self.hooks.await_outcome:
                self._commits.send()
                self._commits.read()
            self.hooks.after(here, proxy, OK)
        page.started_at = 0.0
        return self._as_before(known)

    def _begin(self, job: Taken, known: LeasedType, execution: bytes, limit_seconds: int, *, first: bool) -> bool:
        """Make it the current job. Returns False if it must not begin: the lease is recalled, or Redis refuses it."""
        page = self._page
        self._held.next_job()
        page.begin_leased(
            job.id, job.created_at, execution, self._order.queues[job.queue], known.job_type, limit_seconds
        )
        if page.recalled:  # it has not begun: the worker puts it back
            page.advance(Event.RETURNED)
            return self._stop(_RECALLED)
        batches = self._batches
        awaited = page.started_at - batches.taken_at > _OLD_SECONDS
        seen, self._visible = self._visible, False
        if not self._commits.announce(job, execution, known, sent=first, awaited=awaited, seen=seen):
            page.advance(Event.RETURNED)
            return self._stop(OTHERS_WAIT) if self._commits.plain else False
        _JOB_ID.put(job.id)
        return True

    def _call_in(self, compressed: bytes) -> tuple[bytes, str]:
        """RQ's data of a job and the path in them. Calls without arguments often come in a row: 2 % less in all."""
        last, data, path = self._last_call
        if last != compressed:
            data = _uncompressed(compressed)
            path = path_in(data[:FIRST_BYTES]) or ""
            self._last_call = compressed, data, path
        return data, path

    def _look_up(self, path: str) -> tuple[LeasedType | None, str]:
        """The type of a job, or why such a job does not run in this lease."""
        known, clean = self._types.find(path), self._order.clean
        if known is None or (clean is not None and known.job_type not in clean):
            return None, _OF_ANOTHER_KIND
        if self._wants_probe is not None and self._wants_probe(known.job_type):
            return None, f"{path} is to be looked at for leaks"
        self._fit[path] = known
        return known, ""

    def _limit(self, job: Taken) -> int:
        timeout = int(job.timeout or self._default_timeout)
        cap = self._timeout_cap
        if cap is None:
            return timeout
        return cap if timeout == -1 else min(timeout, cap)

    def _perform(self, here: Horse, proxy: Job, function: Callable[..., Any], data: bytes) -> Any:
        """As RQ's `Job.perform`, in a context of its own."""

        def call() -> Any:
            if self.hooks is not None:
                self.hooks.before(proxy, here.queue)
            try:
                _, _, arguments, keywords = self._worker.serializer.loads(data)
            except Exception as error:
                raise DeserializationError from error
            result = function(*arguments, **keywords)
            return asyncio.run(result) if result is not None and asyncio.iscoroutine(result) else result

        current_job.set(proxy)  # in this context only
        return user_code.run_user_code(here, call)

    def _fetch_visible(self) -> Job:
        """Called by the job's own code: make RQ show the job as running, and read it."""
        self._visible = True
        if self._held.held:
            self._held.write()
        else:
            self._hand_over.show(self._job)
        job = self._hand_over.fetch(self._job.id.decode())
        lend(job)
        return job

    def _claim(self, record: HeldRecord) -> None:
        """Called by the job's own code: claim the job and write its run's record to Redis. Raises `RunTakenOver`."""
        self._visible = True
        if self._hand_over.show(self._job, record) != "shown":
            raise RunTakenOver(f"job {self._job.id.decode()}: another worker took it over, or somebody has ended it")

    # After it

    def _serialized(self, result: Any) -> bytes | None:
        """The serialized result. None if it is None, cannot be serialized, or must be handled by RQ's own methods."""
        if result is None or isinstance(result, _NOT_PLAIN):
            return None
        try:
            payload: bytes = self._worker.serializer.dumps(result)
        except BaseException:  # noqa: BLE001  as RQ's Result.serialize
            return None
        return payload

    def _finished(self, job: Taken, job_type: str, execution: bytes, ttl: int, result: bytes | None) -> None:
        """A plain success."""
        page, ended_at = self._page, time.time()
        began_at = page.began_at
        done = FinishedJob(
            page.seq, began_at, ended_at, ttl, job.queue, job.id, job.created_at, execution, result, self._held.ended()
        )
        self._commits.add(done)
        if self._tells:
            name, job_id = self._worker.name, job.id.decode()
            _log.debug("worker %s: job %s of a lease: %s, %.6f s", name, job_id, job_type, ended_at - began_at)
        peak_bytes = self._remains.peak_bytes()
        if page.recalled:  # it is long: it has a record of its own
            page.outcome = OK
        else:
            self._note(job_type, job.id, ended_at - began_at, peak_bytes)
        self._commits.keep_room()

    def _note(self, job_type: str, job_id: bytes, seconds: float, peak_bytes: int) -> None:
        page, figures = self._page, self._held.figures
        page.lease_done += 1
        kind = job_type, page.ceiling_bytes, CHILD_MARK in job_id, page._tenant, figures and figures.needed_mb
        ran = self._ran.get(kind)
        if ran is None:
            counted = parent_of(job_id.decode()) is None
            ran = self._ran[kind] = Ran(
                job_type, limit_bytes=page.ceiling_bytes, declared_bytes=page.declared_bytes, counted=counted,
                tenant=page.tenant, needed_mb=figures.needed_mb if figures is not None else None,
            )  # fmt: skip
        ran.times += 1
        ran.seconds += seconds
        ran.peak_bytes = max(ran.peak_bytes, peak_bytes)
        if figures is not None:
            ran.chunks += figures.chunks
            ran.items += figures.items
            ran.largest_chunk = max(ran.largest_chunk, figures.largest_chunk)
            ran.collections += figures.collections
            ran.freed_mb += figures.freed_mb

    def _as_before(self, known: LeasedType) -> bool:
        """Whether the next job may run in this horse. A quick look of some microseconds decides."""
        page = self._page
        if page.breach_seq == page.seq:
            return self._stop(f"{known.job_type} was found above its ceiling")
        if page.ceiling_bytes != known.ceiling_bytes:
            return self._stop(f"{known.job_type} has set a ceiling of its own")
        if len(self._ran) >= _MOST_KINDS:
            return self._stop("it has run jobs of many kinds")
        left = self._remains.left()
        return self._stop(f"{known.job_type} has {left}") if left else True

    def _end_with(self, job: Job | None, why: str) -> bool:
        """End the lease after a job that was no plain success. ``job`` is None if it is not ours."""
        self._end = replace(self._end, handed_over=True)
        if self.hooks is not None and self.here is not None and job is not None:
            self.hooks.after(self.here, job, self._page.outcome)
        self._page.started_at = 0.0
        return self._stop(why)

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        """Handler of SIGALRM, which the worker sends when the job's time is over. A late one does nothing."""
        page = self._page
        over = 0 < page.limit_seconds <= time.monotonic() - page.started_at
        if page.in_user_code and page.started_at and over and not page.breached:
            raise JobTimeoutException(f"Task exceeded maximum timeout value ({page.limit_seconds} seconds)")


def _uncompressed(data: bytes) -> bytes:
    """As RQ's `Job.restore`."""
    try:
        return zlib.decompress(data)
    except zlib.error:
        return data


def _is_brief() -> bool:
    """Whether no log and no hook wants the routine events of short runs that end well."""
    routine = (events.JobStarted, events.Checkpoint, events.ChunkDone, events.RunEnded)
    return not tells_routine() and not any(issubclass(each, kind) for kind, _ in hooks.listeners() for each in routine)
