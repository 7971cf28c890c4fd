"""The worker's helper thread: everything that talks to Redis while the main thread watches a horse.

Says that the worker lives, keeps RQ's heartbeats of the running job, looks for runs of dead workers.
It has a connection of its own with a short timeout; a Redis that is away makes it skip a beat and
ends nothing.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from typing import TYPE_CHECKING

from redis import ConnectionPool, Redis
from redis.exceptions import RedisError
from rq.connections import parse_connection

from rqmem.journal import writer
from rqmem.runtime.recovery import Recovery

if TYPE_CHECKING:
    from rq.executions import Execution
    from rq.job import Job
    from rq.worker import Worker

    from rqmem.config import Config

log = logging.getLogger("rqmem.heart")


class Heart:
    """Beats for one worker from `start` to `stop`."""

    def __init__(self, worker: Worker, config: Config) -> None:
        self._worker = worker
        self._seconds = config.heartbeat_seconds
        self._connection = _connection_with_short_timeout(worker.connection, self._seconds)
        self._recovery = Recovery(worker, self._connection, config)
        self._stopped = threading.Event()
        self._running: tuple[Job, Execution] | None = None
        self._maintained_at = 0.0
        self._away = False
        self._thread = threading.Thread(target=self._beat_until_stopped, name="rqmem-heart", daemon=True)

    def start(self) -> None:
        """Beat once at once, so that no run is claimed by a worker that seems dead; then in the thread."""
        writer.beat(self._worker.connection, self._worker.name, 2 * self._seconds)
        self._thread.start()

    def stop(self) -> None:
        """Stop beating and say farewell. A Redis that is away is no reason to fail."""
        self._stopped.set()
        self._thread.join(timeout=2 * self._seconds)
        try:
            writer.farewell(self._connection, self._worker.name)
        except RedisError as error:
            log.warning("worker %s: could not say farewell to Redis: %s", self._worker.name, error)

    def running(self, job: Job, execution: Execution) -> None:
        """From now on that job's heartbeats are kept too."""
        self._maintained_at = time.monotonic()
        self._running = (job, execution)

    def idle(self) -> None:
        """No job runs."""
        self._running = None

    def _beat_until_stopped(self) -> None:
        while True:
            try:
                writer.beat(self._connection, self._worker.name, 2 * self._seconds)
                self._maintain()
                self._recovery.scan(time.monotonic())
                self._tell(away=False)
            except RedisError as error:
                self._recovery.forget()
                self._tell(away=True, reason=str(error))
            except Exception:
                log.exception("worker %s: heartbeat failed", self._worker.name)
            if self._stopped.wait(self._seconds):
                return

    def _maintain(self) -> None:
        running = self._running
        now = time.monotonic()
        if running is None or now - self._maintained_at < self._worker.job_monitoring_interval:
            return
        self._maintained_at = now
        twin = copy.copy(self._worker)  # the same worker on this thread's connection
        twin.connection = self._connection
        twin.maintain_heartbeats(*running)

    def _tell(self, *, away: bool, reason: str = "") -> None:
        """One line when Redis goes, one when it is back."""
        if away != self._away:
            self._away = away
            if away:
                log.warning("worker %s: Redis does not answer the heartbeat: %s", self._worker.name, reason)
            else:
                log.warning("worker %s: Redis answers again", self._worker.name)


def _connection_with_short_timeout(connection: Redis, seconds: float) -> Redis:
    connection_class, pool_class, kwargs = parse_connection(connection)
    kwargs.update(socket_timeout=seconds, socket_connect_timeout=seconds)
    return connection_class(connection_pool=ConnectionPool(connection_class=pool_class, **kwargs))
