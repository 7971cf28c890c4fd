"""Pages about job types: all of them, and one."""

from __future__ import annotations

import time
from collections.abc import Callable

from flask import abort, render_template, request
from markupsafe import Markup

from rqmem.config.settings import Config
from rqmem.dashboard.blueprint import at_once, pages
from rqmem.dashboard.drawing import histogram
from rqmem.dashboard.state import state
from rqmem.dashboard.windows import OUTCOMES, WINDOWS, chosen, read_types
from rqmem.observe.advice_to_paste import to_class
from rqmem.observe.period import TypeReport, code_changes
from rqmem.observe.period_read import read_advice
from rqmem.observe.statistics import peaks_in
from rqmem.policy import histogram as histograms
from rqmem.policy.recommendation import Recommendation
from rqmem.store.history import history_reader
from rqmem.store.history.history_records import Tally
from rqmem.store.keys import DAY_SECONDS

_SORTED_BY: dict[str, Callable[[TypeReport], float]] = {
    "runs": lambda row: -row.tally.runs,
    "failed": lambda row: -row.tally.failed,
    "breaches": lambda row: -row.tally.breached,
    "peak": lambda row: -(row.peaks.highest_mb or 0),
    "name": lambda row: 0,
}
_BARS = 32
_MOST_RUNS = 100
_READING_SECONDS = 0.03  # of a processor: a third of what a page may take


@pages.get("/types")
def types() -> str:
    """What does each job type need?"""
    now, until = time.time(), time.thread_time() + _READING_SECONDS
    window, by = chosen(request.args.get("window", "")), request.args.get("sort", "")
    by = by if by in _SORTED_BY else "runs"
    named, outcome = request.args.get("type", ""), request.args.get("outcome", "")
    found = read_types(window, now, named, outcome if outcome in OUTCOMES else "")
    every = sorted(found.types, key=lambda row: (_SORTED_BY[by](row), row.job_type))
    rows = at_once(every)
    advised = state().advised.ceilings(state().connection, [row.job_type for row in rows], now, until)
    return render_template(
        "types.html", rows=rows, every=every, period=found.period, window=window, windows=WINDOWS.values(), by=by,
        advised=advised, named=named, outcome=outcome, outcomes=list(OUTCOMES)[1:],
    )  # fmt: skip


@pages.get("/types/<path:job_type>")
def job_type(job_type: str) -> str:
    """What does this job type need?"""
    connection, now = state().connection, time.time()
    history_reader.check_version(connection)
    if job_type not in history_reader.types(connection):
        abort(404, f"Nothing is remembered of a job type {job_type!r}.")
    days = history_reader.tallies(connection, job_type, now - 30 * DAY_SECONDS, now, by_day=True)
    total = Tally.total(each for _, each in days)
    advice = read_advice(connection, state().where, Config.warning_threshold, now, job_type)
    found = advice.jobs[0].found if advice.jobs else None
    recommended = found if isinstance(found, Recommendation) else None
    runs = history_reader.runs(connection, job_type)
    ceiling_mb = next((run.limit_mb for run in runs if run.limit_mb), None)
    bars = bars_of(total.peaks)
    return render_template(
        "job_type.html",
        job_type=job_type,
        tally=total,
        peaks=peaks_in(total.peaks),
        recommended=recommended,
        found=found,
        pasted=to_class(advice) if recommended else "",
        runs=runs[:_MOST_RUNS],
        ceiling_mb=ceiling_mb,
        bars=bars,
        picture=_picture(bars, ceiling_mb, recommended),
        days=[(at, each.runs, peaks_in(each.peaks), each.breached, sorted(each.code_versions)) for at, each in days],
        changed=code_changes(days),
        grown=history_reader.grown(connection, job_type, now)[:5],
    )


def bars_of(peaks: dict[int, float]) -> list[tuple[float, float, float]]:
    """A histogram of MB with at most `_BARS` bars: from, to, and how many runs. A bar is some buckets of the tally."""
    if not peaks:
        return []
    low, high = min(peaks), max(peaks)
    step = -(-(high - low + 1) // _BARS)
    bars = []
    for first in range(low, high + 1, step):
        count = sum(peaks.get(number, 0.0) for number in range(first, first + step))
        bars.append((histograms.upper_end(first - 1), histograms.upper_end(first + step - 1), count))
    return bars


def _picture(
    bars: list[tuple[float, float, float]], ceiling_mb: float | None, recommended: Recommendation | None
) -> Markup:
    marks = [("ceiling", ceiling_mb, f"ceiling {ceiling_mb:,.0f} MB")] if ceiling_mb else []
    if recommended is not None:
        marks.append(("advised", float(recommended.ceiling_mb), f"recommended {recommended.ceiling_mb:,} MB"))
    return histogram(bars, marks, "MB", "How many runs had which peak; the table below has the numbers")
