"""``/api/v1/live``, ``/api/v1/history`` and ``/api/v1/events``: what the hub saw, asked for or sent.

A page that is open holds a thread of the server while it gets events. So only our own server, which has 64, sends them,
to at most `MOST_VIEWERS`. Where the dashboard is mounted in another program, pages ask once a second.
"""

from __future__ import annotations

from collections.abc import Iterator

from flask import Blueprint, Response, abort, jsonify, request
from flask.typing import ResponseReturnValue

from rqmem.dashboard.hub import MOST_VIEWERS, Hub
from rqmem.dashboard.state import state

blueprint = Blueprint("live", __name__, url_prefix="/api/v1")


@blueprint.get("/live")
def live() -> ResponseReturnValue:
    """The newest look; 304 where the sender has it."""
    hub = state().hub
    look = hub.newest()
    response = Response(look.text, mimetype="application/json")
    response.set_etag(f"{hub.name}-{look.number}")
    response.headers["Cache-Control"] = "no-cache"
    return response.make_conditional(request)


@blueprint.get("/history")
def history() -> ResponseReturnValue:
    """The memory of each worker in the last 15 minutes, by the second."""
    return jsonify(state().hub.history())


@blueprint.get("/events")
def events() -> ResponseReturnValue:
    """Each look as a server-sent event; 503 where too many listen: then ask `live`."""
    if not state().options.own_server:
        abort(404, "Events are sent by 'rqmem dashboard' only: ask /api/v1/live each second.")
    hub = state().hub
    if not hub.seats.acquire(blocking=False):
        abort(503, f"{MOST_VIEWERS} pages get events already: ask /api/v1/live each second.")
    response = Response(_stream(hub), mimetype="text/event-stream")
    response.headers["X-Accel-Buffering"] = "no"  # nginx would wait for more
    response.call_on_close(hub.seats.release)
    return response


def _stream(hub: Hub) -> Iterator[str]:
    look = hub.newest()
    yield f"data: {look.text}\n\n"
    while True:
        found = hub.after(look.number)
        yield f"data: {found.text}\n\n" if found is not None else ": still here\n\n"
        look = found or look
