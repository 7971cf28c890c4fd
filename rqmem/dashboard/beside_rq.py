"""rq-dashboard under ``/rq/``, guarded and mended from outside; nothing of the package is changed.

rq-dashboard 0.9 shows texts of jobs as HTML, takes POSTs without a token, requeues by GET, answers 500 for jobs with
dependencies or unusual results, and reads more rows with each page. Here:

- its pages get a nonce for their scripts, so no other script runs, and its JSON is escaped before it is sent; one
  script that has a queue's name in it as code gets it as a text;
- the CSRF token goes into the cookie whose value its script sends back;
- all views are replaced that read jobs or change something. They deserialise nothing, and each change but compacting
  leaves an entry in ``rqmem.api.actions``.

What it still does itself: counts and shells of pages. Only the tested versions are mounted; with another
one, our own pages go on, and the log says why.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable
from importlib import import_module, resources
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flask import Flask, Response, abort, g, jsonify, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import generate_csrf
from jinja2 import ChoiceLoader, FunctionLoader
from markupsafe import escape
from redis import Redis

from rqmem.acting import MOST_AT_ONCE
from rqmem.dashboard.action_views import actor
from rqmem.dashboard.security import is_loopback
from rqmem.dashboard.state import state
from rqmem.errors import RqmemError
from rqmem.observe.job_lists import Filter, count_matching, each_id
from rqmem.observe.model import STATES, JobRow
from rqmem.observe.rq_jobs import read_jobs
from rqmem.rq_names import Job, Queue, Worker, parse_composite_key
from rqmem.store.scripts import of_each
from rqmem.text import timestamp_ms

TESTED = "0.9."
_SCRIPT = "rq_dashboard/scripts/jobs.js"
_ESCAPES_ITSELF = "rq_dashboard.list_jobs"
_CSP = (
    "default-src 'self'; script-src 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_log = logging.getLogger("rqmem.dashboard")


class _Seen(Worker):
    """A worker that is only looked at."""

    def _set_connection(self, connection: Redis) -> Redis:
        """RQ's raises the time-out of all connections of this process to 415 s, as a worker needs it."""
        return connection


def add_to(app: Flask, connection: Redis, where: str) -> bool:
    """Mount it, unless the installed version is not a tested one; whether it is mounted."""
    if reason := _why_not():
        _log.warning("/rq/ is not there: %s; all other pages are", reason)
        return False
    web = import_module("rq_dashboard.web")
    web.Worker, blueprint = _Seen, web.blueprint  # type: ignore[attr-defined]
    app.jinja_loader = ChoiceLoader([app.jinja_loader, FunctionLoader(_mended_template)])  # type: ignore[list-item]
    app.config["RQ_DASHBOARD_REDIS_URL"] = (where,)  # shown only
    app.redis_conn = connection  # type: ignore[attr-defined]
    app.register_blueprint(blueprint, url_prefix="/rq")
    app.before_request_funcs["rq_dashboard"] = [_begin]  # rq-dashboard's own opens a connection for each request
    app.after_request_funcs.setdefault("rq_dashboard", []).append(_mend)
    app.view_functions.update(
        {
            "rq_dashboard.job_info": _job_info,
            "rq_dashboard.job_view": _job_view,
            "rq_dashboard.list_jobs": _list_jobs,
            "rq_dashboard.list_workers": _list_workers,
            "rq_dashboard.requeue_job_view": _requeue,
            "rq_dashboard.requeue_all": _requeue_all,
            "rq_dashboard.delete_job_view": _delete,
            "rq_dashboard.empty_queue": _empty,
            "rq_dashboard.compact_queue": _compact,
        }
    )
    return True


def _why_not() -> str:
    try:
        found = version("rq-dashboard")
    except PackageNotFoundError:
        return "rq-dashboard is not installed"
    return "" if found.startswith(TESTED) else f"rq-dashboard {found} is installed, and {TESTED}x is tested"


