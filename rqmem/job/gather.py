"""What a job that has split does once all its children have ended: run failed ones again, fail, or gather results.

The worker commits the end of this execution, as of any other (`rqmem.worker.settlement`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from rqmem import child_ids
from rqmem.errors import ChildFailure, ChildJobsFailed
from rqmem.job.chunk_progress import results_of
from rqmem.job.enqueue import is_at_front
from rqmem.job.parent import ParentJob
from rqmem.job.run import JobRun
from rqmem.rq_names import Queue, get_current_job
from rqmem.sources import Count, Cuttable
from rqmem.store import ledger, parent_meta
from rqmem.store.execution_records import Pending, SplitRecord
from rqmem.store.retrying import until_redis_answers
from rqmem.worker.horse.user_code import Horse

_RESULTS_AT_ONCE = 500


class Gathered(Cuttable[Any]):
    """What the children returned, in the order of slices, read a batch at a time; of those that failed nothing.

    ``failures`` has those. If a job was cut after a breach, the results that it had finished itself come first. As a
    source (``self.chunks(results)``), its cursor is the number of children read, failed ones included.
    """

    def __init__(
        self, horse: Horse, end: int, failures: list[ChildFailure], before: list[Any], missing: Collection[int] = ()
    ) -> None:
        self._before = [before] if before else []
        self._horse = horse
        self._total = end
        self._failed = {*(each.number for each in failures), *missing}
        self.failures = failures

    def __len__(self) -> int:
        return self._total - len(self._failed) + len(self._before)

    def __iter__(self) -> Iterator[Any]:
        return (result for result, _ in self.items_after(None))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        position = range(len(self))[index] - len(self._before)
        if position < 0:
            return self._before[0]
        number = next(islice((each for each in range(self._total) if each not in self._failed), position, None))
        return next(self._read(number, number + 1))[0]

    def count(self) -> Count:
        return Count.exact(len(self))

    def items_after(self, cursor: Any) -> Iterator[tuple[Any, Any]]:
        if cursor is None:
            yield from ((each, 0) for each in self._before)
        yield from self._read(cursor or 0, self._total)

    def _read(self, first: int, end: int) -> Iterator[tuple[Any, int]]:
        loads = self._horse.serializer.loads
        for begin in range(first, end, _RESULTS_AT_ONCE):
            after = min(begin + _RESULTS_AT_ONCE, end)
            read = self._horse.ask("read results of children", ledger.results, after, begin)
            for number, raw in read:
                if number not in self._failed:
                    yield None if raw is None else loads(raw), number + 1


def gather(run: JobRun, parent: ParentJob, split: SplitRecord) -> Any:
    """Call the job's ``gather``, or run failed children again where an earlier execution failed because of them.

    Children may run even now: the job was queued once more, or died after it had them run again. Then it waits for
    them.

    Raises `ChildJobsFailed` where some failed and the job does not go on without them.
    """
    horse = run.waiting_horse()
    horse.page.gathers = True
    _keep_in_meta(horse)
    failures = _failures(horse) if split.failed else []
    fails = bool(failures) and parent.on_child_failure == "fail"
    if fails and split.reported:
        return _run_again(horse, split, failures)
    if not split.complete:
        return Pending(split.total, split.end)
    if fails:
        horse.ask("keep that children have failed", ledger.report)
        raise ChildJobsFailed(horse.job_id, split.total, failures)
    run.begin_gather()
    before = [] if split.cut_stage is None else results_of(horse, split.cut_stage)
    missing = horse.ask("list children", ledger.missing, split)
    return parent.gather(Gathered(horse, split.end, failures, before, missing))


def _keep_in_meta(horse: Horse) -> None:
    """Write how the children ended to RQ's record of the job, and to RQ's object, which the job may save."""
    figures = horse.ask("keep how children have ended", parent_meta.write, horse.serializer, None)
    if (job := get_current_job(horse.connection)) is not None:
        job.meta["rqmem"] = {**job.meta.get("rqmem", {}), **figures}


def _failures(horse: Horse) -> list[ChildFailure]:
    found = horse.ask("look for failed children", lambda *of: dict(ledger.outcomes(*of)))
    return [
        ChildFailure(number, text) for number, text in sorted(found.items()) if text not in (ledger.OK, ledger.WAITING)
    ]


def _run_again(horse: Horse, split: SplitRecord, failures: list[ChildFailure]) -> Pending:
    """Enqueue the failed children once more, and wait for them. If this is cut short, the next execution does the rest.

    Raises `ChildJobsFailed` where one is gone for good, before any of them runs.
    """
    purpose = f"run failed children of job {horse.job_id} once more"
    parent = get_current_job(horse.connection)
    at_front = parent is not None and is_at_front(parent)
    found: list[tuple[ChildFailure, Queue | None]] = []
    for failure in failures:
        child_id = child_ids.child_id(horse.job_id, failure.number)
        queue = until_redis_answers(partial(ledger.can_run_again, horse.connection, child_id), purpose)
        found.append((failure, queue))
    if lost := [failure for failure, queue in found if queue is None]:
        raise ChildJobsFailed(horse.job_id, split.total, lost)
    for failure, queue in found:
        if queue is not None:
            again = partial(ledger.run_again, queue, horse.job_id, failure.number, at_front=at_front)
            until_redis_answers(again, purpose)
    return Pending(split.total, split.end)


def joined(results: Iterable[Any]) -> list[Any]:
    """Lists one after the other, others as they are; None is left out."""
    together: list[Any] = []
    for result in results:
        if isinstance(result, list):
            together.extend(result)
        elif result is not None:
            together.append(result)
    return together
