"""The values of alerts as the journal has them. No I/O."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["raised", "resolved"]


@dataclass(frozen=True)
class Alert:
    """An alert that was raised, or the word that what it was about has ended.

    Attributes:
        id: of its entry in the stream; sorts by time.
        at: epoch seconds.
        rule: `rqmem.policy.alert_rules` names them.
        job, job_id, queue, worker: what it is about; empty where it is about none.
        text: it in one line.
        suppressed: how many more of rule and job type were not told since the last one.
    """

    id: str
    at: float
    rule: str
    state: State
    job: str
    job_id: str
    queue: str
    worker: str
    text: str
    suppressed: int = 0

    def to_entry(self) -> dict[str, str]:
        """As the stream takes it."""
        values = dataclasses.asdict(self)
        del values["id"]
        return {"alert": json.dumps(values)}

    @classmethod
    def from_entry(cls, entry_id: bytes, entry: Mapping[bytes, bytes]) -> Alert:
        """The alert of a stream's entry; fields of a newer rqmem are passed over."""
        known = {each.name for each in dataclasses.fields(cls)}
        values: dict[str, Any] = json.loads(entry[b"alert"])
        return cls(id=entry_id.decode(), **{name: value for name, value in values.items() if name in known})


@dataclass(frozen=True)
class Open:
    """An alert that can end and has not: since when, who raised it, and what it says."""

    rule: str
    job: str
    since: float
    worker: str
    text: str

    @property
    def field(self) -> str:
        """Its name in the hash."""
        return f"{self.rule}|{self.job}"

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Open:
        return cls(**json.loads(text))
