"""What splitting needs of a job, which `rqmem.job.base` provides, and what a run needs of a split."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from rqmem.store.execution_records import Pending


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
