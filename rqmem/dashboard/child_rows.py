"""The children of a job that has split, as rows: those that failed first. Only reads."""

from __future__ import annotations

from collections.abc import Iterable

from redis import Redis

from rqmem.child_ids import child_id
from rqmem.observe.job import Case
from rqmem.observe.model import JobRow
from rqmem.observe.rq_jobs import read_jobs
from rqmem.store import ledger
from rqmem.values import dataclass

MOST_CHILDREN = 5000
"""Of more, none is listed: their outcomes take too long to read for a page."""

_MOST_ROWS = 50
_LOOKED_AT = 200
_ENDED = {"finished": ledger.OK, "failed": "failed", "stopped": "stopped", "canceled": "canceled"}


@dataclass(frozen=True)
class Child:
    """``outcome``: ``ok``, how it failed, or empty while it has not ended; ``row``: None: RQ has forgotten it."""

    job_id: str
    number: int
    outcome: str
    row: JobRow | None

    @property
    def failed(self) -> bool:
        return self.outcome not in (ledger.OK, ledger.WAITING)


def read_children(connection: Redis, case: Case) -> list[Child]:
    """Those that failed, then those that have not ended, then the others, by number; at most 50."""
    split = case.record.split
    if split is None or split.end > MOST_CHILDREN:
        return []
    outcomes = dict(ledger.outcomes(connection, case.job_id))
    if outcomes:
        numbers = sorted(outcomes, key=lambda number: (_place(outcomes[number]), number))[:_MOST_ROWS]
        return [
            Child(row_id, number, outcomes[number], row)
            for number, row_id, row in _rows(connection, case.job_id, numbers)
        ]
    known = _rows(connection, case.job_id, range(min(split.end, _LOOKED_AT)))  # it has gathered: RQ still has some
    found = [Child(row_id, number, _ENDED.get(row.status, ""), row) for number, row_id, row in known if row is not None]
    return sorted(found, key=lambda each: (_place(each.outcome), each.number))[:_MOST_ROWS]


def _rows(connection: Redis, parent_id: str, numbers: Iterable[int]) -> list[tuple[int, str, JobRow | None]]:
    ids = {number: child_id(parent_id, number) for number in numbers}
    rows = read_jobs(connection, list(ids.values()))
    return [(number, job_id, row) for (number, job_id), row in zip(ids.items(), rows, strict=True)]


def _place(outcome: str) -> int:
    return {ledger.WAITING: 1, ledger.OK: 2}.get(outcome, 0)
