"""RQ's scheduler, which moves jobs that are due, and goes on when Redis was away or refused.

RQ's process ends on the first error of Redis, with a traceback, and its worker starts it again within ten minutes.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from rqmem.measure import linux
from rqmem.rq_names import RQScheduler
from rqmem.store.retrying import described, reopen_at_failover, until_redis_answers

_log = logging.getLogger("rqmem.worker")


class PatientScheduler(RQScheduler):
    """A scheduler that waits for its Redis. Each of its steps bears being repeated. It ends with its worker.

    RQ's goes on when its worker was killed, and keeps the lock from the scheduler of the next one.
    """

    worker_pid: int

    def work(self) -> None:
        """RQ's `work`; from here on the process is the scheduler's own."""
        reopen_at_failover(self.connection)
        self._install_signal_handlers()
        linux.signal_when_parent_ends(signal.SIGTERM)
        self._stop_requested |= os.getppid() != self.worker_pid
        super().work()

    def acquire_locks(self, auto_start: bool = False) -> Any:
        """RQ's `acquire_locks`, once Redis answers."""
        return self._patiently(lambda: super(PatientScheduler, self).acquire_locks(auto_start), "give its locks")

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
        return until_redis_answers(lambda: None if self._stop_requested else step(), f"let the scheduler {what}")
