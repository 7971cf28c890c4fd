"""What splitting needs of a job and of its run: `rqmem.job.base` and `rqmem.job.run` provide it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from rqmem.errors import RqmemError

if TYPE_CHECKING:
    from rqmem.config.settings import Config
    from rqmem.job.checkpoints import Checkpoints
    from rqmem.job.run_events import Reporter
    from rqmem.store.execution_records import Pending, RunRecord
    from rqmem.worker.horse.user_code import Horse


class ParentJob(Protocol):
    """A job that can split. Its attributes are those of `rqmem.MemoryAwareJob`."""

    bytes_per_item: ClassVar[float | None]
    split_above_items: ClassVar[int | None]
    items_per_child: ClassVar[int | None]
    on_child_failure: ClassVar[str]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def path(cls) -> str: ...

    def handle(self, *args: Any, **kwargs: Any) -> Any: ...

    def gather(self, results: Any) -> Any: ...


class OpenSplit(Protocol):
    """Children of which the job has enqueued some one by one."""

    def seal(self) -> Pending: ...

    def undo(self) -> None: ...


class ParentRun(Protocol):
    """The present run of a job that can split.

    Attributes:
        horse: the horse that runs the job; None without a `MemoryWorker`.
        record: what earlier executions left.
        pending: the children, once this execution has made them all.
        open_split: the children, where this execution enqueues them one by one.
    """

    horse: Horse | None
    config: Config
    record: RunRecord
    checkpoints: Checkpoints
    reporter: Reporter
    pending: Pending | None
    open_split: OpenSplit | None

    def bytes_per_item(self) -> float | None:
        """What an item of this job type has cost so far; None where the journal does not know."""
        ...

    def begin_gather(self) -> None:
        """From here on `gather` runs."""
        ...


def horse_of(run: ParentRun) -> Horse:
    """The horse of a run. Raises `RqmemError` where nobody could wait for children."""
    if run.horse is None or not run.horse.page.has_run:
        raise RqmemError(
            "only a MemoryWorker can wait for child jobs, and this is none: run the job with 'rqmem worker', "
            "or ask should_split_job first, which says no here"
        )
    return run.horse
