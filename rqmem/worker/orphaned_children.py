"""Parents whose children ended without telling: deleted by a person, failed by RQ's maintenance, run by a stock worker.

The ledger gets a child's outcome from what it has left in RQ's records, a batch of children at a time, by one worker at
a time. Runs in the heart's thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from redis import Redis

from rqmem import child_ids
from rqmem.rq_names import Job, JobStatus, NoSuchJobError
from rqmem.store import keys, ledger, parent_meta
from rqmem.tracebacks import what_was_raised

_PAUSE_SECONDS = 10.0
_BATCH = 500
_ENDED = (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED)


class Mending:
    def __init__(self, connection: Redis, job_class: type[Job], serializer: Any) -> None:
        self._connection = connection
        self._job_class = job_class
        self._serializer = serializer
        self._look_at = 0.0
        self._waiting: Iterator[tuple[str, int]] = iter(())

    def scan(self, now: float) -> None:
        """Look at the next batch; raises redis-py's errors."""
        if now < self._look_at or not self._connection.set(keys.MENDING, 1, nx=True, px=int(1000 * _PAUSE_SECONDS / 2)):
            return
        batch = [child for child, _ in zip(self._waiting, range(_BATCH), strict=False)]
        if len(batch) < _BATCH:
            self._look_at = now + _PAUSE_SECONDS
            self._waiting = self._all_waiting()
        told = {parent_id for parent_id, number in batch if self._look(parent_id, number)}
        for parent_id in told:
            parent_meta.refresh(self._connection, parent_id, self._serializer)

    def _all_waiting(self) -> Iterator[tuple[str, int]]:
        """Children that have not told of their end, of all parents; a parent that is gone is forgotten."""
        for parent_id in ledger.splitting(self._connection):
            if not self._connection.exists(self._job_class.key_for(parent_id)):
                ledger.forget(self._connection, parent_id)
                continue
            for number, outcome in ledger.outcomes(self._connection, parent_id):
                if outcome == ledger.WAITING:
                    yield parent_id, number

    def _look(self, parent_id: str, number: int) -> bool:
        """Whether that child had ended, and its parent was told."""
        job_id = child_ids.child_id(parent_id, number)
        child = self._job_class(job_id, connection=self._connection, serializer=self._serializer)
        try:
            child.refresh()
        except NoSuchJobError:
            ledger.tell_parent(self._connection, child, "it is gone: deleted, or its result has expired")
            return True
        status = child.get_status(refresh=False)
        if status not in _ENDED:
            return False
        result = child.latest_result()
        if status == JobStatus.FINISHED:
            value = result.return_value if result is not None else None
            raw = b"" if value is None else child.serializer.dumps(value)
            ledger.tell_parent(self._connection, child, ledger.OK, result=raw)
        else:
            raised = what_was_raised((result.exc_string if result else None) or "")
            ledger.tell_parent(self._connection, child, raised or str(status))
        return True
