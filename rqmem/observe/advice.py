"""What is advised for job types, as a value and as JSON. Pure. This is the JSON's schema, version 1.

Sizes in MB (2**20 bytes), times ISO 8601 in UTC, what is not known is null. Keys may be added within a version::

    schema_version, rqmem_version, at, redis   1; that wrote it; when the journal was read; which, without password
    notes                what a reader should know
    jobs                 {job, runs, runs_needed, last_run_at, history_days, ceiling_now_mb, recommended}
                         runs_needed: null, or how many a recommendation takes; recommended is null then
    jobs[].recommended   {ceiling_mb, lowest_mb, highest_mb, chunk_size, split_above_items, confidence, breaches,
                         breaches_avoided, breaches_added, given_back_mb, evidence}
                         as in rqmem/policy/recommendation.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rqmem.observe.period import EMPTY
from rqmem.policy.recommendation import Past, Recommendation, TooLittle
from rqmem.text import timestamp

SCHEMA_VERSION = 1
_OF_THE_HISTORY = ("runs", "history_days")


@dataclass(frozen=True)
class Advice:
    """For a job type. ``last_run_at``: epoch seconds."""

    job: str
    past: Past
    last_run_at: float
    found: Recommendation | TooLittle


@dataclass(frozen=True)
class AdviceReport:
    """For all, by their names. ``redis``: without password; ``job``: that was asked for, None: all."""

    rqmem_version: str
    redis: str
    at: float
    job: str | None
    jobs: Sequence[Advice]

    @property
    def notes(self) -> list[str]:
        """What a reader should know."""
        return [] if self.jobs else [EMPTY]


def as_fields(report: AdviceReport) -> dict[str, Any]:
    """All of it, as `json` takes it."""
    return {
        "schema_version": SCHEMA_VERSION,
        "rqmem_version": report.rqmem_version,
        "at": timestamp(report.at),
        "redis": report.redis,
        "notes": report.notes,
        "jobs": [_fields(each) for each in report.jobs],
    }


def _fields(advice: Advice) -> dict[str, Any]:
    past, found = advice.past, advice.found
    values = asdict(found) if isinstance(found, Recommendation) else {}
    return {
        "job": advice.job,
        "runs": int(past.runs),
        "runs_needed": found.needed if isinstance(found, TooLittle) else None,
        "last_run_at": timestamp(advice.last_run_at),
        "history_days": round(past.history_days, 4),
        "ceiling_now_mb": past.limit_mb,
        "recommended": {name: value for name, value in values.items() if name not in _OF_THE_HISTORY} or None,
    }
