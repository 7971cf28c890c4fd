"""What a pool promises, and whether a run of `scripts.bench.pool` shows it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rqmem.policy.admission import PATIENCE_SECONDS

if TYPE_CHECKING:
    from scripts.bench.pool import Result

_SLACK_SECONDS = 30.0  # jobs ahead in the queue, and workers that start


@dataclass(frozen=True)
class Evidence:
    """What Redis says of the jobs of a run when it is over.

    Attributes:
        states: job -> where it is. An ended job is in one place: finished or failed.
        resumable: jobs that work in chunks.
        evicted: job -> how often it was evicted.
        repeated_chunks: job that works in chunks -> chunks that were processed once more.
        begun: job -> how often it was begun.
    """

    states: Mapping[str, list[str]] = field(default_factory=dict)
    resumable: frozenset[str] = frozenset()
    evicted: Mapping[str, int] = field(default_factory=dict)
    repeated_chunks: Mapping[str, int] = field(default_factory=dict)
    begun: Mapping[str, int] = field(default_factory=dict)


def longest_wait_allowed(disturbed_seconds: float) -> float:
    """How long a job may wait: while the pool can take none, then until room was kept for it, then for those ahead."""
    return disturbed_seconds + PATIENCE_SECONDS + _SLACK_SECONDS


def broken(result: Result, evidence: Evidence, disturbed_seconds: float) -> list[str]:
    """The promises that did not hold, in words.

    Args:
        disturbed_seconds: for how long the neighbour held its memory, and the pool was away.
    """
    found = []
    if result.kernel_kills:
        found.append(f"the kernel killed {result.kernel_kills} processes")
    if astray := {job: where for job, where in evidence.states.items() if where not in (["finished"], ["failed"])}:
        job, where = next(iter(astray.items()))
        found.append(f"{len(astray)} jobs did not end in one state: {job} is {' and '.join(where) or 'gone'}")
    resumable = [job for job in evidence.evicted if job in evidence.resumable]
    if lost := [job for job in resumable if evidence.states.get(job) != ["finished"]]:
        found.append(f"{len(lost)} evicted jobs that can continue did not finish: {lost[0]}")
    again = {job: chunks for job, chunks in evidence.repeated_chunks.items() if chunks > evidence.begun[job] - 1}
    if again:
        job, chunks = next(iter(again.items()))
        found.append(f"{len(again)} jobs repeated more than the chunk in hand: {job} repeated {chunks}")
    allowed = longest_wait_allowed(disturbed_seconds)
    if result.longest_wait_seconds > allowed:
        found.append(f"a job waited {result.longest_wait_seconds:.0f} s; the bound is {allowed:.0f}")
    return found