def _mended_template(name: str) -> str | None:
    """The one script that has a queue's name as it is, between quotes, so that the name could end the text."""
    if name != _SCRIPT:
        return None
    source = resources.files("rq_dashboard").joinpath("templates", name).read_text(encoding="utf-8")
    return source.replace("'{{ queue.name }}'", "{{ queue.name|tojson|safe }}")


def _begin() -> None:
    g.nonce = secrets.token_urlsafe(12)
    if (request.view_args or {}).get("instance_number", 0) != 0:
        abort(404, "There is one Redis here.")
    if request.endpoint == "rq_dashboard.requeue_all" and request.method != "POST":
        abort(405, "To requeue jobs is no reading: send POST.")


def _mend(response: Response) -> Response:
    if response.is_json and request.endpoint != _ESCAPES_ITSELF and response.status_code == 200:
        response.set_data(json.dumps(_escaped(json.loads(response.get_data()))))
    if response.mimetype == "text/html" and not response.direct_passthrough:
        nonce = g.get("nonce", "")
        response.set_data(response.get_data().replace(b"<script", f'<script nonce="{nonce}"'.encode()))
        response.headers["Content-Security-Policy"] = _CSP.format(nonce=nonce)
        response.set_cookie("_csrf_token", generate_csrf(), samesite="Strict", secure=not is_loopback(request.host))
    return response


def _escaped(value: Any) -> Any:
    """All texts in it as HTML shows them."""
    if isinstance(value, str):
        return str(escape(value))
    if isinstance(value, list):
        return [_escaped(each) for each in value]
    return {name: _escaped(each) for name, each in value.items()} if isinstance(value, dict) else value


# The views that are replaced


def _job_view(instance_number: int, job_id: str) -> ResponseReturnValue:
    row = _row(job_id)
    return render_template(
        "rq_dashboard/job.html", current_instance=instance_number, instance_list=[state().where], id=row.job_id,
        rq_url_prefix=url_for("rq_dashboard.queues_overview"), rq_dashboard_version=version("rq-dashboard"),
        rq_version=version("rq"), deprecation_options_usage=False, enable_delete=True,
    )  # fmt: skip


def _job_info(instance_number: int, job_id: str) -> ResponseReturnValue:
    row = _row(job_id)
    shown = {**_shown(row), "enqueued_at": timestamp_ms(row.enqueued_at), "origin": row.queue, "status": row.status}
    there = read_jobs(state().connection, row.waits_for, errors=False)
    return jsonify(
        {
            **shown,
            "result": "(not shown: it would have to be unpickled)",
            "metadata": "{}",
            "depends_on": list(row.waits_for),
            "depends_on_status": ["expired" if each is None else "active" for each in there],
        }
    )


def _row(job_id: str) -> JobRow:
    [row] = read_jobs(state().connection, [job_id])
    if row is None:
        abort(404, f"RQ knows no job {job_id!r}: it never was here, or its time to live is over.")
    return row


def _shown(row: JobRow) -> dict[str, Any]:
    call = row.job_type if state().options.hide_arguments else row.call
    begun, ended = timestamp_ms(row.started_at), timestamp_ms(row.ended_at)
    created_at = timestamp_ms(row.enqueued_at)
    return {"id": row.job_id, "created_at": created_at, "started_at": begun, "ended_at": ended,
            "exc_info": row.error or None, "description": call}  # fmt: skip


