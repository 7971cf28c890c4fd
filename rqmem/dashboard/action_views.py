"""Actions as pages: each shows what would be done and asks first; a form with its token does it.

Who may act, and the token, is asked in `rqmem.dashboard.security`, before any view.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from flask import Blueprint, abort, current_app, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from rqmem.acting import MOST_AT_ONCE, Actor, CountHasGrown, Done
from rqmem.dashboard.state import state
from rqmem.errors import RqmemError
from rqmem.observe.find import find
from rqmem.observe.job_lists import Filter, count_matching
from rqmem.observe.rq_jobs import read_jobs
from rqmem.text import counted

blueprint = Blueprint("actions", __name__)
_METHODS = ("GET", "POST")
_ON_RETRY = "goes on where it stopped. Of a job that has split, only the children that failed run again."


@blueprint.route("/jobs/<path:job_id>/retry", methods=_METHODS)
def retry(job_id: str) -> ResponseReturnValue:
    """Run a failed job once more."""
    found = find(state().connection, job_id)
    back = url_for("pages.job", job_id=found)
    return _confirmed(lambda: actor().retry(found), f"Retry job {found}?", f"It {_ON_RETRY}", "Retry", back)


@blueprint.route("/jobs/<path:job_id>/cancel", methods=_METHODS)
def cancel(job_id: str) -> ResponseReturnValue:
    """Cancel a job and all its children."""
    found = find(state().connection, job_id)
    text = "It leaves its queue, or is stopped if it runs. So do its children. Those that have ended stay."
    title, back = f"Cancel job {found}?", url_for("pages.job", job_id=found)
    return _confirmed(lambda: actor().cancel(found), title, text, "Cancel the job", back, danger=True)


@blueprint.route("/jobs/retry", methods=_METHODS)
def retry_matching() -> ResponseReturnValue:
    """Run all failed jobs once more that match the filter, whose count is confirmed."""
    wanted, back = filter_of(request.values), _list_of_failed()
    if request.method == "GET":
        count = count_matching(state().connection, "failed", wanted)
        at_once = counted(min(count, MOST_AT_ONCE), "job")
        text = "Each goes on where it stopped."
        if count > MOST_AT_ONCE:
            text += f" The newest {at_once} are retried now, the others when you ask again."
        shown = [(name, value) for name, value in vars(wanted).items() if value]
        hidden = [("queue", wanted.queue), ("type", wanted.job_type), ("error", wanted.error), ("expected", str(count))]
        if not count:
            return _ask(
                "There is no failed job to retry",
                "None fits this filter." if shown else "None has failed.",
                "",
                back,
                shown=shown,
            )
        return _ask(
            f"Retry {counted(count, 'failed job')}?", text, f"Retry {at_once}", back, hidden=hidden, shown=shown
        )
    try:
        return _done(back, lambda: actor().retry_matching(wanted, expected_of(request.form.get("expected", ""))))
    except CountHasGrown as error:
        abort(409, str(error))


@blueprint.route("/jobs/chosen", methods=_METHODS)
def chosen() -> ResponseReturnValue:
    """Retry or cancel the jobs that were ticked in the list."""
    what: Literal["retry", "cancel"] = "cancel" if request.values.get("do") == "cancel" else "retry"
    ids = list(dict.fromkeys(request.values.getlist("id")))[:MOST_AT_ONCE]
    back = url_for("pages.jobs", state=request.values.get("state") or None)
    if request.method == "POST":
        return _done(back, lambda: actor().to_each(what, ids))
    jobs, rows = counted(len(ids), "job"), read_jobs(state().connection, ids, errors=False)
    shown = [(job_id, row.job_type if row else "RQ has forgotten it") for job_id, row in zip(ids, rows, strict=True)]
    hidden = [("do", what), ("state", request.values.get("state", "")), *(("id", each) for each in ids)]
    if not ids:
        return _ask("No job is ticked", "Tick jobs in the list first.", "", back)
    if what == "retry":
        text = f"Each {_ON_RETRY}"
        return _ask(f"Retry {jobs}?", text, f"Retry {jobs}", back, hidden=hidden, shown=shown)
    text = "They leave their queues, or are stopped if they run. So do their children. Those that have ended stay."
    return _ask(f"Cancel {jobs}?", text, f"Cancel {jobs}", back, danger=True, hidden=hidden, shown=shown)


@blueprint.route("/queues/<path:queue>/pause", methods=_METHODS)
def pause(queue: str) -> ResponseReturnValue:
    """Let rqmem's workers take no more jobs from a queue."""
    text = "Jobs that run go on, and jobs can be enqueued. A stock rq worker does not know of it."
    title, back = f"Pause queue {queue}?", url_for("pages.queues")
    return _confirmed(lambda: actor().pause(queue), title, text, "Pause the queue", back)


@blueprint.route("/queues/<path:queue>/resume", methods=_METHODS)
def resume(queue: str) -> ResponseReturnValue:
    """Let them take jobs from it again."""
    text, back = "Workers take jobs from it again.", url_for("pages.queues")
    return _confirmed(lambda: actor().resume(queue), f"Let queue {queue} go on?", text, "Resume the queue", back)


def actor() -> Actor:
    """Who sends this request: the user that the program around us names, else the address."""
    who = request.environ.get("REMOTE_USER") or f"somebody at {request.remote_addr or 'an unknown address'}"
    surface = "api" if request.path.startswith("/api/") else "dashboard"
    return Actor(state().acting, str(who)[:200], surface)  # type: ignore[arg-type]


def filter_of(values: object) -> Filter:
    """The filter in these values of a form or a URL: ``queue``, ``type``, ``error``."""
    get = values.get  # type: ignore[attr-defined]
    return Filter(get("queue", ""), get("type", ""), get("error", ""))


def expected_of(text: str) -> int:
    """The confirmed count; without one, 400."""
    if not text.isdecimal():
        abort(400, "Give the count that you saw as 'expected': nothing was retried.")
    return int(text)


def _list_of_failed() -> str:
    asked: dict[str, Any] = {
        name: request.values[name] for name in ("queue", "type", "error") if request.values.get(name)
    }
    if "pages.jobs" not in current_app.view_functions:
        return url_for("pages.overview")
    return url_for("pages.jobs", state="failed", **asked)


def _ask(title: str, text: str, button: str, back: str, **more: Any) -> str:
    """``more``: ``danger``, and pairs of texts: ``hidden`` in the form, and ``shown``."""
    return render_template("confirm.html", title=title, text=text, button=button, back=back, **more)


def _confirmed(action: Callable[[], Done], title: str, text: str, button: str, back: str, **more: Any) -> Any:
    """Ask first; do it when the form comes back."""
    return _ask(title, text, button, back, **more) if request.method == "GET" else _done(back, action)


def _done(back: str, action: Callable[[], Done]) -> ResponseReturnValue:
    """Do it, and show the page that it was asked from, with what was done or why not."""
    try:
        flash(action().text, "good")
    except CountHasGrown:
        raise
    except RqmemError as error:
        flash(str(error), "bad")
    return redirect(back, 303)
