"""One look at Redis a second for all viewers, and none while nobody looks.

A thread looks as long as somebody has asked within the last `ASKED_SECONDS`. Each look becomes one text of JSON, which
all viewers get. While Redis is away, looks say so and go on. Changes nothing in Redis.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from rqmem.observe.as_json import of_snapshot
from rqmem.observe.model import Snapshot
from rqmem.observe.problems import problems
from rqmem.observe.snapshot import read_snapshot
from rqmem.observe.worker_histories import Histories
from rqmem.store.history import history_reader
from rqmem.store.retrying import described
from rqmem.text import timestamp_ms
from rqmem.values import dataclass

LOOK_SECONDS = 1.0
ASKED_SECONDS = 10.0
MOST_VIEWERS = 48
"""Pages that stay connected: each holds one of our server's 64 threads."""
_PATIENCE_SECONDS = 10.0
_HISTORY_SECONDS = 900
_SENT_SECONDS = 15  # with each look, so that a viewer who missed some has no gap
_CLOCKS_APART_SECONDS = 10  # the clock of a worker may be ahead of ours
_MOST_PROBLEMS = 200  # the overview counts them all
_AGAIN_SECONDS = 5  # a second's sample is written with the next report, and may be of before the last one

_log = logging.getLogger("rqmem.dashboard")


@dataclass(frozen=True)
class Look:
    """What one look saw, as a text of JSON. ``number`` counts from 1."""

    number: int
    text: str


class Hub:
    """The looks of one process. All methods may be called by any thread."""

    def __init__(self, connection: Redis, where: str, clock: Callable[[], float] = time.time) -> None:
        self.name = secrets.token_hex(4)
        """Names this hub: each hub numbers its looks from 1."""
        self.seats = threading.BoundedSemaphore(MOST_VIEWERS)
        self._connection, self._where, self._clock = connection, where, clock
        self._changed = threading.Condition()
        self._looking = False
        self._asked_at = 0.0
        self._newest = Look(0, "")
        self._histories = Histories(_HISTORY_SECONDS)

    def newest(self) -> Look:
        """The newest look; who asks first waits for it."""
        with self._changed:
            newest = self._newest
            if self._ask() and newest.number:
                return newest
        return self.after(newest.number) or _late(self._clock())

    def after(self, number: int) -> Look | None:
        """A look after that one, as soon as there is one; None: there was none for some seconds."""
        until = time.monotonic() + _PATIENCE_SECONDS
        with self._changed:
            self._ask()
            while self._newest.number <= number:
                if not self._changed.wait(until - time.monotonic()):
                    return None
            return self._newest

    def history(self) -> dict[str, Any]:
        """The last 15 minutes of each worker, compact."""
        self.newest()
        with self._changed:
            return self._histories.compact(self._clock())

    def _ask(self) -> bool:
        """Whether looks were being made already; else they begin."""
        self._asked_at = time.monotonic()
        if self._looking:
            return True
        self._looking = True
        threading.Thread(target=self._work, name="rqmem-dashboard-hub", daemon=True).start()
        return False

    def _work(self) -> None:
        while True:
            began = time.monotonic()
            look = self._look(self._newest.number + 1)
            with self._changed:
                self._newest = look
                self._changed.notify_all()
                if time.monotonic() - self._asked_at > ASKED_SECONDS:
                    self._looking = False
                    return
            time.sleep(max(0.05, LOOK_SECONDS - (time.monotonic() - began)))

    def _look(self, number: int) -> Look:
        now = self._clock()
        try:
            snapshot = read_snapshot(self._connection, now, self._where)
            self._remember(snapshot, now)
        except (RedisError, OSError) as error:
            return Look(number, json.dumps({"number": number, "at": timestamp_ms(now), "away": described(error)}))
        except Exception as error:  # noqa: BLE001  somebody else's keys: the next look may be better
            _log.exception("a look at Redis failed")
            return Look(number, json.dumps({"number": number, "at": timestamp_ms(now), "away": repr(error)}))
        samples = self._histories.newest(now, _SENT_SECONDS)
        values = {"number": number, **of_snapshot(snapshot, problems(snapshot)[:_MOST_PROBLEMS]), "samples": samples}
        return Look(number, json.dumps(values, separators=(",", ":")))

    def _remember(self, snapshot: Snapshot, now: float) -> None:
        """Reports may be seconds apart, so each look reads the samples since the last one it knows."""
        names = [] if snapshot.journal_error else [each.name for each in snapshot.workers if each.live is not None]
        known = {name: self._histories.last(name) for name in names}
        since = {name: now - _HISTORY_SECONDS if at is None else at - _AGAIN_SECONDS for name, at in known.items()}
        samples = history_reader.newest_samples(self._connection, since, now + _CLOCKS_APART_SECONDS) if since else {}
        with self._changed:
            for each in snapshot.workers:
                self._histories.add(each, samples.get(each.name, ()))
            self._histories.forget_all_but([each.name for each in snapshot.workers])


def _late(now: float) -> Look:
    return Look(0, json.dumps({"number": 0, "at": timestamp_ms(now), "away": "no look was made in time"}))
