"""A chat or mail service for tests: takes what Apprise sends to ``json://127.0.0.1:PORT/…``, on a free port."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """Remembers each message. ``answers``: statuses to answer with first, then 200; ``held``: it answers when set."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.answers: list[int] = []
        self.held = threading.Event()
        self.held.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = receiver.answers.pop(0) if receiver.answers else 200
                receiver.messages.append({**message, "status": status, "path": self.path})
                receiver.held.wait(60)
                try:
                    self.send_response(status)
                    self.end_headers()
                except OSError:  # whoever asked is gone
                    pass

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        """As Apprise wants it, with a secret in it."""
        return f"json://user:hunter2@127.0.0.1:{self.port}/path-hunter2?+X-Token=token-hunter2"

    @property
    def taken(self) -> list[dict[str, Any]]:
        """Messages that were answered with 200."""
        return [each for each in self.messages if each["status"] == 200]

    @property
    def texts(self) -> list[str]:
        """Title and body of the messages taken."""
        return [f"{each['title']}\n{each['message']}" for each in self.taken]

    def close(self) -> None:
        self.held.set()
        self._server.shutdown()
        self._server.server_close()
