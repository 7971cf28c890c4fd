"""The values that stand in the journal, and their text forms. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rqmem.store import codec

GATHER = 1_000_000
"""The number of ``gather``'s first stage: apart from ``handle``'s, whose cursors are of other data."""


@dataclass(frozen=True)
class Owner:
    """Who runs a job now. ``execution`` is the fencing token; (host, pid, start) name the process.

    ``groups`` is the directory in which the cgroups of its horses are, empty where they have none. ``settles``: it
    does not run the job but ends it in place of this worker, which died.
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
    """An execution as Redis has it.

    Attributes:
        owner: the execution that owns the job; empty: none does.
        owned: this one does.
        started: RQ counts this one as started.
        status: the job's; empty: it was deleted, or Redis has lost its data.
    """

    owner: str
    owned: bool
    started: bool
    status: str

    @property
    def abandoned(self) -> bool:
        """RQ's maintenance has failed it, too soon."""
        return self.owned and not self.started and self.status == "failed"

    @property
    def gone(self) -> bool:
        """Nothing is there of the job and of who runs it."""
        return not (self.owner or self.started or self.status)

    @property
    def ours(self) -> bool:
        """Whether its outcome is this execution's to commit: a running job that was cancelled still ends, as in RQ."""
        if self.owned:
            return self.started or self.status in ("failed", "canceled")
        return self.started and not self.owner


@dataclass(frozen=True)
class Pending:
    """What a job that has split returns instead of a result: it waits for so many children.

    ``end``: their numbers are below it; not each of them was enqueued where it is above ``total``.
    """

    total: int
    end: int


@dataclass(frozen=True)
class Split:
    """A job that has split, or is about to, as its run has it.

    Attributes:
        sealed: all its children are there; ``total`` of them, with numbers below ``end``.
        ended, failed: children by now; those that failed have ended too.
        items: finished by all below that have ended, of those that failed what is saved.
        peak_mb: the highest of theirs.
        started_at: epoch seconds; where failed children run once more, since then: ``ended_before`` had ended.
        ended_at: when the last of those that have ended did.
        reported: the failures have failed the job; its next execution runs them once more.
        cut_stage: whose rest the children are, where the job was cut after a breach; None: it split by itself.
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
        """All children are there, and have ended."""
        return self.sealed and self.ended >= self.total


@dataclass(frozen=True)
class RunRecord:
    """A memory-aware job over all its executions. Cursors are JSON values, by stage.

    A stage is the n-th call of ``process_in_chunks`` in ``handle``, counted from 0; in ``gather``, from `GATHER`.
    ``job_created_at`` tells a job that was requeued from another one of the same id. ``run_id``: of the execution with
    which it began, so no other run has had it. ``cut_stage``: of that one, what
    is left is to be cut in two.
    ``history``: how executions ended that did not end well, a line each, oldest first.
    ``items``: finished, by stage; ``items_unsaved``: by an execution that saves nothing, and ended well.
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
    split: Split | None = None

    @property
    def began(self) -> bool:
        """Whether ``handle``, or ``gather`` where it is at that, had begun a stage."""
        gathers = self.split is not None and self.split.sealed
        return self.stage is not None and (self.stage >= GATHER) == gathers

    @property
    def all_items(self) -> int:
        """Finished by ``handle`` itself, in all its executions."""
        return sum(items for stage, items in self.items.items() if stage < GATHER) + self.items_unsaved

    @property
    def chunk_size(self) -> int:
        """Items per chunk of the present stage; 1 where none has begun."""
        return self.chunk_sizes.get(-1 if self.stage is None else self.stage, 1)

    @classmethod
    def from_hash(cls, raw: Mapping[bytes, bytes]) -> RunRecord:
        """The record in the hash ``keys.run``."""
        split = codec.from_hash(Split, raw, "split_") if b"split_queue" in raw else None
        return replace(codec.from_hash(cls, raw), split=split)
