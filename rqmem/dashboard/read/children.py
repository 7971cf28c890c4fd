"""The children of a job that has split, as rows: those that failed first. Reads; knows nothing of Flask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rqmem.child_ids import child_id
from rqmem.observe.rq_jobs import read_jobs
from rqmem.store import ledger
from rqmem.values import dataclass

if TYPE_CHECKING:
    from redis import Redis

    from rqmem.observe.job import Case
    from rqmem.observe.model import JobRow

MOST_CHILDREN = 5000
"""Of more, none is listed: their outcomes take too long to read for a page."""

_MOST_ROWS = 50


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
    order = {ledger.WAITING: 1, ledger.OK: 2}
    numbers = sorted(outcomes, key=lambda number: (order.get(outcomes[number], 0), number))[:_MOST_ROWS]
    ids = [child_id(case.job_id, number) for number in numbers]
    rows = read_jobs(connection, ids)
    known = zip(ids, numbers, rows, strict=True)
    return [Child(job_id, number, outcomes[number], row) for job_id, number, row in known]
