"""The pages, as HTML that is complete without a script. Each answers the question in its heading."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from flask import redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from rqmem.dashboard.blueprint import pages
from rqmem.dashboard.state import state
from rqmem.errors import UnknownName
from rqmem.observe.find import find
from rqmem.observe.problems import Finding, problems
from rqmem.observe.snapshot import read_status
from rqmem.store.history import history_reader

NAVIGATION = [
    ("pages.overview", "Overview"),
    ("pages.live", "Live"),
    ("pages.jobs", "Jobs"),
    ("pages.types", "Job types"),
    ("pages.splitting", "Splitting"),
    ("pages.leaks", "Leaks"),
    ("pages.alerts", "Alerts"),
    ("pages.trends", "Trends"),
    ("pages.queues", "Queues"),
    ("pages.workers", "Workers"),
]
"""Endpoints, and what the menu says."""
_OF_A_KIND = 3


@pages.app_context_processor
def _navigation() -> dict[str, object]:
    return {"navigation": NAVIGATION}


@pages.get("/")
def overview() -> str:
    """Is anything wrong?"""
    snapshot = read_status(state().connection, state().where, time.time())
    near = sorted((each for each in snapshot.alive if each.share is not None), key=lambda each: -(each.share or 0))
    return render_template("overview.html", snapshot=snapshot, problems=mixed(problems(snapshot)), near=near[:8])


def mixed(found: Sequence[Finding]) -> list[Finding]:
    """Problems first, and of each kind a few before many of another: those that are seen at first are of all kinds."""
    seen: Counter[str] = Counter()
    ranked = []
    for each in found:
        ranked.append((each.mark != "problem", seen[each.name] // _OF_A_KIND, each))
        seen[each.name] += 1
    return [each for _, _, each in sorted(ranked, key=lambda ranks: ranks[:2])]  # a stable sort


@pages.get("/live")
def live() -> str:
    """Which worker is near its ceiling?"""
    return render_template("live.html", events=state().options.own_server)


@pages.get("/search")
def search() -> ResponseReturnValue:
    """To the job or the job type that is meant; a list where several are."""
    asked = request.args.get("q", "").strip()
    types = sorted(history_reader.types(state().connection))
    meant = [each for each in types if asked and asked.lower() in each.lower()]
    exact = [each for each in meant if asked in (each, each.rpartition(".")[2])]
    if len(exact or meant) == 1:
        return redirect(url_for("pages.job_type", job_type=(exact or meant)[0]))
    why = ""
    if not meant:
        try:
            return redirect(url_for("pages.job", job_id=find(state().connection, asked)))
        except UnknownName as error:
            why = str(error)
    return render_template("search.html", search_text=asked, types=meant, why=why), 200 if meant else 404
