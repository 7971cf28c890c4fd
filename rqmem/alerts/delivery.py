"""Bringing the alerts of the journal to one service; a thread for each service, so that none waits for another.

`rqmem.policy.alert_pace` says when, and `rqmem.store.alerts.alert_outbox` is the stream of alerts. Promises:
an alert is done with only after the service took it, so each is sent at least once, and twice only where a sender died
in between; a message that fails is tried again, a bounded number of times, then dropped and counted; without Redis
what was taken is sent all the same, and the rest when it is back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from redis.exceptions import RedisError

from rqmem import words
from rqmem.alerts.messages import message
from rqmem.alerts.service import Service
from rqmem.policy.alert_pace import (
    MESSAGES_A_MINUTE,
    WORTH_SENDING_SECONDS,
    may_send_at,
    pause_after,
    to_send,
)
from rqmem.store.alerts.alert_outbox import Outbox
from rqmem.store.alerts.alert_records import Alert
from rqmem.text import counted

_TAKEN_AT_MOST = 1000
_WAIT_SECONDS = 1.0
_TEND_SECONDS = 10.0
_ABANDONED_SECONDS = 60.0  # six times as long: a sender that lives says so
_log = logging.getLogger("rqmem.alerts")


class RedisAway:
    """One line when Redis goes and one when it is back, however many threads notice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._away = False

    def tell(self, reason: str) -> None:
        """Why Redis did not answer; empty when it did."""
        with self._lock:
            if bool(reason) == self._away:
                return
            self._away = bool(reason)
        if reason:
            _log.warning("alerts: %s: %s", words.REDIS_GONE["away"], reason)
        else:
            _log.warning("alerts: %s", words.REDIS_BACK["away"])


class Delivery:
    """The alerts of one outbox, to one service."""

    def __init__(self, outbox: Outbox, service: Service, away: RedisAway, stopping: threading.Event) -> None:
        self._outbox = outbox
        self._service = service
        self._away = away
        self._stopping = stopping
        self._waiting: deque[Alert] = deque()
        self._message: list[Alert] = []
        self._tries = 0
        self._next_at = 0.0
        self._sent_at: deque[float] = deque(maxlen=MESSAGES_A_MINUTE)
        self._done: list[str] = []
        self._dropped = 0
        self._tended_at: float | None = None

    def run(self) -> None:
        """Deliver until asked to stop, and then what is there. What cannot be sent by then stays in the stream."""
        while not self._stopping.is_set():
            self._send()
            if not self._try(self._take_more):
                self._stopping.wait(_WAIT_SECONDS)
        self._try(lambda: self._waiting.extend(self._outbox.take(_TAKEN_AT_MOST)))
        while self._send(at_once=True):
            pass
        self._try(self._leave)

    def _try(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except RedisError as error:
            self._away.tell(str(error) or type(error).__name__)
            return False
        self._away.tell("")
        return True

    # Between Redis and here

    def _take_more(self) -> None:
        self._settle()
        now = time.monotonic()
        if self._tended_at is None:
            self._waiting.extend(self._outbox.take_again(_TAKEN_AT_MOST))
        if self._tended_at is None or now - self._tended_at >= _TEND_SECONDS:
            self._outbox.hold([each.id for each in (*self._message, *self._waiting)])
            self._waiting.extend(self._outbox.take_over(_ABANDONED_SECONDS, _TAKEN_AT_MOST))
            self._tended_at = now
        room = _TAKEN_AT_MOST - len(self._waiting)
        wait = self._may_wait(now)
        if room > 0:
            self._waiting.extend(self._outbox.take(room, wait))
        else:
            self._stopping.wait(wait)

    def _may_wait(self, now: float) -> float:
        """How long there is nothing to send."""
        if self._message:
            due = self._next_at
        elif self._waiting:
            due = may_send_at(self._sent_at, now)
        else:
            return _WAIT_SECONDS
        return min(max(due - now, 0.0), _WAIT_SECONDS)

    def _settle(self) -> None:
        """Tell Redis what is done with."""
        if self._done or self._dropped:
            self._outbox.done(self._done, self._dropped)
            self._done, self._dropped = [], 0

    def _leave(self) -> None:
        self._settle()
        if not self._message and not self._waiting:
            self._outbox.leave()

    # Between here and the service

    def _send(self, *, at_once: bool = False) -> bool:
        """Send the next message, if it may go; whether one was taken. ``at_once``: there is no later."""
        now = time.monotonic()
        if not self._message:
            self._drop_old()
            count = to_send(len(self._waiting), self._sent_at, now) or (len(self._waiting) if at_once else 0)
            if count == 0:
                return False
            self._message = [self._waiting.popleft() for _ in range(count)]
            self._tries, self._next_at = 0, now
        if now < self._next_at and not at_once:
            return False
        self._sent_at.append(now)
        reason = self._service.send(message(self._message))
        if reason:
            self._failed(reason)
            return False
        if self._tries:
            _log.warning("%s takes alerts again", self._service.shown)
        self._finish(dropped=False)
        return True

    def _failed(self, reason: str) -> None:
        self._tries += 1
        pause = pause_after(self._tries)
        if pause is None:
            lost = counted(len(self._message), "alert")
            _log.error("%s: %s not sent, after %d tries: %s", self._service.shown, lost, self._tries, reason)
            self._finish(dropped=True)
            return
        if self._tries == 1:
            _log.warning("%s did not take an alert: %s; it is tried again", self._service.shown, reason)
        self._next_at = time.monotonic() + pause

    def _finish(self, *, dropped: bool) -> None:
        self._done += [each.id for each in self._message]
        self._dropped += len(self._message) if dropped else 0
        self._message = []

    def _drop_old(self) -> None:
        oldest = time.time() - WORTH_SENDING_SECONDS
        old = [each for each in self._waiting if each.at < oldest]
        if old:
            _log.warning("%s: %s not sent: older than an hour", self._service.shown, counted(len(old), "alert"))
            self._waiting = deque(each for each in self._waiting if each.at >= oldest)
            self._done += [each.id for each in old]
            self._dropped += len(old)
