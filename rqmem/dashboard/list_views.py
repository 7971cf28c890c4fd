"""The page with the jobs of one state."""

from __future__ import annotations

from flask import abort, render_template, request

from rqmem.dashboard.blueprint import pages
from rqmem.dashboard.state import state
from rqmem.errors import ConfigError
from rqmem.observe.job_lists import Filter, read_page
from rqmem.observe.model import STATES, JobPage
from rqmem.observe.snapshot import used_queues
from rqmem.store.history import history_reader

_ROWS = 50


@pages.get("/jobs")
def jobs() -> str:
    """Which jobs are in which state?"""
    connection, page = state().connection, _page(_ROWS)
    return render_template(
        "jobs.html",
        page=page,
        states=STATES,
        wanted=_filter(),
        asked={name: value for name, value in request.args.items() if value and name != "cursor"},
        first=not request.args.get("cursor"),
        queues=sorted(used_queues(connection)),
        types=sorted(history_reader.types(connection)),
    )


def _filter() -> Filter:
    return Filter(request.args.get("queue", ""), request.args.get("type", ""), request.args.get("error", ""))


def _page(rows: int) -> JobPage:
    wanted = request.args.get("state") or "failed"
    named = next((each for each in STATES if each == wanted), None)
    if named is None:
        abort(404, f"There is no state {wanted!r}: {', '.join(STATES)}.")
    try:
        return read_page(state().connection, named, _filter(), cursor=request.args.get("cursor", ""), limit=rows)
    except ConfigError as error:
        abort(400, str(error))
