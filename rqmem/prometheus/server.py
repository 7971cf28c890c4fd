"""A small HTTP server for the metrics alone, in a thread, by prometheus-client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis

from rqmem import words
from rqmem.errors import ConfigError
from rqmem.prometheus import registry_of


@contextmanager
def serving(connection: Redis, host: str, port: int) -> Iterator[str]:
    """Answer on that address until the end of the block; yields where. ``port`` 0: any that is free.

    Raises:
        ConfigError: the address cannot be used, or as `rqmem.prometheus.collector`.
    """
    registry = registry_of(connection)
    from prometheus_client import start_http_server

    try:
        http, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigError(words.cannot_listen(error, host, port, "exporter")) from None
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{http.server_port}/metrics"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
