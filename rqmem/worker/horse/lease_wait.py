"""The wait of an idle worker's horse for the next job of a lease.

The worker watches nothing meanwhile. It is told before the first instruction of a job; and it tells the horse when that
is to wait no longer. Both look at the page then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rqmem.store import executions
from rqmem.store.queue_fronts import QueueFronts
from rqmem.store.retrying import until_redis_answers
from rqmem.worker.rq_worker import queue_of

if TYPE_CHECKING:
    from rqmem.rq_names import Worker
    from rqmem.store.lease_commands import Moved
    from rqmem.worker.horse.channel import Channel, LeaseOrder
    from rqmem.worker.shared_memory import SharedPage


class LeaseWait:
    """The waits of one lease.

    Attributes:
        moved: jobs that have come, and that the lease has not taken yet.
    """

    def __init__(self, worker: Worker, order: LeaseOrder, page: SharedPage, channel: Channel) -> None:
        self._worker = worker
        self._order = order
        self._page = page
        self._channel = channel
        self._fronts = QueueFronts(worker.connection, order.queues)
        self.moved: list[Moved] = []

    def wait(self, seconds: float) -> bool:
        """Whether a job has come; False: it is not to wait, or the time is over. Raises redis-py's errors."""
        page = self._page
        page.waiting = True
        try:
            if page.recalled or page.stop_asked:
                return False
            self.moved = self._fronts.wait(seconds, self._channel.fileno())
        finally:
            page.waiting = False
        if self.moved:
            self._channel.tell()
        return bool(self.moved)

    def put_back(self) -> None:
        """What has come and was not taken, once Redis answers; also where Redis has taken it and the reply was lost."""
        for each in self.moved:
            queue, job_id = queue_of(self._worker, self._order.queues[each.queue]), each.id
            until_redis_answers(lambda: executions.put_back(queue, job_id), f"put job {job_id} back")  # noqa: B023

    def close(self) -> None:
        self._fronts.close()
