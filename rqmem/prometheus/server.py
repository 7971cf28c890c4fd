"""A small HTTP server for the metrics alone, in a thread, by prometheus-client."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from rqmem.errors import ConfigError
from rqmem.prometheus import collector
from rqmem.values import dataclass

if TYPE_CHECKING:
    from threading import Thread
    from wsgiref.simple_server import WSGIServer

    from redis import Redis


@dataclass(frozen=True)
class Server:
    """A server at work."""

    host: str
    http: WSGIServer
    thread: Thread

    @property
    def url(self) -> str:
        """Where the metrics are."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.http.server_port}/metrics"

    def stop(self) -> None:
        """Answer nobody any more."""
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


def serve(connection: Redis, host: str, port: int) -> Server:
    """Begin to answer on that address. ``port`` 0: any that is free.

    Raises:
        ConfigError: the address cannot be used, or as `rqmem.prometheus.collector`.
    """
    ours = collector(connection)
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(ours)
    try:
        http, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigError(_why_not(error, host, port)) from None
    return Server(host, http, thread)


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use, perhaps by another exporter: give another --port, or 0 for any"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} is not for us: give a --port from 1024 on"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host!r} is no address of this machine: give 127.0.0.1, or 0.0.0.0 for all it has"
    return f"port {port} on {host} cannot be used: {error.strerror or error}"
