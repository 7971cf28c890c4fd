"""Puts the parts together: the Flask application, its state, its errors."""

from __future__ import annotations

from hashlib import sha256
from importlib import import_module
from pathlib import Path

from flask import Flask, current_app, jsonify, render_template, request
from flask.typing import ResponseReturnValue
from redis import Redis
from redis.exceptions import RedisError
from werkzeug.exceptions import HTTPException, NotFound

from rqmem.dashboard import (
    action_views,
    api_views,
    beside_rq,
    compression,
    filters,
    flamegraph_views,
    live_views,
    security,
)
from rqmem.dashboard.blueprint import pages
from rqmem.dashboard.hub import Hub
from rqmem.dashboard.options import Options
from rqmem.dashboard.reading import for_pages
from rqmem.dashboard.state import EXTENSION, DashboardState
from rqmem.errors import JournalVersionError, RqmemError, UnknownName
from rqmem.store import unreadable
from rqmem.store.retrying import described

PAGES = ("overview_views", "job_views", "type_views", "memory_views", "rq_views")
"""Modules that add to the blueprint of all pages."""

_STATIC = Path(__file__).parent / "static"


def build(connection: Redis, where: str, options: Options) -> Flask:
    """The application. Contacts nobody."""
    app = Flask("rqmem.dashboard")
    app.json.sort_keys = False  # type: ignore[attr-defined]
    reading = for_pages(connection)
    app.extensions[EXTENSION] = DashboardState(reading, where, options, Hub(reading, where), acting=connection)
    app.before_request(unreadable.begin)
    security.protect(app, options)
    filters.add_to(app, _versions())
    compression.add_to(app)
    for name in PAGES:
        import_module(f"rqmem.dashboard.{name}")
    for module in (security, live_views, api_views, action_views, flamegraph_views):
        app.register_blueprint(module.blueprint)
    app.register_blueprint(pages)
    if options.with_rq_dashboard:
        beside_rq.add_to(app, connection, where)
    app.context_processor(lambda: {"options": options, "where": where, "unreadable": unreadable.found})
    app.register_error_handler(HTTPException, _refused)
    app.register_error_handler(UnknownName, lambda error: _answer(404, "Not found", str(error)))
    app.register_error_handler(JournalVersionError, lambda error: _answer(503, "Another version", str(error)))
    app.register_error_handler(RqmemError, lambda error: _answer(400, "That cannot be done", str(error)))
    app.register_error_handler(RedisError, _away)
    return app


def _refused(error: HTTPException) -> ResponseReturnValue:
    if error.response is not None:
        return error
    status, headers = error.code or 500, [(k, v) for k, v in error.get_headers() if k != "Content-Type"]
    text = error.description or ""
    if isinstance(error, NotFound) and text == NotFound.description:
        text = f"There is no page {request.path!r} here."
    response = current_app.make_response(_answer(status, error.name.capitalize(), text))
    response.headers.extend(headers)
    return response


def _away(error: Exception) -> ResponseReturnValue:
    """Redis does not answer, or refuses. The page tries again by itself."""
    hint = "This page tries again by itself. The workers wait for Redis too; no job is lost."
    return _answer(503, "Redis does not answer", described(error), hint, retry=True)


def _answer(status: int, title: str, text: str, hint: str = "", *, retry: bool = False) -> ResponseReturnValue:
    if request.path.startswith("/api/"):
        return jsonify(error=f"{title}: {text}" if text else title, hint=hint), status
    return render_template("error.html", title=title, text=text, hint=hint, retry=retry), status


def _versions() -> dict[str, str]:
    """Static file -> a part of the digest of what is in it, so that browsers may keep it for ever."""
    files = [path for path in _STATIC.rglob("*") if path.is_file()]
    return {path.relative_to(_STATIC).as_posix(): sha256(path.read_bytes()).hexdigest()[:12] for path in files}
