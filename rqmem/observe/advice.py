"""What is recommended for job types, as a value. Pure. Sizes are in MB, times in epoch seconds."""

from __future__ import annotations

from collections.abc import Sequence

from rqmem.observe.period import EMPTY
from rqmem.observe.statistics import Ceilings
from rqmem.policy.recommendation import Recommendation, TooLittle, TypeHistory
from rqmem.values import dataclass


def recommended_mb(found: Recommendation | TooLittle | None) -> float | None:
    """The ceiling; None: nothing is recommended."""
    return found.ceiling_mb if isinstance(found, Recommendation) else None


@dataclass(frozen=True)
class Advice:
    """For a job type. ``last_run_at``: epoch seconds."""

    job: str
    past: TypeHistory
    last_run_at: float
    found: Recommendation | TooLittle

    @property
    def ceilings(self) -> Ceilings:
        return Ceilings(self.past.limit_mb, self.past.declared_mb, recommended_mb(self.found))


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
