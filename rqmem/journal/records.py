"""The values that stand in the journal, and their text forms. No I/O."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Owner:
    """Who runs a job now. ``execution`` is the fencing token; (host, pid, start) name the process."""

    execution: str
    worker: str
    queue: str
    host: str
    pid: int
    start_time: int

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Owner:
        """The owner in ``text``; fields of a newer rqmem are passed over."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in json.loads(text).items() if name in known})


@dataclass(frozen=True)
class RunRecord:
    """A memory-aware job over all its executions. Cursors are JSON values, by stage.

    A stage is the n-th call of ``process_in_chunks`` in ``handle``, counted from 0. ``job_created_at``
    tells a job that was requeued from another one of the same id.
    """

    job: str = ""
    job_created_at: str = ""
    on_breach: str = "fail"
    stage: int | None = None
    chunk_sizes: dict[int, int] = field(default_factory=dict)
    cursors: dict[int, Any] = field(default_factory=dict)
    items: dict[int, int] = field(default_factory=dict)
    chunks: int = 0
    execution_chunks: int = 0
    resumes: int = 0
    breaches: int = 0
    peak_mb: float = 0.0
    seconds: float = 0.0
    finished: bool = False

    @property
    def chunk_size(self) -> int:
        """Items per chunk of the present stage; 1 where none has begun."""
        return self.chunk_sizes.get(-1 if self.stage is None else self.stage, 1)

    @classmethod
    def from_hash(cls, raw: Mapping[bytes, bytes]) -> RunRecord:
        """The record of what Redis holds; fields of a newer rqmem are passed over."""
        fields = {key.decode(): value.decode() for key, value in raw.items()}
        numbered: dict[str, dict[int, Any]] = {"chunk_size": {}, "cursor": {}, "items": {}}
        for key, value in fields.items():
            name, colon, stage = key.partition(":")
            if colon and name in numbered:
                numbered[name][int(stage)] = json.loads(value)
        return cls(
            job=fields.get("job", ""),
            job_created_at=fields.get("job_created_at", ""),
            on_breach=fields.get("on_breach", "fail"),
            stage=int(fields["stage"]) if "stage" in fields else None,
            chunk_sizes=numbered["chunk_size"],
            cursors=numbered["cursor"],
            items=numbered["items"],
            chunks=int(fields.get("chunks", 0)),
            execution_chunks=int(fields.get("execution_chunks", 0)),
            resumes=int(fields.get("resumes", 0)),
            breaches=int(fields.get("breaches", 0)),
            peak_mb=float(fields.get("peak_mb", 0)),
            seconds=float(fields.get("seconds", 0)),
            finished="finished" in fields,
        )
