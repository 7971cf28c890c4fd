"""RQ's scheduler, which moves jobs that are due, and goes on when Redis was away or refused.

RQ's process ends on the first error of Redis, with a traceback, and its worker starts it again within ten minutes.

RQ's worker takes the scheduler's lock before it forks the scheduler. If it is killed between the two, or both are, the
lock lasts for a minute, in which nobody moves what is due. Here the lock's value, the scheduler's name, tells the
worker's process, so the next scheduler on this machine releases the lock of a dead one.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any, cast
from uuid import uuid4

from redis.exceptions import RedisError

from rqmem.measure import linux, process_tree, procfs
from rqmem.rq_names import RQScheduler, Worker, release_lock
from rqmem.store import keys
from rqmem.store.retrying import described, reopen_at_failover, until_redis_answers

_NAME_BEGINS = "rqmem:"
LOOK_SECONDS = 5  # between two looks whether the locks are free
_log = logging.getLogger("rqmem.worker")


def new_name() -> str:
    return f"{_NAME_BEGINS}{uuid4().hex}:{procfs.process_identity()}"


class PatientScheduler(RQScheduler):
    """A scheduler that waits for its Redis. Each of its steps bears being repeated. It ends with its worker.

    RQ's goes on when its worker was killed, and keeps the lock from the scheduler of the next one.

    Args:
        told_to_stop: whether its worker is; it then waits for Redis no longer.
    """

    worker_pid: int

    def __init__(self, *args: Any, told_to_stop: Callable[[], bool] = lambda: False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._told_to_stop = told_to_stop

    def work(self) -> None:
        """RQ's `work`; from here on the process is the scheduler's own."""
        reopen_at_failover(self.connection)
        self._install_signal_handlers()
        linux.signal_when_parent_ends(signal.SIGTERM)
        self._stop_requested |= os.getppid() != self.worker_pid
        super().work()

    def acquire_locks(self, auto_start: bool = False) -> Any:
        """RQ's `acquire_locks`, once Redis answers; locks of dead schedulers are released first."""
        return self._patiently(lambda: self._acquire(auto_start), "give its locks")

    def _acquire(self, auto_start: bool) -> Any:
        for queue in self._queue_names:
            lock = self.get_locking_key(queue)
            held = cast("bytes | None", self.connection.get(lock))
            if held is None or not self._has_died(holder := held.decode(errors="replace")):
                continue
            if release_lock(self.connection, lock, holder):
                _log.warning("scheduler: takes over the lock of queue %s from a scheduler that was killed", queue)
        return super().acquire_locks(auto_start)

    def _has_died(self, name: str) -> bool:
        """Whether that scheduler and its worker have ended. One whose worker has ended gives its locks back itself."""
        if not name.startswith(_NAME_BEGINS):
            return False
        worker = name.removeprefix(_NAME_BEGINS).partition(":")[2]
        if not process_tree.has_ended(worker):
            return False
        of_dead = self.key.removesuffix(self.name) + name
        process = cast("bytes | None", self.connection.hget(of_dead, keys.PROCESS))
        return process is None or process_tree.has_ended(process.decode()) is True

    def to_dict(self) -> dict[str, Any]:
        """RQ's `to_dict`, with the scheduler's process."""
        return {**super().to_dict(), keys.PROCESS: procfs.process_identity()}

    def register_birth(self) -> None:
        """RQ's `register_birth`, once Redis answers."""
        self._patiently(super().register_birth, "take its birth")

    def heartbeat(self) -> None:
        """RQ's `heartbeat`, once Redis answers."""
        self._patiently(self._beat, "take its heartbeat")

    def _beat(self) -> None:
        super().heartbeat()
        if not self.connection.hexists(self.key, "name"):  # Redis has lost its data
            self.save()

    def enqueue_scheduled_jobs(self) -> None:
        """RQ's `enqueue_scheduled_jobs`, once Redis answers."""
        self._patiently(super().enqueue_scheduled_jobs, "move what is due")

    def stop(self) -> None:
        """RQ's `stop`; its locks expire by themselves where Redis does not take them back."""
        try:
            super().stop()
        except RedisError as error:
            _log.warning("scheduler: could not sign off: %s", described(error))

    def _patiently(self, step: Callable[[], Any], what: str) -> Any:
        """None where it was told to stop meanwhile."""
        return until_redis_answers(
            lambda: None if self._stop_requested or self._told_to_stop() else step(), f"let the scheduler {what}"
        )


class Scheduling:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._asked_at: float | None = None  # when its locks were last asked for; None: no scheduler is wanted

    @property
    def process(self) -> BaseProcess | None:
        """Its process, which may have ended; None: it has not begun."""
        scheduler = self._worker.scheduler
        return scheduler._process if scheduler is not None else None

    def start(self, burst: bool, logging_level: str | None, date_format: str, log_format: str) -> None:
        """As RQ's `_start_scheduler`, with a `PatientScheduler`."""
        worker = self._worker
        worker.scheduler = scheduler = PatientScheduler(
            worker.queues,
            connection=worker.connection,
            logging_level=logging_level if logging_level is not None else worker.log.level,
            date_format=date_format,
            log_format=log_format,
            serializer=worker.serializer,
            name=new_name(),
            told_to_stop=lambda: worker._shutdown_requested_date is not None,
        )
        scheduler.worker_pid = os.getpid()
        self._asked_at = None if burst else time.monotonic()
        if not scheduler.acquire_locks():
            return
        if not burst:
            scheduler.start()
            return
        try:
            scheduler.register_birth()
            scheduler.enqueue_scheduled_jobs()
        finally:
            scheduler.release_locks()
            scheduler.register_death()

    def tend(self) -> bool:
        """Start the scheduler if it does not run and another one holds its locks no more; whether it still does not.

        RQ looks after ten minutes. Until then nobody moves what is due, if the holder was killed a moment ago.
        """
        scheduler, now = self._worker.scheduler, time.monotonic()
        if scheduler is None or self._asked_at is None:
            return False
        if self.process is not None and self.process.is_alive():
            return False
        if now - self._asked_at >= LOOK_SECONDS:
            self._asked_at = now
            scheduler.acquire_locks(auto_start=True)
        return True

    def stop(self) -> None:
        """As RQ's `stop_scheduler`, but never signals a pid that is another process's by now, and does not wait for the
        scheduler's end while a horse works."""
        process = self.tell_to_stop()
        if process is not None and not self._worker.horse_pid:
            process.join()

    def tell_to_stop(self) -> BaseProcess | None:
        process = self.process
        if process is not None and process.is_alive() and process.pid:
            os.kill(process.pid, signal.SIGTERM)
        return process
