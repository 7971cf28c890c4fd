"""A mail service for the load test. It takes what Apprise sends to ``json://127.0.0.1:PORT/ADDRESS``."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from werkzeug import Request, Response
from werkzeug.serving import WSGIRequestHandler, make_server


class _Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        pass


@contextmanager
def receiving() -> Iterator[tuple[str, Counter[str]]]:
    """Listens on a free port of the loopback. Yields the value for REMINDER_EMAIL_URL, and messages by address."""
    taken: Counter[str] = Counter()

    @Request.application
    def take(request: Request) -> Response:
        request.get_data()  # a connection that is closed with unread data is reset
        taken[request.path] += 1
        return Response()

    server = make_server("127.0.0.1", 0, take, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"json://127.0.0.1:{server.port}/{{to}}", taken
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
