"""``rqmem exporter``: Prometheus metrics over HTTP, by `rqmem.prometheus`."""

from __future__ import annotations

import signal
import threading

import click

from rqmem import log
from rqmem.cli.terminal import redis_options, show, to_serve
from rqmem.prometheus.server import serving

_ANSWER_SECONDS = 3.0  # below the 10 s that Prometheus waits for a page


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=9464, help="0: any that is free.")
@click.option("--host", default="127.0.0.1", help="Address to answer on; 0.0.0.0: all.")
@redis_options
def exporter(port: int, host: str, url: str | None) -> None:
    """Serve metrics of queues, workers and job types for Prometheus.

    They are read from Redis at each scrape, so one exporter serves all
    workers on it, and its counters survive a restart. There is no password:
    whoever reaches the port can read names of queues, workers and job types.

    docs/metrics.md lists the metrics; a Grafana dashboard and alert rules are
    next to it. SIGTERM and Ctrl-C end it.
    """
    log.configure("info", "text")
    connection, where = to_serve(url, _ANSWER_SECONDS)
    asked = threading.Event()
    with serving(connection, host, port) as address:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: asked.set())
        show(f"rqmem: metrics of {where} at {address}; Ctrl-C ends it", err=True)
        asked.wait()
