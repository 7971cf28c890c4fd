"""The records of running and resumable jobs. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rqmem.store import codec
from rqmem.values import dataclass, field

GATHER = 1_000_000
"""The number of ``gather``'s first stage. ``handle`` has lower numbers: its cursors belong to other data."""


@dataclass(frozen=True)
class Owner:
    """Who runs a job now. ``execution`` is the fencing token; host, pid and start time identify the process.

    ``groups``: the directory with the cgroups of its horses, or empty. ``settles``: the name of a dead worker in whose
    place this one ends the job, without running it.
    """

    execution: str
    worker: str
    queue: str
    host: str
    pid: int
    start_time: int
    groups: str = ""
    settles: str = ""

    @property
    def process(self) -> str:
        """As `rqmem.measure.procfs.process_identity`."""
        return f"{self.host}:{self.pid}:{self.start_time}"


@dataclass(frozen=True)
class Standing:
    """The state of an execution in Redis.

    Attributes:
        owner: the execution that owns the job, or empty.
        started: whether RQ counts this execution as started.
        status: of the job; empty if it was deleted, or Redis has lost its data.
    """

    owner: str
    owned: bool
    started: bool
    status: str

    @property
    def abandoned(self) -> bool:
        """Whether RQ's maintenance has failed the job although it still runs."""
        return self.owned and not self.started and self.status == "failed"

    @property
    def gone(self) -> bool:
        """Whether Redis has neither the job nor its execution."""
        return not (self.owner or self.started or self.status)

    @property
    def ours(self) -> bool:
        """Whether this execution may commit an outcome. As in RQ, a job that was cancelled while it ran may."""
        if self.owned:
            return self.started or self.status in ("failed", "canceled")
        return self.started and not self.owner


@dataclass(frozen=True)
class Pending:
    """What a job that has split returns instead of a result. It waits for ``total`` children.

    ``end``: one more than their highest number; above ``total`` if some numbers were not enqueued.
    """

    total: int
    end: int


@dataclass(frozen=True)
class SplitRecord:
    """The children of a job that has split or is splitting.

    Attributes:
        sealed: all children have been made: ``total``, with numbers below ``end``.
        ended, failed: how many children have ended, and how many of these have failed.
        items: finished by all descendants that have ended; of those that failed, what is saved.
        peak_mb: the highest peak of a descendant.
        started_at: epoch seconds; when the children began, or failed children began again.
        ended_before: how many had ended at ``started_at``.
        ended_at: when a child ended last.
        reported: their failures have failed the job; its next execution runs them again.
        cut_stage: the stage whose rest the children do, if a breach cut the job; None: the job split itself.
    """

    sealed: bool = False
    total: int = 0
    ended: int = 0
    failed: int = 0
    items: int = 0
    peak_mb: float = 0.0
    started_at: float = 0.0
    reported: bool = False
    ended_at: float = 0.0
    ended_before: int = 0
    cut_stage: int | None = None
    end: int = 0

    @property
    def complete(self) -> bool:
        """Whether all children have been made and have ended."""
        return self.sealed and self.ended >= self.total


@dataclass(frozen=True)
class RunRecord:
    """A memory-aware job over all its executions.

    A stage is one call of ``process_in_chunks``. Stages are numbered from 0 in ``handle``, from `GATHER` in ``gather``.

    Attributes:
        job_created_at: of RQ's job; another job with the same id has another time.
        run_id: the id of its first execution, which no other run has.
        cursors: JSON values by stage.
        items: finished, by stage; ``items_unsaved``: by an execution that saved nothing and ended well.
        cut_stage: the stage whose rest the next execution cuts in two.
        history: how executions ended that did not end well, a line each, oldest first.
        escalate_to: the steps, as `rqmem.policy.escalation.written` writes them.
        escalated_mb: the last step that it has taken; 0: none. escalations: how many it has taken.
    """

    job: str = ""
    job_created_at: str = ""
    run_id: str = ""
    on_breach: str = "fail"
    stage: int | None = None
    chunk_sizes: dict[int, int] = field(default_factory=dict, metadata={"name": "chunk_size:"})
    chunk_states: dict[int, str] = field(default_factory=dict, metadata={"name": "chunk_state:"})
    cursors: dict[int, Any] = field(default_factory=dict, metadata={"name": "cursor:"})
    items: dict[int, int] = field(default_factory=dict, metadata={"name": "items:"})
    items_unsaved: int = 0
    chunks: int = 0
    execution_chunks: int = 0
    resumes: int = 0
    resumes_spent: int = 0
    breaches: int = 0
    peak_mb: float = 0.0
    seconds: float = 0.0
    finished: bool = False
    cut_stage: int | None = None
    history: tuple[str, ...] = ()
    escalate_to: str = ""
    escalated_mb: float = 0.0
    escalations: int = 0
    split: SplitRecord | None = None

    def is_over(self, job_created_at: str) -> bool:
        """Whether the run of the job that was made then is another one: this one has ended, or is another job's."""
        return self.finished or self.job_created_at not in ("", job_created_at)

    @property
    def began(self) -> bool:
        """Whether the present method, ``handle`` or ``gather``, has begun a stage."""
        gathers = self.split is not None and self.split.sealed
        return self.stage is not None and (self.stage >= GATHER) == gathers

    @property
    def all_items(self) -> int:
        """Items that ``handle`` itself has finished, in all executions."""
        return sum(items for stage, items in self.items.items() if stage < GATHER) + self.items_unsaved

    @property
    def chunk_size(self) -> int:
        """Items per chunk of the present stage; 1 before the first stage."""
        return self.chunk_sizes.get(-1 if self.stage is None else self.stage, 1)

    @classmethod
    def from_hash(cls, raw: Mapping[bytes, bytes]) -> RunRecord:
        """The record in the hash ``keys.run``."""
        split = codec.from_hash(SplitRecord, raw, "split_") if b"split_queue" in raw else None
        return replace(codec.from_hash(cls, raw), split=split)
