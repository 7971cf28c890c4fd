"""The records of alerts. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from rqmem.store import codec
from rqmem.values import dataclass

State = Literal["raised", "resolved"]


@dataclass(frozen=True)
class Alert:
    """An alert that was raised, or that has ended.

    Attributes:
        id: of its entry in the stream; sorts by time.
        at: epoch seconds.
        rule: `rqmem.policy.alert_rules` names them.
        job, job_id, queue, worker: what it is about; empty if that does not apply.
        suppressed: how many alerts of this rule and job type were only counted since the last one.
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

    @property
    def opened(self) -> Open:
        return Open(self.rule, self.job, self.at, self.worker, self.text)

    def to_entry(self) -> dict[str, str]:
        """The alert as an entry of the stream, which has the id itself."""
        return {"alert": json.dumps({name: value for name, value in vars(self).items() if name != "id"})}

    @classmethod
    def from_entry(cls, entry_id: bytes, entry: Mapping[bytes, bytes]) -> Alert:
        return codec.from_values(cls, {**json.loads(entry[b"alert"]), "id": entry_id.decode()})


@dataclass(frozen=True)
class Open:
    """An alert that can end and has not ended."""

    rule: str
    job: str
    since: float
    worker: str
    text: str

    @property
    def field(self) -> str:
        return f"{self.rule}|{self.job}"
