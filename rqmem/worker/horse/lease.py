"""A lease in the horse: it takes jobs, runs them and commits them by itself, until one of them is no plain success.

For each job it writes to the shared page which job that is, sends what has finished before, and runs the job's code.
It reads replies later. What has finished also stands on the page until Redis has it (`rqmem.worker.finished_jobs`).
Everything but a plain success ends the lease: the job becomes an execution like any other (``hand_over``), and RQ's own
methods, which `MemoryWorker` overrides, end it.

Promises: no job begins while the worker recalls the lease, while Redis is away, or before an earlier job's refusal is
dealt with. What was taken and has not begun goes back to its queue before the lease ends; if Redis does not answer, the
horse waits for it, as with any outcome.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import random
import signal
import sys
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from types import FrameType
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from rqmem.measure import procfs
from rqmem.policy import lease as policy
from rqmem.policy.lease import History
from rqmem.rq_names import (
    UNEVALUATED,
    DeserializationError,
    Execution,
    Job,
    JobStatus,
    JobTimeoutException,
    NoSuchJobError,
    Retry,
    current_job,
)
from rqmem.store import lease
from rqmem.store.history.history_records import OK
from rqmem.store.lease_commands import Stepped, Taken, pack_begins, pack_finished
from rqmem.store.lease_connection import LeaseConnection
from rqmem.store.retrying import until_redis_answers
from rqmem.type_of_job import FIRST_BYTES, path_in, type_of_path
from rqmem.worker.execution import Event
from rqmem.worker.finished_jobs import LONGEST_ID_BYTES, ROOM, FinishedJob, fits
from rqmem.worker.horse import environment, user_code
from rqmem.worker.horse.channel import LeaseEnd, LeaseOrder
from rqmem.worker.horse.leak_probe import WORTH_TIDYING_BYTES
from rqmem.worker.horse.user_code import Horse
from rqmem.worker.shared_memory import SharedPage

if TYPE_CHECKING:
    from rqmem.rq_names import Queue, Worker
    from rqmem.worker.horse.hook_runner import Hooking
    from rqmem.worker.horse_pool import HorsePool

_BATCH_SECONDS = 0.1  # what was taken so long ago goes back: jobs of better queues, and other workers, wait for it
_OLD_SECONDS = 0.02  # a job that was taken so long ago may have been cancelled: its start is awaited
_COMMIT_SECONDS = 0.002  # what has finished waits no longer for its commit
_SEEN_SECONDS = 0.005  # a job may be shown that has taken so long; Redis knows one at a time, so its commit is awaited
_WORTH_SECONDS = 0.001  # what has worked for so long is committed before the next job begins
_log = logging.getLogger("rqmem.worker")


class Types:
    """Job types that have run in this horse as ordinary executions, and may run under a lease."""

    def __init__(self) -> None:
        self._paths: dict[str, tuple[str, str]] = {}

    def ran(self, job: Job, page: SharedPage) -> None:
        """An ordinary execution has ended well: a function whose run keeps no record may be leased from now on."""
        path = job.func_name or ""
        module, _, name = path.rpartition(".")
        if page.outcome != OK or page.has_run or page.declared_bytes or job.instance is not None:
            self._paths.pop(path, None)
        elif module in sys.modules and callable(getattr(sys.modules[module], name, None)):
            self._paths[path] = module, name

    def find(self, path: str) -> Callable[..., Any] | None:
        """The function at this path, as it is now."""
        known = self._paths.get(path)
        found = getattr(sys.modules.get(known[0]), known[1], None) if known is not None else None
        return found if callable(found) else None

    def forget(self, path: str) -> None:
        self._paths.pop(path, None)


class LeasedJob(Job):
    """What `rq.get_current_job` gives under a lease: read from Redis when more than its id and its call is touched.

    From then on RQ shows the job as running, so that its status and its heartbeat are true for the job's own code.
    """

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__
        fetch = values.pop("_rqmem_fetch", None)
        if fetch is None:
            raise AttributeError(name)
        read = vars(fetch()).copy()
        values.update({**read, **values})
        return getattr(self, name)


class JobHooks:
    """What runs around each job of a lease, where there are hooks or integrations. They determine its pace then."""

    def __init__(self, page: SharedPage, hooking: Hooking, call: Callable[[Hooking, Horse, Job, float], None]) -> None:
        self._page = page
        self._hooking = hooking
        self._call = call
        self.await_outcome = hooking.awaits_outcome

    def before(self, job: Job, queue: str) -> None:
        """In the job's own code."""
        self._hooking.new_job(self._page, job, queue)
        self._hooking.before(self._page, job)

    def after(self, here: Horse, job: Job, outcome: str) -> None:
        """The job has ended."""
        page = self._page
        worked, page.limit_seconds = time.monotonic() - page.started_at, -1
        handler = signal.getsignal(signal.SIGALRM)
        before, page.outcome = page.outcome, outcome
        self._call(self._hooking, here, job, worked)
        signal.signal(signal.SIGALRM, handler)
        page.outcome = before


