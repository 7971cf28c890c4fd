"""A mail service that takes what Apprise sends to ``json://127.0.0.1:PORT/ADDRESS`` and counts it by address."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """``taken``: messages by address, as the path of the URL has it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.taken: Counter[str] = Counter()

    @property
    def url(self) -> str:
        """For REMINDER_EMAIL_URL."""
        return f"json://127.0.0.1:{self.port}/{{to}}"


@contextmanager
def receiving() -> Iterator[Receiver]:
    """One that listens on a free port of the loopback until the block is left."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            receiver.taken[self.path] += 1
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver = Receiver(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
