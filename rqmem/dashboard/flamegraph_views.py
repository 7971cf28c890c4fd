"""The flame graph of a job's profile, where a worker on this host has kept one (``rqmem worker --profile memray``).

memray's HTML has scripts of its own. So it is sent as a file, and a browser that shows it all the same gives it no part
in this site: no cookie, no request, no form.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from flask import Blueprint, Response, abort

from rqmem.dashboard.state import state
from rqmem.errors import RqmemError
from rqmem.policy.kept_captures import Capture
from rqmem.profiling import captures, directory, flamegraph

blueprint = Blueprint("flamegraphs", __name__)

_CSP = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; font-src data:; base-uri 'none'; frame-ancestors 'none'"
)
_drawing = threading.Lock()


@blueprint.get("/jobs/<path:job_id>/flamegraph")
def flame_graph(job_id: str) -> Response:
    """Where the memory of its last run with a profile went. Drawn by memray in a process of its own, one at a time."""
    where, found = state().options.profile_dir, capture_of(job_id)
    if where is None or found is None:
        abort(404, f"There is no profile of job {job_id} on this host: 'rqmem worker --profile memray' makes them.")
    if not _drawing.acquire(blocking=False):
        abort(503, "Another flame graph is being drawn: try again in some seconds.")
    try:
        with tempfile.TemporaryDirectory(prefix="rqmem-flamegraph-") as folder:
            file = Path(folder) / "drawn.html"
            flamegraph.write(captures.path_of(where, found), file)
            response = Response(file.read_bytes(), mimetype="text/html")
    finally:
        _drawing.release()
    response.headers["Content-Security-Policy"] = _CSP
    response.headers.set("Content-Disposition", "attachment", filename=f"{found.job_id}-flamegraph.html")
    return response


def capture_of(job_id: str) -> Capture | None:
    """The last profile of exactly this job, if there is one here that may be read."""
    where = state().options.profile_dir
    if where is None or not where.is_dir():
        return None
    try:
        directory.check(where)
        return captures.find(where, job_id)
    except (OSError, RqmemError):
        return None
