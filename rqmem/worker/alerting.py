"""What of a worker's events and readings is worth an alert, and telling it: in its heart's thread, once a second.

The rules are in `rqmem.policy.alert_rules`. If several workers find the same, one of them reports it.
Promises: `take` and `read` talk to nobody and raise nothing; `flush` raises only while Redis is away or refuses, and
keeps what it could not write, up to a bound; what is beyond it, or can never be written, is counted in ``dropped``.
"""

from __future__ import annotations

import logging
import threading
from collections import deque

from redis import Redis
from redis.exceptions import RedisError

from rqmem import events
from rqmem.config.settings import Config
from rqmem.events import Event
from rqmem.policy.alert_rules import RULES, Condition, JobReading, Levels, judge, of_event
from rqmem.store.alerts.alert_records import Alert, State
from rqmem.store.alerts.alert_writer import raise_alert, resolve_alert
from rqmem.store.history.history_records import Live
from rqmem.store.retrying import unavailable
from rqmem.values import dataclass

_KEPT = 200
_log = logging.getLogger("rqmem.alerts")


@dataclass(frozen=True)
class _Untold:
    """What lasts and was not told, since one like it was told lately; from ``at`` on it may be."""

    finding: Condition
    at: float


class Alerting:
    """The alerts of one worker."""

    def __init__(self, worker: str, config: Config) -> None:
        self.dropped = 0
        self._worker = worker
        self._config = config
        self._cooldown = config.alert_cooldown_seconds
        self._lock = threading.Lock()  # events come from the main thread too
        self._waiting: deque[Alert] = deque()
        self._levels = Levels()
        self._untold: dict[str, _Untold] = {}

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def take(self, event: Event, at: float) -> None:
        """An event of this worker or its horse, and when it happened (epoch seconds)."""
        finding = of_event(event, self._config)
        if finding is not None:
            self._keep(finding, "raised", at)

    def read(self, live: Live, now: float, initial_mb: float | None = None, known_mb: float = 0.0) -> None:
        """What the worker uses now, at least once a second. The others: as in `rqmem.policy.alert_rules.JobReading`."""
        job = live.job
        reading = None
        if job is not None:
            reading = JobReading(
                now, job.job, job.job_id, job.queue, job.started_at, job.usage_mb, job.limit_mb, initial_mb, known_mb
            )
        raised, resolved, self._levels = judge(reading, self._levels, self._config)
        for finding in resolved:
            self._untold.pop(finding.rule, None)
            self._keep(finding, "resolved", now)
        for finding in raised:
            self._keep(finding, "raised", now)
        for untold in [each for each in self._untold.values() if each.at <= now]:
            del self._untold[untold.finding.rule]
            self._keep(untold.finding, "raised", now)

    def flush(self, connection: Redis, now: float) -> None:
        """Tell what there is to tell, and emit an event for each that nobody else has told."""
        refused: list[str] = []
        while self._waiting:
            alert, told = self._waiting[0], None
            try:
                told = self._tell(connection, alert, now)
            except RedisError as error:
                if unavailable(error) is not None:
                    raise
                self._drop()
                refused.append(f"{alert.rule}: {error}")
            self._waiting.popleft()
            if told is not None:
                events.emit(_event(told))
        if refused:
            _log.warning("worker %s: Redis refused %d alerts, first %s", self._worker, len(refused), refused[0])

    def _tell(self, connection: Redis, alert: Alert, now: float) -> Alert | None:
        if alert.state == "resolved":
            return resolve_alert(connection, alert)
        can_end = RULES[alert.rule].can_end
        told = raise_alert(connection, alert, self._cooldown, can_end=can_end)
        if told is None and can_end:
            self._try_later(alert, now)
        return told

    def _try_later(self, alert: Alert, now: float) -> None:
        """It may last longer than the quiet that was kept for another one."""
        for finding in self._levels.open:
            if (finding.rule, finding.job_id) == (alert.rule, alert.job_id):
                self._untold[finding.rule] = _Untold(finding, now + self._cooldown)

    def _keep(self, finding: Condition, state: State, at: float) -> None:
        alert = Alert(
            id="", at=round(at, 3), rule=finding.rule, state=state, job=finding.job, job_id=finding.job_id,
            queue=finding.queue, worker=self._worker, text=finding.text,
        )  # fmt: skip
        with self._lock:
            if len(self._waiting) < _KEPT:
                self._waiting.append(alert)
                return
        self._drop()

    def _drop(self) -> None:
        with self._lock:
            self.dropped += 1


def _event(alert: Alert) -> Event:
    whose = {name: getattr(alert, name) for name in events.WHOSE}
    if alert.state == "resolved":
        return events.AlertResolved(rule=alert.rule, text=alert.text, **whose)
    return events.AlertRaised(rule=alert.rule, text=alert.text, suppressed=alert.suppressed, **whose)