class Lease:
    """One lease in the horse. `run` is all of it.

    Attributes:
        hooks: around each job; None: there are none.
        here: the last job, as its code has seen the horse.
    """

    def __init__(
        self,
        worker: Worker,
        pool: HorsePool,
        types: Types,
        order: LeaseOrder,
        page: SharedPage,
        wants_probe: Callable[[str], bool] | None,
    ) -> None:
        self._worker = worker
        self._types = types
        self._order = order
        self._page = page
        self._wants_probe = wants_probe
        self._here: dict[str, Any] = {
            "page": page, "config": pool.config, "connection": worker.connection, "serializer": worker.serializer,
            "job_created_at": "", "worker": worker.name, "group": pool.group, "leased": True, "claim": self._claim,
            "raised": user_code.new_raised(),
        }  # fmt: skip
        self._timeout_cap = pool.config.timeout_seconds
        self._ceiling_bytes = page.ceiling_bytes
        self._link = until_redis_answers(
            lambda: LeaseConnection(worker.connection, worker.name, order.token), "open a lease"
        )
        self._proxy_job: LeasedJob | None = None
        self._sent: deque[list[FinishedJob]] = deque()  # steps without a reply
        self._pending: list[FinishedJob] = []
        self._packed: list[bytes] = []
        self._pending_seconds = 0.0
        self._plain: list[FinishedJob] = []  # which RQ's own methods have to commit
        self._k = order.k
        self._count = 0
        self._taken_at = self._began = time.monotonic()
        self._end = LeaseEnd(k=order.k)
        self._lost = False  # Redis did not answer, or refused
        self._visible = False  # RQ shows the last job as running, since its own code has asked for that
        self.hooks: JobHooks | None = None
        self.here: Horse | None = None

    def run(self) -> LeaseEnd:
        """Take and run jobs until there is a reason to end."""
        page = self._page
        before = signal.signal(signal.SIGALRM, self._on_alarm)
        statm = os.open("/proc/self/statm", os.O_RDONLY)
        self._statm, self._held, self._threads = statm, _resident(statm), threading.active_count()
        random.seed()
        try:
            page.advance(Event.LEASED)
            self._work()
        finally:
            self._settle_rest()
            os.close(statm)
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
            self._worker.executions = {}
        return replace(self._end, k=self._k)

    def _work(self) -> None:
        try:
            first = True
            while self._take(first):
                first = False
        except RedisError as error:
            self._lost = True
            self._stop(f"Redis: {type(error).__name__}")

    def _stop(self, why: str, *, unfit: bool = False) -> bool:
        self._end = replace(self._end, why=why, unfit=unfit)
        return False

    def _take(self, first: bool) -> bool:
        """One batch. Whether to take another."""
        order = self._order
        if not first and time.monotonic() - self._began >= order.seconds:
            return self._stop("its time was over")
        left = order.most_jobs - self._count if order.most_jobs else self._k
        if left <= 0:
            return self._stop("it has run as many jobs as it may")
        self._step(b"")
        self._link.send_take(order.queues, min(self._k, left), order.owner if first else None)
        self._read(until=1)
        batch = self._link.read_batch()
        self._taken_at = time.monotonic()
        if self._plain:
            return self._stop("a job has others that wait for it")
        for number, job in enumerate(batch.jobs):
            if not self._run(job, first=number == 0):
                return False
            if time.monotonic() - self._taken_at > _BATCH_SECONDS and number + 1 < len(batch.jobs):
                self._k = max(1, self._k // 2)  # jobs of better queues may have come, and other workers wait
                return self._stop("its jobs take longer than those before")
        if batch.why:
            return self._stop(f"take: {batch.needs or batch.why}", unfit=batch.why == "needs")
        history = policy.after_batch(History(k=self._k), len(batch.jobs), time.monotonic() - self._taken_at)
        self._k = min(history.k, order.most_k)
        return True

    def _run(self, job: Taken, *, first: bool) -> bool:
        """One job. Whether the next one may begin."""
        page, order = self._page, self._order
        if page.recalled or page.stop_asked:
            return self._stop("it was recalled" if page.recalled else "the worker is to stop")
        if self._plain:
            return self._stop("a job has others that wait for it")
        data = _uncompressed(job.data)
        path = path_in(data[:FIRST_BYTES]) or ""
        function = self._types.find(path)
        job_type = type_of_path(path)
        crowded = order.clean is not None and job_type not in order.clean
        if function is None or crowded or len(job.id) > LONGEST_ID_BYTES:
            return self._stop("a job of another kind is next", unfit=True)
        try:
            limit, result_ttl = self._limit(job), int(job.result_ttl or self._worker.default_result_ttl)
        except ValueError:
            return self._stop("a job's time limit cannot be read", unfit=True)
        if self._wants_probe is not None and self._wants_probe(job_type):
            return self._stop(f"{path} is to be looked at for leaks", unfit=True)
        self._count += 1
        execution_id = f"{order.token}{self._count:08x}"
        queue, job_id = order.queues[job.queue], job.id.decode()
        page.begin_leased(job.id, job.created_at, execution_id.encode(), queue, job_type, limit)
        if page.recalled:  # the worker has not seen this one, or gives it back: either way it has not begun
            page.advance(Event.RETURNED)
            return self._stop("it was recalled")
        if not self._announce(job, execution_id, first=first):
            page.advance(Event.RETURNED)
            return True if not self._plain else self._stop("a job has others that wait for it")
        environment.put_again("RQ_JOB_ID", job_id)
        self.here = here = Horse(**self._here, job_id=job_id, execution_id=execution_id, queue=queue)
        proxy = self._proxy(job_id, queue, data, limit)
        self._proxy_job, self._job = proxy, job
        try:
            result = contextvars.copy_context().run(self._perform, here, proxy, function, data)
            payload = None if result is None else self._worker.serializer.dumps(result)
        except BaseException:  # noqa: BLE001  as RQ's perform_job
            return self._hand_over_failure(job, sys.exc_info())
        if page.has_run or isinstance(result, Retry):
            self._types.forget(path)
            return self._hand_over_success(job, result)
        self._finished(job, job_type, result_ttl, payload)
        if self.hooks is not None:
            if self.hooks.await_outcome:
                self._step(b"")
                self._read()
            self.hooks.after(here, proxy, OK)
        page.started_at = 0.0
        return self._as_before(job_type)

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
            return asyncio.run(result) if asyncio.iscoroutine(result) else result

        token = current_job.set(proxy)
        try:
            return user_code.run_user_code(here, call)
        finally:
            current_job.reset(token)

    def _limit(self, job: Taken) -> int:
        timeout = int(job.timeout or self._worker.queue_class.DEFAULT_TIMEOUT)
        cap = self._timeout_cap
        if cap is None:
            return timeout
        return cap if timeout == -1 else min(timeout, cap)

    def _proxy(self, job_id: str, queue: str, data: bytes, limit: int) -> LeasedJob:
        worker = self._worker
        proxy: LeasedJob = LeasedJob.__new__(LeasedJob)
        proxy.__dict__.update(
            _id=job_id, serializer=worker.serializer, origin=queue, timeout=limit,
            _data=data, _func_name=UNEVALUATED, _instance=UNEVALUATED, _args=UNEVALUATED, _kwargs=UNEVALUATED,
            _rqmem_fetch=self._fetch_visible,
        )  # fmt: skip
        return proxy

    # Before a job

    def _announce(self, job: Taken, execution_id: str, *, first: bool) -> bool:
        """Send what is to be committed by now, and that this job begins. Whether it may."""
        page = self._page
        old = page.started_at - self._taken_at > _OLD_SECONDS
        due = len(self._pending) >= self._order.batch or (
            bool(self._pending)
            and (self._pending_seconds > _WORTH_SECONDS or page.began_at - self._pending[0].ended_at > _COMMIT_SECONDS)
        )
        seen = self._visible or self._pending_seconds >= _SEEN_SECONDS
        self._visible = False
        if not (first or old or due or seen):
            return True
        queue = page.queue.encode()
        self._step(pack_begins(job.id, execution_id.encode(), queue, page.began_at))
        if not (old or seen):
            if self._link.owed > 32:
                self._read(until=16)
            return True
        return self._read() == ""

    def _step(self, begins: bytes) -> None:
        """Send what has finished, and what begins."""
        if not self._pending and not begins:
            return
        packed, seconds = self._packed, self._pending_seconds
        self._sent.append(self._pending)
        self._pending, self._packed, self._pending_seconds = [], [], 0.0
        self._link.send_step(packed, seconds, begins)

    def _read(self, until: int = 0) -> str:
        """Read replies until that number is owed. Returns why the last job that was announced may not begin."""
        why = ""
        while self._link.owed > until:
            why = self._take_reply(self._link.read_step(), self._sent.popleft())
        return why

    def _take_reply(self, reply: Stepped, jobs: list[FinishedJob]) -> str:
        plain = [job for job in jobs if reply.refused.get(job.job_id) == "plain"]
        if not plain and not self._plain:
            self._page.finished.committed += sum(fits(done.result) for done in jobs)
        self._plain += plain
        for job_id, why in reply.refused.items():
            if why != "plain":
                _log.debug(
                    "worker %s: job %s of a lease was not committed: %s", self._worker.name, job_id.decode(), why
                )
        return reply.next

    # After a job

    def _finished(self, job: Taken, job_type: str, ttl: int, result: bytes | None) -> None:
        """A plain success."""
        page, ended_at = self._page, time.time()
        done = FinishedJob(
            page.seq, page.began_at, ended_at, ttl, job.queue, job.id, job.created_at, page._execution_id, result
        )
        seconds = ended_at - page.began_at
        self._pending.append(done)
        self._packed.append(packed(done, self._order.queues))
        self._pending_seconds += seconds
        if fits(result):
            page.finished.add(done)
            page.advance(Event.FINISHED)
        if page.recalled:  # it is long: it has a record of its own
            page.outcome = OK
        else:
            self._note(job_type, seconds)
        self._keep_room(result)

    def _note(self, job_type: str, seconds: float) -> None:
        self._page.lease_done += 1
        ran = self._end.ran.setdefault(job_type, [0, 0.0])
        ran[0] += 1
        ran[1] += seconds

    def _keep_room(self, result: bytes | None) -> None:
        """What the page has no room for is committed at once."""
        page = self._page
        if not fits(result) or page.finished.count - page.finished.committed >= ROOM - 1:
            self._step(b"")
            self._read()
            page.advance(Event.FINISHED)

    def _as_before(self, job_type: str) -> bool:
        """Whether the job has left the horse as it was, as far as a look of some microseconds tells."""
        page = self._page
        if page.breach_seq == page.seq:
            return self._stop(f"{job_type} was found above its ceiling")
        if page.ceiling_bytes != self._ceiling_bytes:
            return self._stop(f"{job_type} has set a ceiling of its own")
        if (_resident(self._statm) - self._held) * procfs.PAGE_BYTES >= WORTH_TIDYING_BYTES:
            return self._stop(f"{job_type} has left memory")
        if threading.active_count() != self._threads:
            return self._stop(f"{job_type} has left threads")
        if signal.getsignal(signal.SIGALRM) != self._on_alarm or user_code.has_lost_handlers():
            return self._stop(f"{job_type} has set signal handlers")
        return True

    # Jobs that are no plain success

    def _fetch_visible(self) -> Job:
        """In the job's own code: have RQ show the job as running, and read it."""
        self._visible = True
        self._show(self._job, hand_over=False)
        return self._fetch(self._job.id.decode())

    def _claim(self) -> None:
        """In the job's own code: from now on the run has a record, which only its owner may write."""
        self._visible = True
        self._show(self._job, hand_over=False)
        job = self._fetch(self._job.id.decode())
        user_code.set_created_at(job.created_at.isoformat())

    def _fetch(self, job_id: str) -> Job:
        worker = self._worker
        return until_redis_answers(
            lambda: worker.job_class.fetch(job_id, connection=worker.connection, serializer=worker.serializer),
            f"read job {job_id}",
        )

    def _show(self, job: Taken, *, hand_over: bool) -> str:
        """As `rqmem.store.lease.show`, once Redis answers."""
        page, worker, job_id = self._page, self._worker, job.id.decode()
        owner = replace(self._order.owner, execution=page.execution_id, queue=page.queue)
        seconds = worker.job_monitoring_interval + 60
        return until_redis_answers(
            lambda: lease.show(
                worker.connection,
                worker.name,
                page.queue,
                job_id,
                job.created_at.decode(),
                page.began_at,
                owner,
                seconds,
                hand_over=hand_over,
            ),
            f"show job {job_id} as running",
        )

    def _hand_over(self, job: Taken) -> tuple[Job, Queue, Execution] | None:
        """It becomes an execution like any other. None: it is somebody else's, or was deleted."""
        page, worker = self._page, self._worker
        self._end = replace(self._end, handed_over=True)
        self._commit_pending()
        if self._show(job, hand_over=True) != "shown":
            return None
        proxy = self._proxy_job
        try:
            read = proxy if proxy is not None and "_rqmem_fetch" not in vars(proxy) else self._fetch(job.id.decode())
        except NoSuchJobError:
            return None
        execution = Execution(page.execution_id, read.id, worker.connection, worker.name)
        execution.created_at = datetime.fromtimestamp(page.began_at, timezone.utc)
        execution._job = read
        read.started_at, read.worker_name, read._status = execution.created_at, worker.name, JobStatus.STARTED
        read.redis_server_version = worker.get_redis_server_version()
        worker.executions = {execution.id: execution}
        queue = worker.queue_class(
            page.queue, connection=worker.connection, job_class=worker.job_class, serializer=worker.serializer,
            death_penalty_class=worker.death_penalty_class,
        )  # fmt: skip
        return read, queue, execution

    def _hand_over_failure(self, job: Taken, exc_info: Any) -> bool:
        page = self._page
        handed = self._hand_over(job)
        if handed is None:
            page.outcome = "RunTakenOver"
        else:
            self._worker._finalize_failure(*handed, exc_info)
        return self._handed_over(handed, "a job failed")

    def _handed_over(self, handed: tuple[Job, Queue, Execution] | None, why: str) -> bool:
        page = self._page
        page.advance(Event.COMMITTED)
        if self.hooks is not None and self.here is not None and handed is not None:
            self.hooks.after(self.here, handed[0], page.outcome)
        page.started_at = 0.0
        return self._stop(why)

    def _hand_over_success(self, job: Taken, result: Any) -> bool:
        """RQ's own methods commit it."""
        page, worker = self._page, self._worker
        handed = self._hand_over(job)
        if handed is None:
            page.outcome = "RunTakenOver"
        else:
            try:
                worker._finalize_success(*handed, result)
                page.outcome = OK
            except BaseException:  # noqa: BLE001  as RQ's perform_job
                worker._finalize_failure(*handed, sys.exc_info())
        return self._handed_over(handed, "a job is no plain one")

    # The end

    def _commit_pending(self) -> None:
        """All that has finished, once Redis answers."""
        if self._lost:
            self._resend()
        try:
            self._step(b"")
            self._read()
        except RedisError:
            self._resend()

    def _resend(self) -> None:
        """Commit what has no reply over a new connection, until Redis has it. What it has already, it refuses."""
        jobs = [job for step in self._sent for job in step] + self._pending
        self._sent.clear()
        self._pending, self._packed, self._pending_seconds = [], [], 0.0
        self._link.close()
        self._lost = False

        def commit() -> None:
            self._link = LeaseConnection(self._worker.connection, self._worker.name, self._order.token)
            try:
                if jobs:
                    seconds = sum(job.ended_at - job.began_at for job in jobs)
                    self._link.send_step([packed(job, self._order.queues) for job in jobs], seconds)
                    self._take_reply(self._link.read_step(), jobs)
            except RedisError:
                self._link.close()
                raise

        until_redis_answers(commit, f"commit {len(jobs)} jobs of a lease", self._worker.connection)

    def _settle_rest(self) -> None:
        """Commit what has finished, and give back what has not begun."""
        self._commit_pending()
        for done in self._plain:
            self._finish_plain(done)
        until_redis_answers(
            lambda: lease.give_back(self._worker.connection, self._worker.name, self._order.token),
            "give back the jobs of a lease",
        )
        self._link.close()

    def _finish_plain(self, done: FinishedJob) -> None:
        """A job has finished that others wait for, or that was cancelled meanwhile: RQ's own methods commit it."""
        page, worker = self._page, self._worker
        queue = self._order.queues[done.queue]
        page.begin_leased(done.job_id, done.created_at, done.execution_id, queue, page.job, -1)
        page.started_at, page.began_at = 0.0, done.began_at
        page.advance(Event.ENTERED)  # it has run: where the horse dies from here on, it does not run again
        page.advance(Event.LEFT)
        page.finished.committed = page.finished.count
        handed_over = self._end.handed_over
        self._proxy_job = None
        taken = Taken(done.queue, done.job_id, b"", b"", b"", done.created_at)
        handed = self._hand_over(taken)
        if handed is not None:
            handed[0].ended_at = datetime.fromtimestamp(done.ended_at, timezone.utc)
            result = None if done.result is None else worker.serializer.loads(done.result)
            try:
                worker._finalize_success(*handed, result)
            except BaseException:  # noqa: BLE001  as RQ's perform_job
                worker._finalize_failure(*handed, sys.exc_info())
        page.advance(Event.COMMITTED)
        self._end = replace(self._end, handed_over=handed_over)

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        """The worker says that the job's time is over. A signal that comes late is none of the next job's."""
        page = self._page
        over = 0 < page.limit_seconds <= time.monotonic() - page.started_at
        if page.in_user_code and page.started_at and over and not page.breached:
            raise JobTimeoutException(f"Task exceeded maximum timeout value ({page.limit_seconds} seconds)")


def packed(done: FinishedJob, queues: list[str]) -> bytes:
    """For `LeaseConnection.send_step`."""
    return pack_finished(
        queues[done.queue].encode(), done.job_id, done.created_at, done.execution_id, done.began_at, done.ended_at,
        done.result_ttl, done.result,
    )  # fmt: skip


def _uncompressed(data: bytes) -> bytes:
    """As RQ's `Job.restore`."""
    try:
        return zlib.decompress(data)
    except zlib.error:
        return data


def _resident(statm: int) -> int:
    """Pages."""
    return procfs.parse_resident_pages(os.pread(statm, 128, 0))
