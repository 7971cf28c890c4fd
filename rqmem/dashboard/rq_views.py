"""Pages about RQ's own things: queues and workers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flask import render_template

from rqmem.dashboard import csv_table
from rqmem.dashboard.blueprint import pages
from rqmem.dashboard.state import state
from rqmem.observe.problems import problems
from rqmem.observe.snapshot import read_snapshot

if TYPE_CHECKING:
    from flask import Response


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


@pages.get("/workers.csv")
def workers_csv() -> Response:
    """The same as CSV."""
    columns = ["name", "host", "pid", "kind", "state", "queues", "job_id", "usage_mb", "ceiling_mb", "own_memory_mb",
               "jobs", "breaches", "recycled", "started_at"]  # fmt: skip
    found = [each.to_json() for each in read_snapshot(state().connection, time.time()).workers]
    rows = [[" ".join(each[name]) if name == "queues" else each[name] for name in columns] for each in found]
    return csv_table.answer("workers", columns, rows)
