"""Worker classes for tests that would have to wait too long with the real settings."""

from typing import Any, ClassVar

from rq import Queue
from rq.executions import Execution
from rq.job import Job

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


class OwnMain(MemoryWorker):
    """As CKAN's: something is done in each new horse."""

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        self.connection.incr("tests:own main")
        super().main_work_horse(job, queue)


class OwnMonitor(MemoryWorker):
    """Looks on while MemoryWorker watches."""

    def monitor_work_horse(self, job: Job, queue: Queue, execution: Execution) -> None:
        self.connection.incr("tests:own monitor")
        super().monitor_work_horse(job, queue, execution)


class OwnWatch(MemoryWorker):
    """As Redash's: waits for the horse in its own way, and nobody watches it."""

    def monitor_work_horse(self, job: Job, queue: Queue, execution: Execution) -> None:
        self.wait_for_horse()
        self._horse_pid = 0
        self.executions.pop(execution.id, None)


class Broken(MemoryWorker):
    """Has an error of its own while it runs a job."""

    def prepare_execution(self, job: Job) -> Execution:
        raise KeyError(job.id)
