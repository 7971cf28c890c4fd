"""A small HTTP server for the metrics alone, in a thread, by prometheus-client."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rqmem.errors import ConfigError
from rqmem.prometheus import collector

if TYPE_CHECKING:
    from redis import Redis


@contextmanager
def serving(connection: Redis, host: str, port: int) -> Iterator[str]:
    """Answer on that address until the end of the block; yields where. ``port`` 0: any that is free.

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
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{http.server_port}/metrics"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use, perhaps by another exporter: give another --port, or 0 for any"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} is not for us: give a --port from 1024 on"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host!r} is no address of this machine: give 127.0.0.1, or 0.0.0.0 for all it has"
    return f"port {port} on {host} cannot be used: {error.strerror or error}"
