"""Worker classes for tests that would have to wait too long with the real settings."""

from typing import Any, ClassVar

from rq import Queue

from rqmem import MemoryWorker


class ImpatientWorker(MemoryWorker):
    """Waits one second where RQ waits a minute."""

    kill_after_timeout_seconds = 1


class FatteningQueue(Queue):
    """Each look for a job makes the worker larger, as a leaking hook would."""

    kept: ClassVar[list[bytes]] = []

    @classmethod
    def dequeue_any(cls, *args: Any, **kwargs: Any) -> Any:
        cls.kept.append(b"x" * (10 * 2**20))
        return super().dequeue_any(*args, **kwargs)
