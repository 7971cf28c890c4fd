"""A Sentry server for tests: takes envelopes over HTTP on a free port, and remembers the events in them."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Sink:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                sink.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def dsn(self) -> str:
        return f"http://key@127.0.0.1:{self._server.server_address[1]}/1"

    def take(self, envelope: bytes) -> None:
        _, _, rest = envelope.partition(b"\n")
        while rest:
            head, _, rest = rest.partition(b"\n")
            item = json.loads(head)
            length = item.get("length", rest.find(b"\n"))
            payload, rest = rest[:length], rest[length:].lstrip(b"\n")
            if item["type"] == "event":
                self.events.append(json.loads(payload))

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("level", "error") in ("error", "fatal")]

    def types(self) -> list[str]:
        """Of the exceptions that arrived, the last of each chain; of other events their message."""
        return [_type(event) for event in self.errors]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _type(event: dict[str, Any]) -> str:
    values = (event.get("exception") or {}).get("values") or []
    if values:
        return str(values[-1]["type"])
    return str((event.get("logentry") or {}).get("message") or event.get("message"))
