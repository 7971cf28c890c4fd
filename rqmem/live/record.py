"""What a series of readings adds up to: workers, steps, alerts, rates, and how long Redis was away. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence

from rqmem.live.crossings import Crossing
from rqmem.live.steps import MonitorStep, MonitorSteps
from rqmem.live.system import System
from rqmem.live.workers import Workers
from rqmem.observe.model import Snapshot
from rqmem.observe.snapshot import Before
from rqmem.store.alerts.alert_records import Alert
from rqmem.values import dataclass

RECENT_ALERTS = 5
KEPT_ALERTS = 1000
RATE_SECONDS = 60.0


@dataclass(frozen=True)
class News:
    """What is new by a look: alerts, and crossings that began."""

    alerts: Sequence[Alert] = ()
    crossings: tuple[Crossing, ...] = ()


class Record:
    """What a run of the monitor has seen since its first look.

    Attributes:
        started_at: of the first look, epoch seconds.
        look, system: the last ones.
        recent: the last alerts, those told before the run included, oldest first.
        alerts: raised since the first look, the last `KEPT_ALERTS` of them.
        alerts_by_job: how many, by job type.
        away_since: Redis is away since then, epoch seconds.
    """

    def __init__(self, first: Snapshot, system: System, *, step_seconds: float, threshold_percentage: float) -> None:
        self.started_at = first.at
        self.threshold_percentage = threshold_percentage
        self.look, self.system = first, system
        self.workers = Workers(threshold_percentage)
        self.steps = MonitorSteps(first.at, step_seconds)
        self.recent: deque[Alert] = deque(first.alerts, maxlen=RECENT_ALERTS)
        self.alerts: deque[Alert] = deque(maxlen=KEPT_ALERTS)
        self.alerts_by_job: Counter[str] = Counter()
        self.away_since: float | None = None
        self._away_seconds = 0.0
        self._ended: deque[tuple[float, int]] = deque([(first.at, 0)])
        self.news = self._see(first, first_look=True)

    @property
    def before(self) -> Before:
        """What the next look need not tell again."""
        return Before(self.look.last_alert, self.workers.sampled)

    @property
    def alerts_raised(self) -> int:
        return sum(self.alerts_by_job.values())

    @property
    def ended_per_minute(self) -> float | None:
        """Jobs that ended, over the last minute or since the beginning; None: too early to say."""
        (first_at, first), (last_at, last) = self._ended[0], self._ended[-1]
        return 60 * (last - first) / (last_at - first_at) if last_at > first_at else None

    def add(self, look: Snapshot, system: System) -> News:
        """What a look saw; what is new by it."""
        self._away_seconds, self.away_since = self.away_seconds(look.at), None
        self.look, self.system = look, system
        self._take(look.alerts)
        self.news = self._see(look)
        return self.news

    def away(self, now: float, system: System) -> None:
        """Redis was asked ``now`` and did not answer."""
        self.system = system
        if self.away_since is None:
            self.away_since = now

    def away_seconds(self, now: float) -> float:
        """How long Redis was away until ``now``, all in all."""
        return self._away_seconds + (max(0.0, now - self.away_since) if self.away_since is not None else 0.0)

    def _see(self, look: Snapshot, *, first_look: bool = False) -> News:
        seen = {worker.name: self.workers.add(worker, look.at, first_look=first_look) for worker in look.workers}
        self.workers.forget_all_but(seen)
        ended = sum(each.ended for each in seen.values())
        self._ended.append((look.at, self._ended[-1][1] + ended))
        while len(self._ended) > 2 and self._ended[1][0] <= look.at - RATE_SECONDS:
            self._ended.popleft()
        moments = {name: each.step for name, each in seen.items() if each.step is not None}
        self.steps.add(look.at, MonitorStep(look.at, self.system, moments, look.queues, ended, look.pools))
        return News(
            () if first_look else look.alerts,
            tuple(each.crossing for each in seen.values() if each.crossing is not None),
        )

    def _take(self, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            self.recent.append(alert)
            if alert.state == "raised":
                self.alerts.append(alert)
                self.alerts_by_job[alert.job] += 1
