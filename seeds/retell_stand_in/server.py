"""The stand-in's HTTP, and how to run it inside a process. What it answers is `service`'s.

On ``http.server`` and not Flask: measured with retell-sdk on one connection, Flask takes 0.95 ms a
request and this 0.4 ms. It binds the loopback interface only.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from seeds.retell_stand_in.answers import Answer, error_answer, json_answer
from seeds.retell_stand_in.faults import Faults
from seeds.retell_stand_in.service import IDEMPOTENCY_SECONDS, RetellService

DEFAULT_KEY = "key_stand_in"


class StandIn:
    """The server, run in threads of this process: ``with StandIn() as stand_in: stand_in.url``.

    ``service`` is what answers: its record, calls and faults can be used without HTTP. After `stop`
    no connection is left open; started again it keeps its port and its memory.
    """

    def __init__(
        self,
        api_key: str = DEFAULT_KEY,
        *,
        port: int = 0,
        faults: Faults | None = None,
        idempotency_seconds: float = IDEMPOTENCY_SECONDS,
    ) -> None:
        self.api_key = api_key
        self.service = RetellService(api_key, faults, idempotency_seconds)
        self._port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """What ``RETELL_BASE_URL`` must be. With port 0 it is known once started."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> StandIn:
        """Listen. Raises OSError when the port is taken."""
        self._server = _Server(self._port, self.service)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="retell-stand-in", daemon=True
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop listening and close every connection; a slow answer is not waited for."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server = self._thread = None

    def __enter__(self) -> StandIn:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    """A thread per connection; knows its connections, so that it can end them."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, service: RetellService) -> None:
        self.service = service
        self.stopping = threading.Event()
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Also end the connections that clients keep alive: else they would still be served."""
        self.stopping.set()
        super().server_close()
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended by itself

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away (perhaps killed on purpose) is not an error of the server."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """HTTP alone: reads requests, lets the service decide, writes answers."""

    server: _Server
    protocol_version = "HTTP/1.1"  # keep-alive
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the client's delayed ACK
    wbufsize = -1  # headers and body leave in one packet
    error_content_type = "application/json"
    error_message_format = '{"status": "error", "message": "%(message)s"}'

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length)
        if len(body) == length:  # else the client went away
            authorization = self.headers.get("Authorization", "")
            self._send(self.server.service.post(self._path(), authorization, body, time.time()))

    def do_GET(self) -> None:
        service, path = self.server.service, self._path()
        if not service.authorized(self.headers.get("Authorization", "")):
            self._send(error_answer(401, "API key is missing or invalid."))
        elif path == "/get-concurrency":
            self._send(service.concurrency())
        elif path == "/_record":
            self._send(json_answer(200, service.record()))
        elif path == "/_record/calls":
            self._send(Answer(200, "".join(f"{call.as_json()}\n" for call in service.calls()).encode()))
        else:
            self._send(error_answer(404, f"Cannot GET {path}"))

    def _path(self) -> str:
        return self.path.partition("?")[0]

    def _send(self, answer: Answer) -> None:
        if answer.delay:
            self.server.stopping.wait(answer.delay)
        if answer.drop:
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the record says what was received."""
