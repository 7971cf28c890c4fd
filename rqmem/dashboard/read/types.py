"""Job types in a window of time: what they needed, hour by hour or day by day. Reads; knows nothing of Flask."""

from __future__ import annotations

from typing import Any

from redis import Redis

from rqmem.dashboard.windows import Window
from rqmem.observe.closed_periods import ClosedPeriods
from rqmem.observe.statistics import Ceilings, Peaks, peaks_in
from rqmem.observe.vocabulary import encoded, job_type_head, of_tally
from rqmem.policy import histogram
from rqmem.store.history import history_reader
from rqmem.store.history.history_records import Tally, Told
from rqmem.store.keys import DAY_SECONDS, HOUR_SECONDS
from rqmem.text import timestamp_ms
from rqmem.values import dataclass


@dataclass(frozen=True)
class Step:
    """An hour or a day. ``at``: its beginning, epoch seconds; ``p90_mb``: nine of ten peaks stay within."""

    at: float
    runs: float
    failed: float
    breached: float
    items: float
    p90_mb: float | None
    code_versions: list[str]

    def to_json(self) -> dict[str, Any]:
        """As ``steps`` of ``rqmem report``, with less of each."""
        return {
            "at": timestamp_ms(self.at),
            "runs": round(self.runs),
            "failed": round(self.failed),
            "items": round(self.items),
            "breaches": {"total": round(self.breached)},
            "peak_mb": encoded({"p90": self.p90_mb}, "peak_mb"),
            "code_versions": self.code_versions,
        }


@dataclass(frozen=True)
class TypeRow:
    """A job type in a window.

    Attributes:
        numbers, seconds: its hours or days, counted since 1970, and how long one is.
        by_number: what happened in each that has a run.
        leak: the last `rqmem.events.LeakFound` in it within a month.
    """

    job_type: str
    tally: Tally
    peaks: Peaks
    ceiling_mb: float | None
    numbers: range
    seconds: float
    by_number: dict[int, Tally]
    leak: Told | None = None

    @property
    def by_step(self) -> list[Step]:
        """Each hour or day that has a run."""
        return [_step(number * self.seconds, tally) for number, tally in self.by_number.items()]

    @property
    def steps(self) -> list[float | None]:
        """The 90th percentile of peaks in MB by hour or day; None without a run."""
        tallies = (self.by_number.get(number) for number in self.numbers)
        return [histogram.percentile(tally.peaks, 0.9) if tally is not None else None for tally in tallies]

    def to_json(self, *, steps: bool = True) -> dict[str, Any]:
        """As ``job_types`` of ``rqmem report``; ``steps``: also each hour or day."""
        head = job_type_head(self.job_type, Ceilings(self.ceiling_mb))
        by_step = {"steps": [each.to_json() for each in self.by_step]} if steps else {}
        return {**head, **of_tally(self.tally, self.peaks), **by_step}


def begin_of(window: Window, now: float) -> float:
    """The hour or day that it begins with, in epoch seconds."""
    seconds = DAY_SECONDS if window.by_day else HOUR_SECONDS
    return (now - window.seconds) // seconds * seconds


def read_rows(connection: Redis, closed: ClosedPeriods, window: Window, now: float) -> list[TypeRow]:
    """All job types with a run in the window."""
    history_reader.check_version(connection)
    seconds = DAY_SECONDS if window.by_day else HOUR_SECONDS
    since = begin_of(window, now)
    names = [name for name, at in history_reader.types(connection).items() if at >= since]
    ceilings, leaks = history_reader.last_limits(connection, names), history_reader.last_leaks(connection, names)
    numbers = range(int(since // seconds), int(now // seconds) + 1)
    return [
        TypeRow(
            name, of.total, peaks_in(of.total.peaks), ceilings.get(name), numbers, seconds, of.by_number,
            leaks.get(name),
        )
        for name, of in closed.read(connection, names, since, now, by_day=window.by_day).items()
        if of.total.runs
    ]  # fmt: skip


def _step(at: float, tally: Tally) -> Step:
    p90_mb = histogram.percentile(tally.peaks, 0.9)
    return Step(at, tally.runs, tally.failed, tally.breached, tally.items, p90_mb, sorted(tally.code_versions))
