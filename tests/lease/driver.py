"""Leases by hand: one call, one script."""

from __future__ import annotations

import time
from collections.abc import Sequence
from socket import SHUT_RDWR
from typing import Any

from redis import Redis

from rqmem.store import keys, lease
from rqmem.store.execution_records import Owner
from rqmem.store.held_run import NO_RECORD, HeldRecord
from rqmem.store.lease_commands import GOES_ON, Batch, Moved, Stepped, Taken, pack_begins, pack_finished
from rqmem.store.lease_connection import LeaseConnection

QUEUES = ("high", "low")
PROCESS = Owner("", "ada", "", "host", 1, 2)


class Lease:
    """A lease of the worker ada, from the queues low and high."""

    def __init__(self, connection: Redis, token: str = "token", worker: str = "ada") -> None:
        self.connection, self.worker, self.token = connection, worker, token
        self.link = LeaseConnection(connection, worker, token)

    def take(
        self, k: int = 10, queues: Sequence[str] = QUEUES, opens: bool = True, moved: Sequence[Moved] = ()
    ) -> Batch:
        self.link.send_take(queues, k, PROCESS if opens else None, moved)
        return self.link.read_batch()

    def step(self, *finished: Taken, begins: Taken | None = None, **options: Any) -> Stepped:
        self.send_step(*finished, begins=begins, **options)
        return self.link.read_step()

    def step_again(self, *finished: Taken, begins: Taken | None = None) -> Stepped:
        """As a horse whose connection was lost: over a new one."""
        self.link.close()
        self.link = LeaseConnection(self.connection, self.worker, self.token)
        return self.step(*finished, begins=begins)

    def send_step(
        self,
        *finished: Taken,
        begins: Taken | None = None,
        ttl: int = 500,
        result: bytes = b"",
        by_worker: bool = False,
        run: bytes = b"",
        opening: bytes = b"",
    ) -> None:
        """``by_worker``: as the worker commits, while its horse runs the next one.

        ``run``: the record of the run of each; ``opening``: that of the next one, as it begins.
        """
        packed = [
            pack_finished(
                queue(each),
                each.id,
                each.created_at,
                execution(each),
                time.time(),
                time.time(),
                ttl,
                result or None,
                run,
            )
            for each in finished
        ]
        start = GOES_ON if by_worker else b""
        if begins:
            start = pack_begins(begins.id, execution(begins), queue(begins), time.time(), opening)
        self.link.send_step(packed, 0.5 * len(finished), start)

    def show(self, job: Taken, record: HeldRecord = NO_RECORD, *, hand_over: bool = False) -> str:
        owner = Owner(execution(job).decode(), self.worker, queue(job).decode(), "host", 1, 2)
        made, start = job.created_at.decode(), time.time()
        return lease.show(
            self.connection, self.worker, owner.queue, job.id.decode(), made, start, owner, 90, record,
            hand_over=hand_over,
        )  # fmt: skip

    def give_back(self, keep: str = "") -> int | None:
        return lease.give_back(self.connection, self.worker, self.token, keep)


def queue(job: Taken) -> bytes:
    return QUEUES[job.queue].encode()


def execution(job: Taken) -> bytes:
    return b"execution-of-" + job.id


def ids(batch: Batch) -> list[str]:
    return [each.id.decode() for each in batch.jobs]


def cut(link: LeaseConnection) -> None:
    """The connection is gone, with all replies that were not read."""
    socket = link._connection._sock  # type: ignore[attr-defined]
    socket.shutdown(SHUT_RDWR)
    while socket.recv(1 << 20):
        pass


def taken(connection: Redis, worker: str) -> list[str]:
    """The ids of the jobs that a worker has taken and not ended, in order."""
    raw: Any = connection.lrange(keys.taken(worker), 0, -1)
    return [job_id.decode() for job_id in raw]
