"""The page of one job."""

from __future__ import annotations

import time
from typing import Any

from flask import render_template

from rqmem import words
from rqmem.breach_words import evidence
from rqmem.dashboard.blueprint import pages
from rqmem.dashboard.child_rows import read_children
from rqmem.dashboard.flamegraph_views import capture_of
from rqmem.dashboard.lanes import lanes
from rqmem.dashboard.state import state
from rqmem.observe.curve import Curve, executions
from rqmem.observe.find import find
from rqmem.observe.job import Case
from rqmem.observe.job_read import read_case
from rqmem.observe.next_step import in_short
from rqmem.observe.timeline import lines
from rqmem.store.history.history_records import Lines

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
        curves=[_for_chart(each) for each in executions(case)],
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


def _for_chart(curve: Curve) -> dict[str, Any]:
    """Seconds since its beginning, and MB."""
    return {
        "at": curve.began_at,
        "seconds": [round(point.at - curve.began_at, 3) for point in curve.points],
        "usage_mb": [round(point.memory_mb, 1) for point in curve.points],
        "ceiling_mb": curve.ceiling_mb,
        "breached": curve.breached,
    }


def _mood(case: Case) -> str:
    if not case.well:
        return "bad"
    return "accent" if case.running else "good" if case.status in ("finished", "") else ""
