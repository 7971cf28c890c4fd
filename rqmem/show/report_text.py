"""The report as text for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from rqmem.observe.accounts import tenants_words
from rqmem.observe.metric_words import job_lines, metric_words
from rqmem.observe.period import Figures, Period, PeriodReport, TypeReport, trend
from rqmem.text import duration, listed, printable, timestamp
from rqmem.units import show_mb

_QUIET_SHOWN = 5


def to_text(report: PeriodReport) -> str:
    lines = [headline(report), *(f"note: {note}" for note in report.notes)]
    for each in report.types:
        lines += ["", *job_lines(each), *_more(each, report.period)]
    if len(report.types) > 1:
        lines += ["", f"in all: {', '.join(metric_words(report.tally)) or 'nothing to tell'}"]
    if told := tenants_words(report.tenants):
        lines += ["", told]
    if report.quiet:
        lines += ["", quiet_words(report)]
    return "\n".join(map(printable, lines)) + "\n"


def headline(report: PeriodReport) -> str:
    """Which job types, Redis and period the report is about."""
    period, about = report.period, f" {report.job}" if report.job else ""
    return (
        f"rqmem report{about} on {report.redis}, {duration(period.seconds)} "
        f"from {timestamp(period.since)} to {timestamp(period.until)}"
    )


def quiet_words(report: PeriodReport) -> str:
    """The job types that nothing happened to; the first of them by name."""
    return f"nothing happened meanwhile to {listed(report.quiet, _QUIET_SHOWN)}"


def ceiling_words(each: TypeReport) -> str:
    """The highest peak against the ceiling; empty where one of them is not known."""
    highest = each.peaks.highest_mb
    if each.ceiling_mb is None or highest is None:
        return ""
    return f"the highest is {highest / each.ceiling_mb:.0%} of its ceiling of {show_mb(each.ceiling_mb)} MB"


def trend_words(each: TypeReport, period: Period) -> list[str]:
    """What has changed since the time before; empty where that is not known."""
    compared = trend(each, period)
    if compared is None:
        return []
    now, before = compared
    if not before.runs_per_hour:
        return ["there was none"]
    return [*_changes(now, before)] or ["no run to compare"]


def _more(each: TypeReport, period: Period) -> Iterable[str]:
    if words := [word for word in (ceiling_words(each), *metric_words(each.tally)) if word]:
        yield f"  {', '.join(words)}"
    if changes := trend_words(each, period):
        yield f"  in the {duration(period.before_seconds)} before: {', '.join(changes)}"


def _changes(now: Figures, before: Figures) -> Iterable[str]:
    """What it was before, and by how much it is more now."""
    for name, unit, was, has in (
        ("", "runs an hour", before.runs_per_hour, now.runs_per_hour),
        ("90 % of peaks within ", "MB", before.p90_mb, now.p90_mb),
        ("", "MB per 1,000 items", before.mb_per_1000_items, now.mb_per_1000_items),
    ):
        if was and has:
            yield f"{name}{_number(was)} {unit} (now {_number(has)}{_more_or_less(has / was - 1)})"
    for name, was, has in (
        ("failed", before.failed_share, now.failed_share),
        ("breached", before.breached_share, now.breached_share),
    ):
        if was is not None and has is not None and (was or has):
            yield f"{name} {was:.1%} (now {has:.1%})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}".removesuffix(".0") if value >= 0.1 else f"{value:.2g}"


def _more_or_less(change: float) -> str:
    """Where it says more than the two numbers."""
    return f", {change:+.0%}" if 0.005 <= abs(change) < 1 else ""
