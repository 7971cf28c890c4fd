"""OpenTelemetry: what a job's spans, metrics and log records are is sent before its horse ends.

Providers that keep what they send in a queue are flushed after each job, for two seconds at most each; after short jobs
of a lease, ten times a second.
"""

from __future__ import annotations

from typing import Any

from opentelemetry import metrics, trace

from rqmem import hooks

_FLUSH_MILLISECONDS = 2000


@hooks.after_jobs
def flush() -> None:
    for provider in _providers():
        force_flush = getattr(provider, "force_flush", None)  # only those of the SDK have one
        if force_flush is not None:
            force_flush(_FLUSH_MILLISECONDS)


def _providers() -> list[Any]:
    providers: list[Any] = [trace.get_tracer_provider(), metrics.get_meter_provider()]
    try:
        from opentelemetry._logs import get_logger_provider
    except ImportError:
        return providers
    return [*providers, get_logger_provider()]
