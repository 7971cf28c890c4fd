"""What happened to job types in a period, and in an equally long one before it. Pure. Times are epoch seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rqmem.observe.accounts import Tenant
from rqmem.observe.statistics import JobStatistics, peaks_of
from rqmem.store.history.history_records import Run, Tally
from rqmem.text import timestamp
from rqmem.values import dataclass

HOUR_SECONDS = 3600.0
EMPTY = "the journal is empty: 'rqmem worker' writes it while jobs run, unless RQMEM_JOURNAL is off there"


@dataclass(frozen=True)
class Period:
    """The time that a report is about.

    Attributes:
        asked_since: the beginning that was asked for.
        since, until: the journal counts by hours or days, so it begins with one.
        step_seconds: an hour or a day.
        before_since: as long a time before it, in whole steps, begins then; None: the journal does not go back so far.
        known_since: the journal's first hour or day; None: it is empty.
    """

    asked_since: float
    since: float
    until: float
    step_seconds: float
    before_since: float | None
    known_since: float | None

    @property
    def seconds(self) -> float:
        return self.until - self.since

    @property
    def before_seconds(self) -> float:
        return self.since - self.before_since if self.before_since is not None else 0.0


@dataclass(frozen=True)
class Figures:
    """What can be compared between times of different lengths; None: no run, or no items.

    Attributes:
        runs_per_hour: executions that ended.
        failed_share, breached_share: of them.
        p90_mb: nine of ten peaks stay within, up to 5 % too high.
        mb_per_1000_items: memory efficiency.
    """

    runs_per_hour: float
    failed_share: float | None
    breached_share: float | None
    p90_mb: float | None
    mb_per_1000_items: float | None


@dataclass(frozen=True)
class TypeReport(JobStatistics):
    """A job type in a period.

    Attributes:
        steps: beginning of an hour or day -> what happened in it, oldest first; those without a run are left out.
        before: what happened in the time before; None: not known.
    """

    steps: Sequence[tuple[float, Tally]] = ()
    before: Tally | None = None

    def p90s(self, period: Period) -> list[float | None]:
        """The 90th percentile of peaks in MB, for each hour or day of the period; None without a run."""
        known = dict(self.steps)
        count = int((period.until - period.since) // period.step_seconds) + 1
        steps = (known.get(period.since + number * period.step_seconds) for number in range(count))
        return [tally.p90_mb if tally is not None else None for tally in steps]


@dataclass(frozen=True)
class PeriodReport:
    """All of it.

    Attributes:
        redis: which one, without password.
        job: that was asked for; None: all.
        types: those with most breaches, then failures, then runs first.
        tenants: those who used most first.
        quiet: known job types to which nothing happened in the period, latest first.
    """

    rqmem_version: str
    redis: str
    job: str | None
    period: Period
    types: Sequence[TypeReport]
    quiet: Sequence[str] = ()
    tenants: Sequence[Tenant] = ()

    @property
    def tally(self) -> Tally:
        """All job types together."""
        return Tally.total(each.tally for each in self.types)

    @property
    def notes(self) -> list[str]:
        """What the reader should know about the time of the report."""
        period, notes = self.period, []
        if period.known_since is None:
            return [EMPTY]
        if period.since < period.known_since:
            notes.append(f"the journal begins at {timestamp(period.known_since)}: nothing is known of the time before")
        elif period.asked_since < period.since:
            notes.append(f"the journal keeps 30 days: this begins at {timestamp(period.since)}")
        if not self.types:
            before = ": --since 30d shows what did before" if self.quiet else ""
            notes.append(f"no job ended since {timestamp(period.since)}{before}")
        elif period.before_since is None:
            notes.append(f"there is no time before to compare with: the journal has not all of {self._missing()}")
        return notes

    def _missing(self) -> str:
        period = self.period
        unit = "hours" if period.step_seconds == HOUR_SECONDS else "days"
        kept = "2 days of hours" if unit == "hours" else "30 days"
        count = int(period.seconds // period.step_seconds)
        return f"the {f'{count} {unit}' if count != 1 else unit[:-1]} before (it keeps {kept})"


def by_runs(each: TypeReport, runs: Sequence[Run], since: float) -> TypeReport:
    """The job type with exact peaks, if these last runs of it are all that it had since then."""
    within = [run for run in runs if run.ended_at >= since]
    complete = sum(run.times for run in within) == each.tally.runs
    return replace(each, source="runs", peaks=peaks_of(within)) if complete else each


def figures(tally: Tally, seconds: float) -> Figures:
    return Figures(
        runs_per_hour=tally.runs / max(seconds, 1.0) * HOUR_SECONDS,
        failed_share=tally.failed / tally.runs if tally.runs else None,
        breached_share=tally.breached / tally.runs if tally.runs else None,
        p90_mb=tally.p90_mb,
        mb_per_1000_items=tally.mb_per_1000_items,
    )


def trend(each: TypeReport, period: Period) -> tuple[Figures, Figures] | None:
    """The figures of a job type now and before; None where the time before is not known."""
    if each.before is None:
        return None
    return figures(each.tally, period.seconds), figures(each.before, period.before_seconds)


def halves(period: Period) -> Period:
    """Its second half, with the first one as the time before, where the journal has no time before it.

    With less than two steps, or where the journal begins in the first half, it is returned as it is.
    """
    steps = int((period.until - period.since) // period.step_seconds) + 1
    middle = period.since + (steps + 1) // 2 * period.step_seconds
    begun = period.known_since is not None and period.known_since < period.since + period.step_seconds
    if period.before_since is not None or steps < 2 or not begun:
        return period
    return replace(period, since=middle, before_since=period.since)


def worst_first(types: Sequence[TypeReport], period: Period) -> list[TypeReport]:
    """Those that breach more often than before come first, by how much; then as `ordered`."""

    def worse(each: TypeReport) -> float:
        compared = trend(each, period)
        if compared is None:
            return 0.0
        now, before = (figure.breached_share or 0.0 for figure in compared)
        return max(0.0, now - before)

    return sorted(types, key=lambda each: -worse(each))  # a stable sort


def code_changes(steps: Iterable[tuple[float, Tally]]) -> list[tuple[float, str]]:
    """When a job type ran code that it had not run before: beginning of the hour or day, version of the code.

    ``steps``: oldest first. A version that comes back after another one is listed again; the first one is not.
    """
    changes: list[tuple[float, str]] = []
    before: set[str] = set()
    for at, tally in steps:
        now = set(tally.code_versions)
        if before:
            changes += [(at, version) for version in sorted(now - before)]
        before = now or before
    return changes


def overall(types: Sequence[TypeReport], period: Period) -> tuple[Figures, Figures] | None:
    """The figures of all job types together, now and before; None where the time before is not known."""
    if period.before_since is None:
        return None
    before = Tally.total(each.before for each in types if each.before is not None)
    return figures(Tally.total(each.tally for each in types), period.seconds), figures(before, period.before_seconds)


def ordered(types: Sequence[TypeReport]) -> list[TypeReport]:
    """Those with most breaches, then failures, then runs first."""
    return sorted(types, key=lambda each: (-each.tally.breached, -each.tally.failed, -each.tally.runs, each.job_type))
