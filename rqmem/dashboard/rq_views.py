"""Pages about RQ's own things: jobs by state, queues and workers."""

from __future__ import annotations

import time
from typing import cast

from flask import render_template, request

from rqmem.dashboard.action_views import filter_of
from rqmem.dashboard.blueprint import at_once, pages
from rqmem.dashboard.state import state
from rqmem.observe.job_lists import read_page
from rqmem.observe.model import STATES, State
from rqmem.observe.problems import problems
from rqmem.observe.snapshot import read_snapshot, used_queues
from rqmem.store.history import history_reader

_ROWS = 50


@pages.get("/jobs")
def jobs() -> str:
    """Which jobs are in which state?"""
    connection, asked, wanted = state().connection, request.args, filter_of(request.args)
    named = cast("State", asked.get("state") or "failed")
    return render_template(
        "jobs.html",
        page=read_page(connection, named, wanted, cursor=asked.get("cursor", ""), limit=_ROWS),
        states=STATES,
        wanted=wanted,
        asked={name: value for name, value in asked.items() if value and name != "cursor"},
        first=not asked.get("cursor"),
        queues=sorted(used_queues(connection)),
        types=sorted(history_reader.types(connection)),
    )


@pages.get("/queues")
def queues() -> str:
    """Is each queue being worked on?"""
    snapshot = read_snapshot(state().connection, time.time(), state().where)
    unserved = {each.name for each in snapshot.queues if each.queued and not snapshot.serving(each.name)}
    ordered = sorted(
        snapshot.queues, key=lambda each: (each.name not in unserved, not (each.queued or each.started), each.name)
    )
    return render_template("queues.html", snapshot=snapshot, queues=at_once(ordered), unserved=len(unserved))


@pages.get("/workers")
def workers() -> str:
    """What does each worker do?"""
    snapshot = read_snapshot(state().connection, time.time(), state().where)
    found = [each for each in problems(snapshot) if each.name == "silent-worker"]
    ordered = sorted(snapshot.workers, key=lambda each: (each.kind != "silent", -(each.share or 0), each.name))
    return render_template("workers.html", snapshot=snapshot, workers=at_once(ordered), problems=found)
