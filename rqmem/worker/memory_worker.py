"""`MemoryWorker`: RQ's Worker with a ceiling on each job's memory.

RQ does the rest: queues, registries, results, retries, callbacks and commands. The docstring of each override says
which method of RQ it extends or replaces, and why. Each override calls one of the worker's parts:

- `rqmem.worker.supervisor` runs one execution in the worker; `rqmem.worker.horse.main` runs it in the horse;
- `rqmem.worker.settlement` settles what did not end well, `rqmem.worker.commit` commits outcomes;
- `rqmem.worker.horse_pool` has the horses, `rqmem.worker.lifecycle` begins and ends everything;
- `rqmem.worker.next_job` takes a job, or waits for one;
- `rqmem.worker.redis_outage` and `rqmem.worker.heartbeat` keep the worker alive while Redis is away.

docs/internals.md draws the processes, the states and the paths.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import signal
import time
from typing import Any

from redis import Redis
from redis.client import Pipeline, PubSub, PubSubWorkerThread
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from rqmem import serializers
from rqmem.config.load import load
from rqmem.config.settings import Config
from rqmem.errors import MemoryLimitExceeded, RedisUnavailable, RqmemError, RunTakenOver
from rqmem.measure import procfs
from rqmem.measure.machine import OomKills
from rqmem.rq_names import (
    DEFAULT_LOGGING_DATE_FORMAT,
    DEFAULT_LOGGING_FORMAT,
    Execution,
    Job,
    JobStatus,
    Queue,
    StopRequested,
    Worker,
    WorkerStatus,
    now,
    utcformat,
)
from rqmem.store import keys, restarting
from rqmem.store.execution_records import Pending
from rqmem.store.retrying import (
    connection_with_short_timeout,
    described,
    refusal,
    reopen_at_failover,
    until_redis_answers,
)
from rqmem.worker import unreadable_jobs, worker_name
from rqmem.worker.abandoned_jobs import Settler
from rqmem.worker.claim import Claimer
from rqmem.worker.commit import Committer
from rqmem.worker.heartbeat import Heart
from rqmem.worker.helpers import Helpers
from rqmem.worker.horse.main import HorseMain
from rqmem.worker.horse_pool import HorsePool
from rqmem.worker.lease import Leasing
from rqmem.worker.lent_connection import lend, take_back
from rqmem.worker.lifecycle import Lifecycle
from rqmem.worker.next_job import NextJob
from rqmem.worker.pool.budget_table import BudgetTable
from rqmem.worker.pool.member import Member
from rqmem.worker.profiling import Capturing
from rqmem.worker.redis_outage import RedisOutage, step_of_work
from rqmem.worker.restart import Restarted
from rqmem.worker.rq_worker import OnConnection, OneLine, one_line
from rqmem.worker.settlement import ExcInfo, Settlement
from rqmem.worker.supervisor import Supervisor
from rqmem.worker.take import Taker
from rqmem.worker.watched_fork import WatchedFork
from rqmem.worker.worker_setup import Setup

_SIGN_OFF_SECONDS = 3.0
_SWITCH_SECONDS = 1.0
_log = logging.getLogger("rqmem.worker")


class MemoryWorker(Worker):
    """An RQ worker whose jobs cannot use more memory than their ceiling.

    Args:
        config: settings; by default read from the environment, so that the class also starts as
            ``rq worker -w rqmem.MemoryWorker``. All other arguments are RQ's.

    Raises:
        ConfigError: a setting cannot be used.
    """

    kill_after_timeout_seconds = 60
    """As in RQ: the worker kills a job that still runs this long after its time limit."""

    def __init__(self, *args: Any, config: Config | None = None, **kwargs: Any) -> None:
        config = load(os.environ).config if config is None else config
        super().__init__(*args, **kwargs)
        serializers.check(self.serializer, config)
        unreadable_jobs.accept()
        before = Restarted.from_environ(os.environ)
        if before is not None:
            self.name = before.name
        setup = Setup(self.name, config, self.kill_after_timeout_seconds)
        oom_kills, captures, helpers = OomKills(), Capturing(setup), Helpers(self, setup)
        self._member = member = Member(self, setup)
        self._pool = pool = HorsePool(setup, helpers.pids)
        self._committer = committer = Committer(self, pool, super().heartbeat)
        self._settlement = Settlement(
            self, setup, pool, committer, WatchedFork(self, pool), oom_kills,
            super()._finalize_failure, super()._handle_stopped_job, member,
        )  # fmt: skip
        self._heart = heart = Heart(self, setup, Settler(self, pool, self._settlement, committer), oom_kills, member)
        self._claimer = Claimer(self, pool, heart, committer, member)
        self._taker = taker = Taker(self, member, self._claimer)
        self._outage, self._scheduling = RedisOutage(self), helpers.scheduling
        self._next_job = NextJob(
            self, self._outage, heart, taker, member, pool, self._scheduling, self._claimer, self._wait_for_jobs
        )
        self._life = Lifecycle(
            self, setup, pool, heart, captures, helpers, self._outage, member, before,
            lambda: self._leasing.why_never(),
        )  # fmt: skip
        self._horse = HorseMain(self, setup, pool, captures, committer)
        self._supervisor = Supervisor(
            self, setup, pool, heart, captures, self._horse, committer, self._settlement, taker,
            self._life.new_recorder, member,
        )  # fmt: skip
        self._limit_mb = setup.limit_mb
        self._leasing = Leasing(
            self, setup, pool, heart, self._supervisor, self._settlement, committer, self._claimer.owner,
            member,
        )  # fmt: skip

    @property
    def config(self) -> Config:
        """The worker's settings."""
        return self._pool.config

    @property
    def limit_mb(self) -> float:
        """The ceiling in MB of jobs that declare none."""
        return self._limit_mb

    @property
    def idle_horse_pid(self) -> int:
        """The pid of the warm horse, whether it runs a job or not; 0 if there is none."""
        return self._pool.idle_pid

    def join(self, table: BudgetTable, number: int) -> None:
        """Share the budget of a pool. Call it before `work`. ``number`` is this worker's row in the pool's table."""
        self._member.join(table, number)

    # The worker's life

    def _set_connection(self, connection: Redis) -> Redis:
        """RQ's `_set_connection`; the connection also reconnects after a failover of Redis."""
        connection = super()._set_connection(connection)
        reopen_at_failover(connection)
        return connection

    def _set_ip_address(self, connection: Redis) -> None:
        """RQ's `_set_ip_address`; it is skipped if Redis or redis-py does not accept our name as a client name."""
        if "=" in self.name or not all("!" <= each <= "~" for each in self.name):
            self.ip_address = "unknown"
            return
        try:
            super()._set_ip_address(connection)
        except RedisConnectionError:  # the connection was lost: try once more on a new one
            super()._set_ip_address(connection)

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """RQ's `work`; raises `WorkerBroken` after an unhandled error, which RQ's only logs.

        A worker whose own memory has passed its ceiling restarts itself afterwards, or exits with 12. ``max_jobs``
        counts the jobs before and after such restarts together.
        """
        call = inspect.signature(Worker.work).bind(self, *args, **kwargs)
        max_jobs = self._life.left_to_do(call.arguments.get("max_jobs"))
        call.arguments["max_jobs"] = self._leasing.max_jobs = max_jobs
        try:
            worked = super().work(*call.args[1:], **call.kwargs)
        except StopRequested:  # RQ's loop, which calls `teardown`, has not begun
            _log.info("worker %s: told to stop while it started", self.name)
            self.teardown()
            return False
        self._outage.check()
        self._life.after_work(max_jobs)
        return worked

    def bootstrap(
        self,
        logging_level: str | None = "INFO",
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
    ) -> None:
        """RQ's `bootstrap`; before it, checks that jobs can run at all; after it, starts the heartbeats."""
        log_options = (logging_level, date_format, log_format)
        bootstrap = super().bootstrap
        self._life.start(log_options, lambda: bootstrap(*log_options))

    def register_birth(self) -> None:
        """Replaces RQ's `register_birth`: also takes over the name of a dead worker. Waits while Redis is away.

        Raises `NameTaken` (a ValueError) if the name is in use, and `RedisUnavailable` if Redis refuses to write.
        """
        self.log.debug("Worker %s: registering birth", self.name)

        def register() -> None:
            try:
                worker_name.register(self, self.config.heartbeat_seconds)
            except RedisError as error:
                if refusal(error):
                    raise RedisUnavailable(f"Redis refuses: {described(error)}") from None
                raise

        self._outage.wait_for("register", register)
        self._life.has_name = True

    def register_death(self) -> None:
        """RQ's `register_death`, on a connection with a short timeout; RQ's own waits up to seven minutes."""
        leaving = self._over(connection_with_short_timeout(self.connection, _SIGN_OFF_SECONDS))
        if self._life.has_name or worker_name.has(leaving):
            Worker.set_state(leaving, self._state)
            Worker.register_death(leaving)

    def serialize(self) -> dict[str, Any]:
        """RQ's `serialize`, plus the process that has this name, and how that process can restart itself."""
        ours = {keys.PROCESS: procfs.process_identity(), keys.RESTARTS: self._life.way_to_restart()}
        return {**super().serialize(), **ours}

    def teardown(self) -> None:
        """RQ's `teardown`; before it, ends the horse and the heart. Other workers can then take over what is left.

        An error of Redis is logged only.
        """
        if self.is_horse:
            super().teardown()
            return
        with self._life.leaving():
            try:
                self._life.leave()
            finally:
                try:
                    super().teardown()
                except RedisError as error:
                    _log.warning("worker %s: could not sign off: %s", self.name, described(error))

    # Between jobs

    @step_of_work
    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """RQ's `heartbeat`, at most once a second within `work`; it is skipped while Redis is away."""
        heartbeat = super().heartbeat
        if not self._heart.is_due(timeout):
            self.last_heartbeat = now()
            return
        self._outage.skipping("heartbeat", lambda: heartbeat(timeout, pipeline))

    def set_state(self, state: str, pipeline: Pipeline | None = None) -> None:
        """RQ's `set_state`; the state changes in this process even while Redis is away."""
        set_state = super().set_state
        self._claimer.forget_state()
        self._outage.skipping(f"state {state}", lambda: set_state(state, pipeline))

    @step_of_work
    def check_for_suspension(self, burst: bool) -> None:
        """RQ's `check_for_suspension`, once Redis answers. Where `Taker` checks for suspension, only its heartbeat."""
        look = super().check_for_suspension
        if self._heart.beating and self._taker.usable:
            self.heartbeat()  # as RQ's method does
            return
        self._outage.wait_for("look for suspension", lambda: look(burst))

    @property
    @step_of_work
    def should_run_maintenance_tasks(self) -> bool:
        """RQ's `should_run_maintenance_tasks`. RQ reads it before each wait for a job.

        So this is also where the worker reaps killed horses, restarts helpers, and notices a stop request.
        """
        self._pool.bury()
        self._life.tend_helpers()
        self._outage.stop_if_told()
        return bool(super().should_run_maintenance_tasks)

    @step_of_work
    def run_maintenance_tasks(self) -> None:
        """RQ's `run_maintenance_tasks`, put off while Redis is away or has just come back.

        At that time the heartbeats of running jobs may have expired, and RQ would fail these jobs. An error in a
        single registry entry is logged and does not end the worker.
        """
        if self._heart.steady:
            try:
                self._outage.skipping("maintenance", super().run_maintenance_tasks)
            except RedisError:  # a registry key of a wrong type: each job would fail
                raise
            except Exception as error:  # noqa: BLE001
                self.last_cleaned_at = now()  # type: ignore[assignment]  # do not try again before each job
                _log.error("worker %s: RQ's maintenance of registries failed: %s", self.name, one_line(error))

    @step_of_work
    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Replaces RQ's `dequeue_job_and_maintain_ttl`: no job is lost if Redis goes away meanwhile."""
        return self._next_job.find(timeout, max_idle_time)

    def _start_scheduler(
        self,
        burst: bool = False,
        logging_level: str | None = "INFO",
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
    ) -> None:
        """Replaces RQ's `_start_scheduler`: the same with a scheduler that waits for its Redis."""
        self._scheduling.start(burst, logging_level, date_format, log_format)

    def stop_scheduler(self) -> None:
        """Replaces RQ's `stop_scheduler`: the same, without a wait for its end while a horse works."""
        self._scheduling.stop()

    # Commands and signals

    def _pubsub_exception_handler(self, exc: Exception, pubsub: PubSub, pubsub_thread: PubSubWorkerThread) -> None:
        """RQ's handler of errors in the command thread; RQ's ends the thread unless the connection was lost."""
        if not self._outage.hears_again(exc, pubsub):
            super()._pubsub_exception_handler(exc, pubsub, pubsub_thread)

    def handle_payload(self, message: Any) -> None:
        """RQ's `handle_payload`, in RQ's command thread. The lock keeps the running job from changing meanwhile.

        Errors are logged, so that the thread goes on. Also handles rqmem's own command, which restarts the worker.
        """
        try:
            if restarting.is_told(message):
                self._life.restart()
                return
            with self._supervisor.switch:
                super().handle_payload(message)
        except Exception:  # noqa: BLE001
            _log.exception("worker %s: a command could not be carried out", self.name)

    def request_stop_execution(self, execution_id: str) -> None:
        """RQ's `request_stop_execution`, from another thread. The lock keeps the horse from changing its job."""
        with self._supervisor.switch:
            if execution_id in self.executions and not self._leasing.may_stop(execution_id):
                self.log.warning("Not running execution %s, command ignored.", execution_id)
                return
            super().request_stop_execution(execution_id)

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """RQ's `kill_horse`; it does nothing without a horse (RQ's would signal our own process group).

        Other threads call it too. The lock keeps the horse from being reaped meanwhile: its pid could be reused.
        """
        held = self._supervisor.switch.acquire(timeout=_SWITCH_SECONDS)
        try:
            if self.horse_pid:
                super().kill_horse(sig)
        finally:
            if held:
                self._supervisor.switch.release()

    def _shutdown(self) -> None:
        """RQ's `_shutdown`; also tells the running job, which goes on in another worker if it is resumable."""
        self._pool.page.stop_asked = True
        self._leasing.stop_waiting()
        self._next_job.stop_waiting()
        super()._shutdown()

    def set_shutdown_requested_date(self) -> None:
        """Replaces RQ's `set_shutdown_requested_date`: the heart's thread writes it; a signal handler must not wait."""
        if not self._heart.beating:
            super().set_shutdown_requested_date()
            return
        assert self._shutdown_requested_date is not None
        key, text = self.key, utcformat(self._shutdown_requested_date)
        self._heart.soon(lambda connection: connection.hset(key, "shutdown_requested_date", text))

    # One job, in the worker

    def prepare_execution(self, job: Job) -> Execution:
        """Replaces RQ's `prepare_execution`: one transaction writes the same records and the owner of the run."""
        return self._claimer.claim(job)

    @step_of_work
    def execute_job(self, job: Job, queue: Queue) -> None:
        """RQ's `execute_job`. Within `work` the warm horse runs the job, unless ``--isolation fork`` is set."""
        self._life.tend_helpers()
        self._stopped_job_id = None  # a late request to stop an earlier execution does not stop this one
        try:
            if not self._life.runs_warm:
                execute = super().execute_job
                self._supervisor.run_as_rq(job, lambda: execute(job, queue))
                self._life.look_at_own_memory()
                return
            self._supervisor.run_warm(job, queue, self.prepare_execution(job))
        except RunTakenOver as error:  # before it was claimed
            _log.warning("worker %s: %s", self.name, error)
            self._supervisor.release()
            self.set_state(WorkerStatus.IDLE)
            return
        self._leasing.after_job()
        self._leasing.work_off(queue)
        self._supervisor.release()
        self._have_run_jobs()

    def _have_run_jobs(self) -> None:
        """Runs after a job, or the jobs of a lease, before the next job is taken."""
        self._state = WorkerStatus.IDLE  # written to Redis only before a wait: mostly the next job follows
        if not self._pool.idle_pid:  # a new horse must be forked first
            self.set_state(WorkerStatus.IDLE)
        self._life.look_at_own_memory()
        if not self._stop_requested:
            self._supervisor.keep_a_horse()  # it starts while the next job is taken

    def _wait_for_jobs(self, seconds: float) -> bool | None:
        """Let the horse wait for jobs and run them. Returns whether it ran any; None if it cannot wait."""
        has_run = self._leasing.wait_for_jobs(seconds)
        if has_run:
            self._have_run_jobs()
        return has_run

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """RQ's `fork_work_horse`; before it, makes the page that worker and horse share."""
        self._pool.prepare_fork()
        super().fork_work_horse(job, queue)
        with contextlib.suppress(OSError):  # the horse does it too: neither may wait for the other
            os.setpgid(self._horse_pid, self._horse_pid)

    def monitor_work_horse(self, job: Job, queue: Queue, execution: Execution) -> None:
        """Replaces RQ's `monitor_work_horse`: also watches the memory of the horse, and settles a lost one."""
        self._supervisor.monitor(job, queue, execution)

    def _handle_stopped_job(self, job: Job, queue: Queue, execution: Execution) -> None:
        """RQ's `_handle_stopped_job`; a stopped callback runs in a fork, so it cannot harm the worker."""
        self._settlement.stop(job, queue, execution)

    # One job, in the horse

    def setup_work_horse_signals(self) -> None:
        """RQ's `setup_work_horse_signals`, first in a new horse: also installs our handlers and enters the cgroup."""
        super().setup_work_horse_signals()
        self._horse.settle_in()

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """RQ's `perform_job`; marks where the job's own code begins and ends, and caps its time limit."""
        perform = super().perform_job
        return self._horse.perform(job, queue, execution, lambda: perform(job, queue, execution))

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """RQ's `prepare_job_execution`, unless the script that took the job has started it already.

        Waits until Redis answers. Raises `RunTakenOver` if the job is not ours any more.
        """
        if self._committer.has_begun(job):
            self.procline(f"Processing {job.func_name} from {job.origin} since {time.time()}")
            return
        self._committer.begin(job, lambda connection: Worker.prepare_job_execution(self._over(connection), job, True))

    def _over(self, connection: Any) -> Any:
        """This worker with another connection, as ``self`` for one of RQ's methods."""
        return OnConnection(self, connection)

    def _finalize_success(self, job: Job, queue: Queue, execution: Execution, return_value: Any) -> None:
        """RQ's `_finalize_success`; a job that was split waits for its children instead."""
        if isinstance(return_value, Pending):
            self._settlement.wait_for_children(job, queue, execution, return_value)
        else:
            super()._finalize_success(job, queue, execution, return_value)

    def _finalize_failure(self, job: Job, queue: Queue, execution: Execution, exc_info: ExcInfo) -> None:
        """RQ's `_finalize_failure`, only for a job that really fails: a resume must not run failure callbacks."""
        self._settlement.fail(job, queue, execution, exc_info)

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:
        """RQ's `handle_execution_ended`, once Redis answers. Without a callback, the commit writes its fields instead.

        Callbacks and exception handlers get a connection of their own.
        """
        keep = super().handle_execution_ended
        if job._status != JobStatus.FAILED and not job._success_callback_name:
            job.ended_at = job.last_heartbeat = now()
            return
        take_back(job)
        until_redis_answers(lambda: keep(job, queue, heartbeat_ttl), f"keep the outcome of job {job.id}")
        lend(job)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """RQ's `handle_exception`; our own errors are logged in one line, and a breach is not logged twice."""
        error, log = exc_info[1], self.log
        if isinstance(error, RqmemError):
            self.log = OneLine(f"Worker {self.name}: job {job.id} failed: {one_line(error)}")
        elif isinstance(error, MemoryLimitExceeded):
            self.log = OneLine("")
        try:
            super().handle_exception(job, *exc_info)  # perhaps not RQ's: Sentry replaces it, for example
        finally:
            self.log = log

    # Outcomes

    def handle_job_success(self, job: Job, queue: Queue, started_job_registry: Any, execution: Execution) -> None:
        """RQ's `handle_job_success`, once Redis answers. Raises `RunTakenOver` if the run is not ours any more."""
        take_back(job)
        self._committer.success(
            job,
            queue,
            execution,
            lambda connection, fenced: Worker.handle_job_success(
                self._over(connection), job, fenced, started_job_registry, execution
            ),
        )

    def handle_job_retry(
        self, job: Job, queue: Queue, retry: Any, started_job_registry: Any, execution: Execution
    ) -> None:
        """RQ's `handle_job_retry`, once Redis answers. Raises `RunTakenOver` if the run is not ours any more."""
        take_back(job)
        commit = super().handle_job_retry
        self._committer.retry(job, queue, execution, lambda: commit(job, queue, retry, started_job_registry, execution))

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = "",
        execution: Execution | None = None,
    ) -> None:
        """RQ's `handle_job_failure`, once Redis answers. Does nothing if the run is not ours any more."""
        take_back(job)
        commit = super().handle_job_failure
        self._committer.failure(
            job, queue, execution, exc_string, lambda text: commit(job, queue, started_job_registry, text, execution)
        )

    def cleanup_execution(self, job: Job, pipeline: Pipeline, execution: Execution | None = None) -> None:
        """RQ's `cleanup_execution`, a part of each commit; adds rqmem's own writes to the same transaction."""
        self._committer.note_errors_of(pipeline)
        super().cleanup_execution(job, pipeline, execution)
        self._committer.clean_up(job, pipeline, execution)

    def _enqueue_dependents_safely(self, queue: Queue, job: Job) -> None:
        """Replaces RQ's `_enqueue_dependents_safely`: the same, once Redis answers."""
        self._committer.enqueue_dependents(queue, job)

    def _release_slot_safely(self, job: Job) -> None:
        """Replaces RQ's `_release_slot_safely`: the same, once Redis answers."""
        self._committer.release_slot(job)
