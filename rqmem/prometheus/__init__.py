"""Prometheus metrics of queues, workers and job types, read from Redis when they are scraped.

``rqmem exporter`` serves them; an application that has a web server of its own can mount them there::

    app = DispatcherMiddleware(app, {"/metrics": rqmem.prometheus.wsgi_app(rqmem.connect())})  # werkzeug
    REGISTRY.register(rqmem.prometheus.collector(rqmem.connect()))  # with the application's own metrics

All processes that serve them serve the same figures, so Prometheus asks one. Needs prometheus-client: the extra
``metrics``.
Reading order: `metrics` (what there is) -> `families` (as Prometheus has it) -> `collecting`, `server`.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rqmem.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client.registry import Collector, CollectorRegistry
    from redis import Redis


def collector(connection: Redis) -> Collector:
    """What a `prometheus_client.CollectorRegistry` takes.

    Args:
        connection: to the Redis of the journal; its time-outs bound a scrape. Replies have to be bytes, as for RQ.

    Raises:
        ConfigError: prometheus-client is not there, or the connection decodes its replies.
    """
    if find_spec("prometheus_client") is None:
        raise ConfigError("metrics need prometheus-client, which is not installed: pip install 'rqmem[metrics]'")
    if connection.get_encoder().decode_responses:
        raise ConfigError("metrics need a connection whose replies are bytes: make it without decode_responses")
    from rqmem.prometheus.collecting import JournalCollector

    return JournalCollector(connection)


def wsgi_app(connection: Redis) -> Callable[..., Any]:
    """A WSGI application that answers every GET with the metrics. Arguments and errors as `collector`."""
    registry = registry_of(connection)
    from prometheus_client import make_wsgi_app

    return make_wsgi_app(registry)


def registry_of(connection: Redis) -> CollectorRegistry:
    """A registry with these metrics alone. Arguments and errors as `collector`."""
    ours = collector(connection)
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(ours)
    return registry
