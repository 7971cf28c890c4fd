"""Keeps the worker alive between and around its jobs while Redis is away or refuses.

Plain RQ ends the worker on an error of Redis between two jobs, with exit code 0. Here it waits
(`rqmem.store.retrying`). Any other error that nobody handles ends the worker with `WorkerBroken`. How it waits for a
job is in `rqmem.worker.next_job`, how outcomes are committed in `rqmem.worker.commit`.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from redis.client import PubSub
from redis.exceptions import RedisError

from rqmem.errors import WorkerBroken
from rqmem.rq_names import StopRequested, Worker
from rqmem.store.retrying import described, note, unavailable, until_redis_answers

_COMMAND_PAUSE_SECONDS, _ONE_SPELL_SECONDS = 2.0, 10.0
_log = logging.getLogger("rqmem.worker")
F = TypeVar("F", bound=Callable[..., Any])


def step_of_work(method: F) -> F:
    """Decorate a method that RQ's loop in `work` calls. It notes the error that ends the loop in ``broken_by``.

    The heart's thread calls some of these methods too; its errors do not end the worker.
    """

    @functools.wraps(method)
    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        outage: RedisOutage = self._outage
        if threading.current_thread() is not threading.main_thread():
            return method(self, *args, **kwargs)
        try:
            result = method(self, *args, **kwargs)
        except (StopRequested, SystemExit):
            raise
        except BaseException as error:
            outage.broken_by = error
            raise
        outage.broken_by = None
        return result

    return noted  # type: ignore[return-value]


class RedisOutage:
    """What one worker does about its Redis.

    Attributes:
        broken_by: the error that has ended `work`; None: there was none.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._deaf_at = float("-inf")  # when the command thread last failed
        self.broken_by: BaseException | None = None

    def check(self) -> None:
        """Raise `WorkerBroken` if an error has ended RQ's loop. RQ only logs it, and `work` returns as usual."""
        error = self.broken_by
        if error is not None and not isinstance(error, StopIteration):  # a mock that has run out, in RQ's tests
            what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            name = self._worker.name
            raise WorkerBroken(f"worker {name} was ended by an error that nobody handled: {what}") from None

    def skipping(self, what: str, step: Callable[[], None]) -> None:
        """Do a write that is repeated soon anyway; skip it while Redis is away or refuses."""
        try:
            step()
        except RedisError as error:
            if unavailable(error) is None:
                raise
            note(error)
            _log.debug("worker %s: %s skipped: %s", self._worker.name, what, described(error))

    def stop_if_told(self) -> None:
        """Raise `StopRequested` after a request to stop. RQ's handler raises it too, but `logging` may swallow that."""
        if self._worker._shutdown_requested_date is not None:
            raise StopRequested

    def wait_for(self, what: str, step: Callable[[], object]) -> None:
        """Repeat ``step`` until Redis answers. Raises `StopRequested` if the worker is asked to stop meanwhile."""

        def unless_stopped() -> None:
            self.stop_if_told()
            step()

        until_redis_answers(unless_stopped, what)

    def hears_again(self, error: Exception, pubsub: PubSub) -> bool:
        """Whether RQ's command thread goes on: pauses and returns True if Redis was away or refused."""
        if unavailable(error) is None:
            return False
        now = time.monotonic()
        if now - self._deaf_at > _ONE_SPELL_SECONDS:
            _log.warning("worker %s: no commands are heard until Redis takes a subscription again (%s)",
                         self._worker.name, described(error))  # fmt: skip
        self._deaf_at = now
        if pubsub.connection is not None:
            pubsub.connection.disconnect()  # it subscribes again when it reconnects
        time.sleep(_COMMAND_PAUSE_SECONDS)
        return True
