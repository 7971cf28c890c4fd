"""Pages about RQ's own things: queues and workers."""

from __future__ import annotations

import time

from flask import render_template

from rqmem.dashboard.blueprint import pages
from rqmem.dashboard.state import state
from rqmem.observe.problems import problems
from rqmem.observe.snapshot import read_snapshot


@pages.get("/queues")
def queues() -> str:
    """Is each queue being worked on?"""
    snapshot = read_snapshot(state().connection, time.time(), state().where)
    return render_template("queues.html", snapshot=snapshot)


@pages.get("/workers")
def workers() -> str:
    """What does each worker do?"""
    snapshot = read_snapshot(state().connection, time.time(), state().where)
    found = [each for each in problems(snapshot) if each.name == "silent-worker"]
    ordered = sorted(snapshot.workers, key=lambda each: (each.kind != "silent", -(each.share or 0), each.name))
    return render_template("workers.html", snapshot=snapshot, workers=ordered, problems=found)
