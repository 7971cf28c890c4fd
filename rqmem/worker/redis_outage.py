"""A worker outlives a Redis which is away or refuses, between its jobs and around them.

Stock RQ ends the worker on an error of Redis between two jobs, with exit code 0. Here it waits
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
    """A method that RQ's loop in `work` calls: an error that leaves the last one of them has ended the worker.

    The heart's thread calls some of them too. What it meets does not end the worker.
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
        """Raise `WorkerBroken` for an error that has ended RQ's loop, which logs it and returns as if all were well."""
        error = self.broken_by
        if error is not None and not isinstance(error, StopIteration):  # a mock that has run out, in RQ's tests
            what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            name = self._worker.name
            raise WorkerBroken(f"worker {name} was ended by an error that nobody handled: {what}") from None

    def skipping(self, what: str, step: Callable[[], None]) -> None:
        """Skip a write that Redis does not take now and that is repeated soon. Whatever comes next waits for Redis."""
        try:
            step()
        except RedisError as error:
            if unavailable(error) is None:
                raise
            note(error)
            _log.debug("worker %s: %s skipped: %s", self._worker.name, what, described(error))

    def stop_if_told(self) -> None:
        """Raise `StopRequested` if so. RQ's signal handler raises it too, and `logging`, for one, swallows that."""
        if self._worker._shutdown_requested_date is not None:
            raise StopRequested

    def wait_for(self, what: str, step: Callable[[], object]) -> None:
        """Do this once Redis answers, unless the worker is asked to stop."""

        def unless_stopped() -> None:
            self.stop_if_told()
            step()

        until_redis_answers(unless_stopped, what)

    def hears_again(self, error: Exception, pubsub: PubSub) -> bool:
        """Whether the thread that hears commands goes on, after a pause: it does where Redis was away or refused."""
        if unavailable(error) is None:
            return False
        now = time.monotonic()
        if now - self._deaf_at > _ONE_SPELL_SECONDS:
            _log.warning("worker %s: no commands are heard until Redis takes a subscription again (%s)",
                         self._worker.name, described(error))  # fmt: skip
        self._deaf_at = now
        if pubsub.connection is not None:
            pubsub.connection.disconnect()  # it subscribes when it connects anew
        time.sleep(_COMMAND_PAUSE_SECONDS)
        return True
