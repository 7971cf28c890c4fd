"""Report and advice, read from the journal. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from redis import Redis

from rqmem._version import __version__
from rqmem.observe.accounts import Tenant, ranked
from rqmem.observe.advice import Advice, AdviceReport
from rqmem.observe.closed_periods import ClosedPeriods
from rqmem.observe.period import Period, PeriodReport, TypeReport, by_runs, halves, ordered
from rqmem.observe.statistics import Ceilings, peaks_in
from rqmem.policy.recommendation import recommend
from rqmem.store.history import history_reader
from rqmem.store.history.kept_types import OTHERS
from rqmem.store.history.learned import past
from rqmem.store.keys import DAY_SECONDS, DAYS_KEPT, HOUR_SECONDS, HOURS_KEPT


def period_of(since: float, now: float, known_since: float | None) -> Period:
    """The time from ``since`` until ``now`` as the journal can tell of it, which begins at ``known_since``."""
    by_hour = now - _beginning(since, HOUR_SECONDS) <= HOURS_KEPT * HOUR_SECONDS
    step, kept = (HOUR_SECONDS, HOURS_KEPT) if by_hour else (DAY_SECONDS, DAYS_KEPT)
    begin = _beginning(max(since, now - DAYS_KEPT * DAY_SECONDS), step)
    before: float | None = begin - max(1, int((now - begin) // step)) * step
    if known_since is None or before is None or before < known_since or before < now - (kept + 1) * step:
        before = None
    return Period(since, begin, now, step, before, known_since)


def read_report(
    connection: Redis,
    where: str,
    since: float,
    now: float,
    job: str | None = None,
    *,
    warning_fraction: float | None = None,
) -> PeriodReport:
    """What happened since then; only to ``job``, where that is given. ``warning_fraction``: as in `read_ceilings`."""
    report = read_trends(connection, ClosedPeriods(), where, since, now)
    found = []
    for each in report.types:
        if job in (None, each.job_type):
            known = read_ceilings(connection, [each.job_type], warning_fraction, now)
            exact = by_runs(each, history_reader.runs(connection, each.job_type), report.period.since)
            found.append(replace(exact, ceilings=known.get(each.job_type, Ceilings())))
    quiet = [name for name in report.quiet if job in (None, name)]
    return replace(report, job=job, types=ordered(found), quiet=quiet, tenants=report.tenants if job is None else ())


def read_tenants(connection: Redis, since: float, now: float, *, by_day: bool | None = None) -> list[Tenant]:
    """Those who used most first, since then: by the hour for up to two days, else by the day."""
    return ranked(history_reader.tenants(connection, since, now, by_day=by_day))


def read_trends(
    connection: Redis, closed: ClosedPeriods, where: str, since: float, now: float, *,
    compared: bool = True, halved: bool = False,
) -> PeriodReport:  # fmt: skip
    """As `read_report`, of all job types, by tallies alone: peaks up to 5 % too high, and quick for a page.

    Args:
        compared: read the time before too.
        halved: where the journal has no time before, its figures are those of the second half, and the first half is
            the time before. The steps are of both, also of a job type that ran only in the first half.
    """
    history_reader.check_version(connection)
    types = history_reader.types(connection)
    begun = history_reader.begun(connection, types).values()
    known_since = _beginning(min(begun), HOUR_SECONDS) if begun else None
    period = period_of(since, now, known_since)
    whole, period = period, halves(period) if halved else period
    by_day, step = period.step_seconds == DAY_SECONDS, period.step_seconds
    found = closed.read(connection, types, period.since, now, by_day=by_day)
    begin = period.before_since
    before = {}
    if compared and begin is not None:
        before = closed.read(connection, types, begin, now, by_day=by_day, until=period.since - 1)
    earlier = before if period is not whole else {}
    ceilings = read_ceilings(connection, types, None, now)
    reports = [
        TypeReport(
            name,
            "tallies",
            of.total,
            peaks_in(of.total.peaks),
            ceilings.get(name, Ceilings()),
            steps=[
                (number * step, tally)
                for by_number in (earlier[name].by_number if earlier else {}, of.by_number)
                for number, tally in by_number.items()
            ],
            before=before[name].total if name in before else None,
        )
        for name, of in found.items()
        if of.by_number or (earlier and earlier[name].by_number)
    ]
    quiet = sorted(types.keys() - {each.job_type for each in reports}, key=lambda name: (-types[name], name))
    tenants = read_tenants(connection, period.since, now, by_day=by_day)
    return PeriodReport(__version__, where, None, period, ordered(reports), quiet, tenants)


def read_advice(
    connection: Redis, where: str, warning_fraction: float, now: float, job: str | None = None
) -> AdviceReport:
    """What is advised for all job types, or for ``job``. ``warning_fraction``: MEMORY_WARNING_THRESHOLD."""
    types = history_reader.types(connection)
    names = sorted(name for name in types if job in (None, name) and name != OTHERS)
    known = history_reader.first_seen(connection, names, now)
    jobs = [_advice(connection, name, types[name], warning_fraction, now, known.get(name, now)) for name in names]
    return AdviceReport(__version__, where, now, job, jobs)


def read_ceilings(
    connection: Redis, job_types: Iterable[str], warning_fraction: float | None, now: float
) -> dict[str, Ceilings]:
    """The ceilings of these job types, as far as they are remembered.

    ``warning_fraction``: as in `read_advice`, whose figures these are. It reads 30 days of history for each job type.
    None: only the ceiling of the last run is read.
    """
    if warning_fraction is None:
        return {name: Ceilings(mb) for name, mb in history_reader.last_limits(connection, job_types).items()}
    return {name: _advice(connection, name, now, warning_fraction, now, now).ceilings for name in job_types}


def _advice(
    connection: Redis, job_type: str, last_run_at: float, warning_fraction: float, now: float, known_since: float
) -> Advice:
    known = past(connection, job_type, now, known_since)
    return Advice(job_type, known, last_run_at, recommend(known, warning_fraction))


def _beginning(at: float, step_seconds: float) -> float:
    return at // step_seconds * step_seconds
