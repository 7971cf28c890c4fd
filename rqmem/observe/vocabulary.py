"""The rules of the JSON vocabulary, and parts that many objects have."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rqmem.observe.statistics import Ceilings, PeakSpread
from rqmem.store.history.history_records import Tally
from rqmem.text import timestamp_ms

VERSION = 2

_NAMES = {
    "job": "job_type",
    "limit_mb": "ceiling_mb",
    "memory_limit_mb": "ceiling_mb",
    "declared_mb": "declared_ceiling_mb",
    "allowed_mb": "ceiling_mb",
    "used_mb": "usage_mb",
    "memory_mb": "usage_mb",
    "current_memory_mb": "usage_mb",
    "peak_memory_mb": "peak_mb",
    "initial_memory_mb": "initial_mb",
    "final_memory_mb": "final_mb",
    "worker_mb": "own_memory_mb",
    "worker_limit_mb": "own_ceiling_mb",
    "mb_per_run": "leak_per_run_mb",
    "mb_per_1000_items": "peak_per_1000_items_mb",
    "seconds": "run_seconds",
    "duration_seconds": "run_seconds",
}
"""Names of fields in rqmem's records -> the same in the vocabulary."""

COLUMNS = {
    "grew": ("grown_mb", "line"),
    "kinds": ("type", "objects", "grown_mb"),
    "checkpoints": ("operation", "usage_mb"),
    "tree": ("pid", "command", "usage_mb"),
    "curve": ("before_seconds", "usage_mb"),
    "segments_left": ("file", "size_mb"),
    "beyond_reach": ("pid", "command"),
}
"""Fields that are lists of tuples -> the names of what is in each."""


def encoded(value: Any, name: str = "") -> Any:
    """A record of rqmem, or a value with this name, by the vocabulary."""
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        inner = name if name.endswith("_mb") else ""
        return {_name(key, each): encoded(each, inner or _name(key, each)) for key, each in value.items()}
    if isinstance(value, list | tuple):
        columns = COLUMNS.get(name)
        rows = value if columns is None else [dict(zip(columns, each, strict=True)) for each in value]
        return [encoded(each, name) for each in rows]
    if isinstance(value, int | float) and not isinstance(value, bool):
        if name in ("at", "since", "until") or name.endswith(("_at", "_since")):
            return timestamp_ms(value)
        if name.endswith(("_mb", "_seconds")):
            return round(float(value), 3 if abs(value) >= 1 else 6)
        return round(value, 4) if isinstance(value, float) else value
    return value


def _name(name: str, value: Any) -> str:
    return name if name == "job" and not isinstance(value, str) else _NAMES.get(name, name)


def versioned(**fields: Any) -> dict[str, Any]:
    """An object of the vocabulary, with its version first."""
    return {"version": VERSION, **encoded(fields)}


def percentage(usage_mb: float, ceiling_mb: float) -> float | None:
    """Of the ceiling; None without one."""
    return round(100 * usage_mb / ceiling_mb, 1) if ceiling_mb else None


def job_type_head(job_type: str, ceilings: Ceilings) -> dict[str, Any]:
    return {"job_type": job_type, **encoded(ceilings._asdict())}


def of_tally(tally: Tally, peaks: PeakSpread | None = None) -> dict[str, Any]:
    counts = ("jobs", "runs", "failed")
    more = ("splits", "leaks", "alerts", "collections", "chunks", "items")
    fields = {
        **{name: round(getattr(tally, name)) for name in counts},
        "resumes": round(tally.resumed),
        "escalations": round(tally.escalations),
        **{name: round(getattr(tally, name)) for name in more},
        "breaches": of_breaches(tally.breaches),
        "needed_ceilings": [{"ceiling_mb": mb, "runs": round(tally.needed[mb])} for mb in sorted(tally.needed)],
        "freed_mb": tally.freed_mb,
        "leak_per_run_mb": tally.leak_mb_per_run,
        "work_seconds": tally.seconds,
        "mb_seconds": round(tally.mb_seconds, 1),
        "peak_per_1000_items_mb": tally.mb_per_1000_items,
        "freed_per_collection_mb": tally.freed_mb_per_collection,
        "splitting_rate": tally.splitting_rate,
        "alerts_per_job": tally.alerts_per_job,
    }
    return encoded({**fields, **({"peak_mb": of_peaks(peaks)} if peaks is not None else {})})


def of_breaches(by_layer: Mapping[str, float], total: float | None = None) -> dict[str, Any]:
    """Breaches by layer, and all of them, which may be more than are remembered."""
    counts = {layer: round(count) for layer, count in by_layer.items()}
    return {"total": sum(counts.values()) if total is None else round(total), "by_layer": counts}


def of_peaks(peaks: PeakSpread) -> dict[str, float | None]:
    return {"p50": peaks.p50_mb, "p90": peaks.p90_mb, "p99": peaks.p99_mb, "max": peaks.highest_mb}
