"""The page of one job."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from flask import render_template

from rqmem.dashboard.blueprint import pages
from rqmem.dashboard.state import state
from rqmem.observe.curve import executions
from rqmem.observe.find import find
from rqmem.observe.job_read import read_case
from rqmem.observe.next_step import outlook
from rqmem.observe.timeline import lines

if TYPE_CHECKING:
    from rqmem.observe.job import Case

_MOST_LINES = 200


@pages.get("/jobs/<path:job_id>")
def job(job_id: str) -> str:
    """What happened to this job?"""
    connection, now = state().connection, time.time()
    case = read_case(connection, find(connection, job_id), now)
    told = lines(case)
    return render_template(
        "job.html",
        case=case,
        outlook=outlook(case),
        mood=_mood(case),
        told=told[-_MOST_LINES:],
        left_out=max(0, len(told) - _MOST_LINES),
        curves=curves(case),
        refresh=2 if case.running else 10 if case.goes_on or case.status in ("queued", "scheduled", "deferred") else 0,
    )


def curves(case: Case) -> list[dict[str, Any]]:
    """Its memory by execution, for a chart: seconds since its beginning, MB."""
    found = []
    for number, points in enumerate(executions(case), 1):
        begin = points[0].at
        found.append(
            {
                "number": number,
                "at": begin,
                "seconds": [round(point.at - begin, 2) for point in points],
                "usage_mb": [round(point.memory_mb, 1) for point in points],
            }
        )
    return found


def _mood(case: Case) -> str:
    if not case.well:
        return "bad"
    return "accent" if case.running else "good" if case.status in ("finished", "") else ""
