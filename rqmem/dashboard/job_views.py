"""The page of one job."""

from __future__ import annotations

import time
from typing import Any

from flask import render_template

from rqmem import words
from rqmem.breach_words import evidence
from rqmem.dashboard.blueprint import pages
from rqmem.dashboard.flamegraph_views import capture_of
from rqmem.dashboard.lanes import lanes
from rqmem.dashboard.read.child_rows import read_children
from rqmem.dashboard.state import state
from rqmem.events import Breach
from rqmem.observe.curve import executions
from rqmem.observe.find import find
from rqmem.observe.job import Case
from rqmem.observe.job_read import read_case
from rqmem.observe.next_step import in_short
from rqmem.observe.timeline import lines
from rqmem.store.history.history_records import Lines, Run

_MOST_LINES = 200


@pages.get("/jobs/<path:job_id>")
def job(job_id: str) -> str:
    """What happened to this job?"""
    connection, now = state().connection, time.time()
    case = read_case(connection, find(connection, job_id), now)
    told = lines(case)
    grew_title, grew = _growth(case)
    children = read_children(connection, case) if case.children is not None else []
    return render_template(
        "job.html",
        case=case,
        grew_title=grew_title,
        grew=grew,
        in_short=in_short(case),
        evidence=evidence,
        capture=capture_of(case.job_id),
        mood=_mood(case),
        told=told[-_MOST_LINES:],
        left_out=max(0, len(told) - _MOST_LINES),
        curves=curves(case),
        children=children,
        lanes=lanes(case, children),
        refresh=2 if case.running else 5 if case.goes_on or case.status in ("queued", "scheduled", "deferred") else 0,
    )


def _growth(case: Case) -> tuple[str, Lines]:
    """The lines where it grew last, and their title."""
    if case.live is not None and case.live.grew:
        return _title(words.where_it_grew(case.live.peak_mb, so_far=True)), case.live.grew
    last = case.breaches[-1:] or case.grown[-1:]
    return (_title(words.where_it_grew(last[0].peak_mb)), tuple(last[0].grew)) if last else ("Where it grew", ())


def _title(text: str) -> str:
    return text[:1].upper() + text[1:]


def curves(case: Case) -> list[dict[str, Any]]:
    """Its memory by execution, for a chart: seconds since its beginning, MB."""
    kept = [run for run in case.runs if len(run.curve_mb) > 1]
    found = [_curve_of(run) for run in kept]
    known_until = max((run.ended_at for run in kept), default=0.0)
    for points in executions(case):
        begin = points[0].at
        if begin >= known_until:
            seconds = [round(point.at - begin, 2) for point in points]
            usage_mb = [round(point.memory_mb, 1) for point in points]
            breached = any(
                begin <= told.at <= points[-1].at + 1 for told in case.told if isinstance(told.event, Breach)
            )
            found.append(_curve(begin, seconds, usage_mb, case.ceiling_mb, breached=breached))
    return found


def _curve_of(run: Run) -> dict[str, Any]:
    """As its worker kept it: the highest reading of each step."""
    seconds = [at for at, _ in run.curve]
    usage_mb = [round(each, 1) for _, each in run.curve]
    return _curve(run.ended_at - run.seconds, seconds, usage_mb, run.limit_mb, breached=bool(run.layer))


def _curve(
    at: float, seconds: list[float], usage_mb: list[float], ceiling_mb: float | None, *, breached: bool
) -> dict[str, Any]:
    return {"at": at, "seconds": seconds, "usage_mb": usage_mb, "ceiling_mb": ceiling_mb, "breached": breached}


def _mood(case: Case) -> str:
    if not case.well:
        return "bad"
    return "accent" if case.running else "good" if case.status in ("finished", "") else ""
