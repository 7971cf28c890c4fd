"""What ``rqmem config`` shows, as text and as JSON. Pure. docs/reference/json.md explains the names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rqmem.config.load import Origin, Settings
from rqmem.config.settings import SETTINGS, JobSettings, Setting, shown
from rqmem.job.declared import Applied, Declared
from rqmem.observe.advice import recommended_mb
from rqmem.observe.as_json import of_recommendation
from rqmem.observe.statistics import Ceilings
from rqmem.observe.vocabulary import encoded, job_type_head, versioned
from rqmem.policy import lease
from rqmem.policy.recommendation import Recommendation, TooLittle
from rqmem.text import columns
from rqmem.units import show_mb
from rqmem.values import dataclass


@dataclass(frozen=True)
class NamedRedis:
    """Which Redis, without its password, and who named it."""

    shown: str
    origin: Origin


@dataclass(frozen=True)
class ConfiguredType:
    """A job type.

    Attributes:
        declared, applied: by its code, and in the end; None: it cannot be imported, and ``problem`` says why.
        recommended: by its history, or how little that is; None: it has none.
    """

    job: str
    declared: Declared | None = None
    applied: Applied | None = None
    problem: str = ""
    recommended: Recommendation | TooLittle | None = None


def settings_lines(settings: Settings, redis: NamedRedis, integrations: Sequence[str] = ()) -> list[str]:
    """A table of all settings, with the place that each came from."""
    rows = [("setting", "value", "from"), ("redis", redis.shown, _from(redis.origin))]
    for field, setting in SETTINGS.items():
        text, origin = shown(field, getattr(settings.config, field)), _from(settings.origin(field))
        rows.append((setting.name, f"{text} {setting.unit}".rstrip() if text else "none", origin))
    lines = columns(rows, left=(0, 1, 2))
    file = f"config file: {settings.file or 'none'}"
    return [file, _integrations(settings, integrations), f"leases: {_leases(settings)}", "", *lines]


def _leases(settings: Settings) -> str:
    """According to the settings. Options of a worker may switch leases off: `rqmem status` shows that."""
    config = settings.config
    forks, profiles = config.isolation == "fork", config.profile != "off"
    return lease.shown(lease.why_never(lease.Way(config.lease_max, forks, profiles)))


def _integrations(settings: Settings, names: Sequence[str]) -> str:
    if not settings.config.integrations:
        return "integrations: off"
    return f"integrations: {', '.join(names)} (each in horses that import it)" if names else "integrations: none"


def settings_json(settings: Settings, redis: NamedRedis, integrations: Sequence[str] = ()) -> dict[str, Any]:
    rows = [_setting("redis", None, redis.shown, redis.origin)]
    for field, setting in SETTINGS.items():
        value = _value(setting, getattr(settings.config, field))
        rows.append(_setting(setting.name, setting.variable, value, settings.origin(field)))
    active = list(integrations) if settings.config.integrations else []
    head = versioned(config_file=settings.file, integrations=active, leases=_leases(settings))
    return head | {"settings": rows}


def jobs_lines(rows: Sequence[ConfiguredType], note: str) -> list[str]:
    """A table of job types, and below it what needs words, with the ``note`` last."""
    head = ("job type", "declared", "applies", "recommended", "chunk", "splits")
    table = [head, *(_job_cells(row) for row in rows)]
    lines = columns(table, left=(0, len(head) - 1))
    notes = [f"{row.job}: {text}" for row in rows for text in _notes(row)] + ([note] if note else [])
    return [*lines, *([""] if notes else []), *notes]


def jobs_json(rows: Sequence[ConfiguredType], settings: Settings, note: str) -> dict[str, Any]:
    job_types = [_job(row) for row in rows]
    return versioned(config_file=settings.file, note=note or None) | {"job_types": job_types}


# Settings


def _value(setting: Setting, value: Any) -> Any:
    if setting.secret:
        return ["***" for _ in value]
    return list(value) if isinstance(value, tuple) else value


def _from(origin: Origin) -> str:
    return origin.name or origin.kind


def _setting(name: str, variable: str | None, value: Any, origin: Origin) -> dict[str, Any]:
    return {"name": name, "variable": variable, "value": value, "origin": origin.kind, "source": origin.name or None}


# Job types


def _job_cells(row: ConfiguredType) -> tuple[str, ...]:
    recommended = f"{row.recommended.ceiling_mb} MB" if isinstance(row.recommended, Recommendation) else "-"
    if row.declared is None or row.applied is None:
        return (row.job, "?", "?", recommended, "?", "?")
    limits = row.applied.limits
    return (
        row.job,
        _mb(row.declared.limits.memory_limit_mb),
        _mb(limits.memory_limit_mb),
        recommended,
        str(limits.chunk_size),
        split_rule(limits, row.declared.splits) or "-",
    )


def split_rule(limits: JobSettings, splits: bool) -> str:
    """When a job splits, in words; empty: never by itself."""
    if limits.split_above_items is not None:
        return f"above {limits.split_above_items:,} items"
    if limits.bytes_per_item is not None:
        return f"by {show_mb(limits.bytes_per_item / 1024)} KB an item"
    return "by what items were seen to cost" if splits else ""


def _notes(row: ConfiguredType) -> list[str]:
    if row.declared is None or row.applied is None:
        return [row.problem]
    declared, said = row.declared.limits.given, row.applied.said.given
    notes = []
    for name, value in said.items():
        before = f", its class {declared[name]:g}" if name in declared else ""
        notes.append(f"the config file says {name} {value:g}{before}")
    wanted_mb = {**declared, **said}.get("memory_limit_mb")
    if wanted_mb is not None and row.applied.limits.memory_limit_mb != wanted_mb:
        by = _from(row.applied.origins["memory_limit_mb"])
        notes.append(f"{_mb(wanted_mb)} cut to {_mb(row.applied.limits.memory_limit_mb)} by {by}")
    return notes


def _mb(size_mb: float | None) -> str:
    return "-" if size_mb is None else f"{show_mb(size_mb)} MB"


def _job(row: ConfiguredType) -> dict[str, Any]:
    applies = None
    if row.applied is not None:
        origins = row.applied.origins
        applies = {
            name: {
                "value": value,
                "origin": origins[name].kind if name in origins else "default",
                "source": (origins[name].name or None) if name in origins else None,
            }
            for name, value in vars(row.applied.limits).items()
        }
    recommended = row.recommended
    return {
        **job_type_head(
            row.job,
            Ceilings(
                row.applied.limits.memory_limit_mb if row.applied else None,
                row.declared.limits.memory_limit_mb if row.declared else None,
                recommended_mb(recommended),
            ),
        ),
        "problem": row.problem or None,
        "on_breach": row.declared.on_breach if row.declared else None,
        "queue": (row.declared.queue or None) if row.declared else None,
        "declared": encoded(row.declared.limits) if row.declared else None,
        "applies": encoded(applies),
        "recommended": of_recommendation(recommended) if isinstance(recommended, Recommendation) else None,
        "runs_needed": recommended.needed if isinstance(recommended, TooLittle) else None,
    }
