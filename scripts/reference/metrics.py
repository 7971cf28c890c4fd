"""Metrics, as the exporter's catalogue has them."""

from __future__ import annotations

from rqmem.prometheus.metrics import METRICS
from scripts.reference.markdown import code, table


def page() -> str:
    rows = [(code(each.name), each.kind, ", ".join(each.labels) or "-", each.help) for each in METRICS.values()]
    return table(("metric", "kind", "labels", "meaning"), rows)
