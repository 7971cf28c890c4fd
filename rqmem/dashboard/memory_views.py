"""Pages about memory over time: splitting, leaks, alerts, trends."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

from flask import render_template, request

from rqmem.dashboard.blueprint import at_once, pages
from rqmem.dashboard.state import state
from rqmem.dashboard.windows import WINDOWS, Window, chosen, read_types
from rqmem.observe.job_read import read_ended_splits, read_splits
from rqmem.observe.period import Period, code_changes, overall, trend, worst_first
from rqmem.observe.period_read import read_trends
from rqmem.observe.snapshot import read_alerts, read_snapshot
from rqmem.store.history import history_reader
from rqmem.text import counted

_MOST_ALERTS = 200
_MOST_TYPES = 25  # in the table of trends, unless all are asked for


@pages.get("/splitting")
def splitting() -> str:
    """Which jobs split, and are they getting done?"""
    connection, now = state().connection, time.time()
    rows = [row for row in read_types(chosen("30d"), now).types if row.tally.jobs_split]
    running, ended = read_splits(connection, now), read_ended_splits(connection)[:50]
    return render_template(
        "splitting.html", running=running, shown=at_once(running), ended=ended, rows=rows, rates=at_once(rows)
    )


@pages.get("/leaks")
def leaks() -> str:
    """Which job type keeps memory?"""
    connection, now = state().connection, time.time()
    window = chosen(request.args.get("window", ""), "7d")
    rows = [row for row in read_types(window, now).types if row.tally.leaks]
    rows.sort(key=lambda row: -(row.tally.leak_mb_per_run or 0))
    shown = at_once(rows)
    last = history_reader.last_leaks(connection, [row.job_type for row in shown])
    return render_template("leaks.html", rows=rows, shown=shown, last=last, window=window, windows=WINDOWS.values())


@pages.get("/alerts")
def alerts() -> str:
    """What was raised, and what is still open?"""
    history_reader.check_version(state().connection)
    found = read_alerts(state().connection)[::-1]
    rule, only_open = request.args.get("rule", ""), request.args.get("open") == "1"
    rows = [each for each in found if rule in ("", each.rule) and (each.open or not only_open)]
    return render_template(
        "alerts.html",
        rows=sorted(rows, key=lambda each: not each.open)[:_MOST_ALERTS],
        count=len(rows),
        open_count=sum(each.open for each in found),
        rules=sorted({each.rule for each in found}),
        rule=rule,
        only_open=only_open,
    )


@pages.get("/trends")
def trends() -> str:
    """Is it getting better or worse?"""
    window, now = chosen(request.args.get("window", ""), "7d"), time.time()
    since = now - window.seconds
    whole = read_trends(state().connection, state().closed, state().where, since, now, halved=True)
    report = replace(whole, types=[each for each in whole.types if each.tally.runs])
    rows = [(each, trend(each, report.period)) for each in worst_first(report.types, report.period)]
    steps: dict[float, list[float]] = {}
    for each in whole.types:
        for at, tally in each.steps:
            sums = steps.setdefault(at, [0.0, 0.0, 0.0, 0.0])
            for place, value in enumerate((tally.runs, tally.failed, tally.breached, tally.items)):
                sums[place] += value
    changed: dict[tuple[float, str], list[str]] = {}
    for each in whole.types:
        for change in code_changes(each.steps):
            changed.setdefault(change, []).append(each.job_type)
    return render_template(
        "trends.html", report=report, rows=rows, steps=sorted(steps.items()), window=window, windows=WINDOWS.values(),
        both=overall(report.types, report.period), starts=starts(report.period), changed=sorted(changed.items()),
        words=_words(window, report.period), shown=at_once(rows, _MOST_TYPES),
    )  # fmt: skip


def _words(window: Window, period: Period) -> str:
    if period.since <= period.asked_since:
        return window.words
    unit = "day" if window.by_day else "hour"  # it is the second half of the window
    return f"last {counted(period.before_seconds // period.step_seconds, unit)}"


def starts(period: Period) -> list[tuple[float, int]]:
    """Hour or day since then -> how many of the workers that live now began in it. They run the code of then."""
    live = (each.live for each in read_snapshot(state().connection, period.until, state().where).alive)
    began = (each.started_at // period.step_seconds * period.step_seconds for each in live if each is not None)
    return sorted(Counter(at for at in began if at > period.asked_since - period.step_seconds).items())