def _list_jobs(
    instance_number: int, queue_name: str, registry_name: str, per_page: str, order: str, page: str
) -> ResponseReturnValue:
    if registry_name not in STATES or not (per_page.isdecimal() and page.isdecimal() and int(page) and int(per_page)):
        abort(404, f"There is no list {registry_name!r}, or no such page of it.")
    number, count = int(page), min(int(per_page), 200)
    queue, connection = Queue(queue_name, connection=state().connection), state().connection
    first, last = (number - 1) * count, number * count - 1
    if registry_name == "queued":
        total = connection.llen(queue.key)
        newest_first = order == "dsc"
        found: Any = connection.lrange(queue.key, *((-1 - last, -1 - first) if newest_first else (first, last)))
        found = found[::-1] if newest_first else found
    else:
        key = getattr(queue, f"{registry_name}_job_registry").key
        total = connection.zcard(key)
        found = connection.zrange(key, first, last, desc=order == "dsc")
    ids = [parse_composite_key(each.decode())[0] if registry_name == "started" else each.decode() for each in found]
    rows = [row for row in read_jobs(connection, ids) if row is not None]
    pages = max(1, -(-int(total) // count))

    def link(to: int) -> dict[str, Any]:
        url = url_for("rq_dashboard.jobs_overview", instance_number=0, queue_name=queue_name, order=order, page=to,
                      registry_name=registry_name, per_page=count)  # fmt: skip
        return {"number": to, "url": url}

    begin = max(1, min(number - 5, pages - 9))
    pagination = {
        "current_page": number, "num_pages": pages, "first_page": link(1), "last_page": link(pages),
        "pages_in_window": [link(each) for each in range(begin, min(begin + 9, pages) + 1)],
        **({"prev_page": link(number - 1)} if number > 1 else {}),
        **({"next_page": link(number + 1)} if number < pages else {}),
    }  # fmt: skip
    return jsonify(name=queue_name, registry_name=registry_name, jobs=list(map(_shown, rows)), pagination=pagination)


def _list_workers(instance_number: int) -> ResponseReturnValue:
    workers = _Seen.all(connection=state().connection)
    ids = [worker.get_current_job_id() for worker in workers]
    rows = iter(read_jobs(state().connection, [each for each in ids if each], errors=False))
    found = []
    for worker, job_id in zip(workers, ids, strict=True):
        row = next(rows) if job_id else None
        call = "" if row is None else _shown(row)["description"]
        found.append(
            {
                "name": worker.name,
                "pid": worker.pid,
                "queues": worker.queue_names(),
                "state": str(worker.get_state()),
                "current_job": "idle" if row is None else {**_shown(row), "job_id": job_id, "call_string": call},
                "last_heartbeat": worker.last_heartbeat,
                "birth_date": worker.birth_date,
                "successful_job_count": worker.successful_job_count,
                "failed_job_count": worker.failed_job_count,
                "total_working_time": worker.total_working_time,
                "version": getattr(worker, "version", ""),
                "python_version": getattr(worker, "python_version", ""),
            }
        )
    found.sort(key=lambda each: (each["state"], each["queues"], each["name"]))
    return jsonify(workers=found)


def _requeue(job_id: str) -> ResponseReturnValue:
    return _done(lambda: actor().retry(job_id))


def _requeue_all(queue_name: str) -> ResponseReturnValue:
    wanted = Filter(queue=queue_name)
    done = actor().retry_matching(wanted, count_matching(state().connection, "failed", wanted))
    return jsonify(status="OK", count=done.count)


def _delete(job_id: str) -> ResponseReturnValue:
    return _done(lambda: actor().delete(job_id))


def _empty(queue_name: str, registry_name: str) -> ResponseReturnValue:
    named = next((each for each in STATES if each == registry_name), None)
    if named is None:
        abort(404, f"There is no list {registry_name!r}.")
    return jsonify(status="OK", count=actor().delete_all(named, queue_name).count)


def _compact(queue_name: str) -> ResponseReturnValue:
    """Remove the ids of jobs that are gone. RQ's own renames the queue while it works: a crash would lose it."""
    connection = state().connection
    key, ids = Queue(queue_name, connection=connection).key, list(each_id(connection, "queued", Filter(queue_name)))
    there = of_each(connection, Redis.exists, map(Job.key_for, ids))
    gone = [job_id for job_id, known in zip(ids, there, strict=True) if not known][:MOST_AT_ONCE]
    of_each(connection, lambda pipeline, job_id: pipeline.lrem(key, 0, job_id), gone)
    return jsonify(status="OK", count=len(gone))


def _done(action: Callable[[], Any]) -> ResponseReturnValue:
    try:
        action()
    except RqmemError as error:
        return jsonify(status="ERROR", error=str(error)), 409
    return jsonify(status="OK")
