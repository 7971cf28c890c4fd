"""What a worker and its warm horse say to each other.

The worker gives an order, the horse answers with a report when the job is committed. An end of file on either side
means that the other has ended. Nothing in here knows RQ's records.
"""

from __future__ import annotations

import base64
import contextlib
import marshal
import socket
from dataclasses import dataclass as mutable_dataclass

from rqmem.store import codec
from rqmem.store.execution_records import Owner
from rqmem.values import dataclass, field

_MESSAGE_BYTES = 64 * 1024
_LOOK = b"look"


@dataclass(frozen=True)
class Order:
    """Run this execution.

    Attributes:
        created_at: the execution's, in seconds since the epoch.
        began_in: names the data of Redis (`rqmem.store.keys.EPOCH`).
        fields: of the job, as `packed`; empty: the horse reads them.
        begun: it was started when it was taken.
    """

    job_id: str
    job_type: str
    queue: str
    execution_id: str
    created_at: float
    began_in: str
    fields: str = ""
    begun: bool = False


@dataclass(frozen=True)
class LeaseOrder:
    """Take jobs and run them.

    Attributes:
        queues: names, the first ones first.
        clean: the only job types that may run, since what others have left in the horse is much; None: any may.
        k, most_k: how many jobs are taken at once, at first and at most.
        most_jobs: of the whole lease; 0: any number.
        batch: how many finished jobs are committed at once.
        seconds: no batch is taken later than that.
        wait_seconds: where the queues are empty, how long to wait for the first job; later ones are waited for until
            ``seconds`` are over. 0: it does not wait.
    """

    token: str
    queues: list[str]
    owner: Owner
    clean: list[str] | None
    k: int
    most_k: int
    most_jobs: int
    batch: int
    seconds: float
    wait_seconds: float
    began_in: str


@mutable_dataclass
class Ran:
    """Jobs of one kind that have finished under a lease.

    Attributes:
        counted, tenant, needed_mb: as in `rqmem.store.history.history_records.Run`; as are the figures of chunks, items
            and collections, which are sums; ``largest_chunk`` is the largest of them.
        times: how many; ``seconds``: that they took in all.
        peak_bytes: that they used at most; 0: no more than what was there before.
        limit_bytes, declared_bytes: their ceiling, and the one that they declare; 0: none.
    """

    job: str
    times: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    limit_bytes: int = 0
    declared_bytes: int = 0
    counted: bool = True
    tenant: str = ""
    chunks: int = 0
    items: int = 0
    largest_chunk: int = 0
    collections: int = 0
    freed_mb: float = 0.0
    needed_mb: float | None = None


@dataclass(frozen=True)
class LeaseEnd:
    """How a lease went.

    Attributes:
        why: it ended, for the log.
        ran: the jobs that have finished.
        k: how many jobs were taken at once last.
        unfit: the next job of the queue, or what runs here, is not for a lease.
        handed_over: the last job was no plain success, and is not in ``ran``.
    """

    why: str = ""
    ran: tuple[Ran, ...] = ()
    k: int = 1
    unfit: bool = False
    handed_over: bool = False

    @property
    def jobs(self) -> int:
        return sum(each.times for each in self.ran)


@dataclass(frozen=True)
class Report:
    """The job is committed.

    Attributes:
        kept_bytes: what the horse holds now beyond what it held when it was forked.
        threads: how many threads it has, those of C code too.
        new_threads: names of those that came with this job, as far as Python knows them.
        left_bytes: what the job left for good, where the horse has tidied right before and right after it.
        grew: kinds of objects that grew since the horse first tidied, where it has now (`horse.kinds_that_stay`).
        changed: what of the process is not as it was when the horse began (`traces.changed`).
    """

    kept_bytes: int
    threads: int = 1
    new_threads: list[str] = field(default_factory=list)
    left_bytes: int | None = None
    grew: list[tuple[str, int, float]] = field(default_factory=list)
    changed: str = ""
    lease: LeaseEnd | None = None


def packed(fields: dict[bytes, bytes]) -> str:
    """The fields of a job for an order; empty where they are not known, or too much."""
    text = base64.b64encode(marshal.dumps(fields)).decode() if fields else ""
    return text if len(text) < _MESSAGE_BYTES // 2 else ""


def unpacked(text: str) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = marshal.loads(base64.b64decode(text))
    return fields


class Channel:
    """One end of the pair over which orders and reports go, one message each."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, message: Order | LeaseOrder | Report) -> bool:
        """False: the other side has ended."""
        try:
            self._end.send(f"{type(message).__name__} {codec.to_json(message)}".encode())
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def tell(self) -> None:
        """Have the other side look at the page: the horse has a job after a wait, or is to wait no longer."""
        with contextlib.suppress(OSError):  # it has ended, or has been told often enough
            self._end.send(_LOOK, socket.MSG_DONTWAIT)

    def told(self) -> bool:
        """Whether what has come is only that, which is read then."""
        with contextlib.suppress(OSError):
            if self._end.recv(len(_LOOK), socket.MSG_DONTWAIT | socket.MSG_PEEK) == _LOOK:
                self._end.recv(_MESSAGE_BYTES)
                return True
        return False

    def order(self) -> Order | LeaseOrder | None:
        """The next order; None: the worker has ended, or wants us to."""
        while (message := self._end.recv(_MESSAGE_BYTES)) == _LOOK:
            pass  # it came when the wait was over
        kind, _, text = message.partition(b" ")
        if not text:
            return None
        return codec.from_json(LeaseOrder, text) if kind == b"LeaseOrder" else codec.from_json(Order, text)

    def report(self) -> Report | None:
        """The report of the job that was ordered; None: the horse has ended without one."""
        try:
            while (text := self._end.recv(_MESSAGE_BYTES, socket.MSG_DONTWAIT)) == _LOOK:
                pass
        except (ConnectionResetError, BlockingIOError):  # blocking: a child of the dead horse holds its end
            return None
        return codec.from_json(Report, text.partition(b" ")[2]) if text else None

    def closed(self) -> bool:
        """Whether the other side has closed its end, and said nothing that is not read yet."""
        try:
            return not self._end.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._end.close()
