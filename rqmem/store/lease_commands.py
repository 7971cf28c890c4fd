"""The commands that a horse sends under a lease and their replies, packed and parsed by hand. No I/O.

redis-py's packing costs 70 us a job, this one 10.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from hashlib import sha1
from typing import Any, Literal, NamedTuple, cast

from rqmem.child_ids import CHILD_MARK
from rqmem.store.scripts import source

Why = Literal["", "gone", "deleted", "status", "plain"]
"""Why a job was refused; ``lua/lease_step.lua`` says what each means."""


class Taken(NamedTuple):
    """A job that was taken. All as in Redis, so ``timeout`` and ``result_ttl`` may be empty: RQ's defaults.

    Attributes:
        queue: a number in the list of queues that `take` was given.
        data: RQ's call: serialised and, as a rule, compressed by zlib.
        created_at: tells this job from a later one with the same id.
    """

    queue: int
    id: bytes
    data: bytes
    timeout: bytes
    result_ttl: bytes
    created_at: bytes


class Moved(NamedTuple):
    """A job that was moved to the intermediate queue (`rqmem.store.queue_fronts`). ``queue``: as in `Taken`."""

    queue: int
    id: str


class Batch(NamedTuple):
    """What one `take` has taken, in order.

    Attributes:
        why: why it is no more: empty: there may be more; ``"empty"``: the queues are; ``"needs"``: the next job needs
            more than a lease does, and is the first of its queue; ``"suspended"``; ``"paused"``: the queue of a job
            that was moved is; ``"recalled"``: no more for this lease; ``"token"``: the lease has ended.
        needs: the field of RQ's hash because of which the next job is not for a lease.
    """

    jobs: list[Taken]
    why: str
    needs: str


class Stepped(NamedTuple):
    """The reply to a step.

    Attributes:
        next: why the next job may not begin; empty if it may.
        refused: job id -> why its outcome was not committed.
    """

    next: Why
    refused: dict[bytes, Why]


def pack_finished(
    queue: bytes, job_id: bytes, created_at: bytes, execution: bytes, start: float, end: float, ttl: int,
    result: bytes | None, run: bytes = b"",
) -> bytes:  # fmt: skip
    """A job that has finished, for `LeaseConnection.send_step`.

    Args:
        start, end: epoch seconds.
        ttl: seconds that the result is kept: 0: not at all, -1: for ever.
        result: serialised; None if the job returned None.
        run: the record of a memory-aware job's run (`rqmem.store.held_run`); empty: it has none.
    """
    began, ended = epoch(start), epoch(end)
    if result is None and not run:
        rest = _nothing_returned(ttl)
    else:
        text = b"" if result is None else b64encode(result)
        rest = pack((b"%d" % ttl, text, run, result or b"" if CHILD_MARK in job_id else b""))
    return (
        b"$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$27\r\n%b\r\n$27\r\n%b\r\n$17\r\n%b\r\n$17\r\n%b\r\n%b"
    ) % (
        len(queue), queue, len(job_id), job_id, len(created_at), created_at, len(execution), execution,
        iso(began), iso(ended), began, ended, rest,
    )  # fmt: skip


def pack_begins(job_id: bytes, execution: bytes, queue: bytes, start: float, run: bytes = b"") -> bytes:
    """A job that is about to begin, for `LeaseConnection.send_step`.

    ``run``: of a memory-aware job, the record of its run as it begins: a JSON list of fields and values.
    """
    began = epoch(start)
    return b"$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$27\r\n%b\r\n$17\r\n%b\r\n$%d\r\n%b\r\n" % (
        len(job_id), job_id, len(execution), execution, len(queue), queue, iso(began), began, len(run), run,
    )  # fmt: skip


def epoch(seconds: float) -> bytes:
    return b"%d.%06d" % divmod(int(seconds * 1_000_000 + 0.5), 1_000_000)  # half the time of b"%17.6f"


def iso(time_: bytes) -> bytes:
    """A time as RQ writes it, from what `epoch` gives."""
    second = time_[:-7]
    if _second[0] != second:
        _second[:] = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(second))).encode()
    return b"%b%bZ" % (_second[1], time_[-7:])


def command(name: str, names: Sequence[str], values: Sequence[str | int]) -> bytes:
    return pack_all("EVALSHA", sha(name), len(names), *names, *values)


def pack_all(*parts: str | int) -> bytes:
    return b"*%d\r\n%b" % (len(parts), pack(parts))


def pack(parts: Iterable[str | int | bytes]) -> bytes:
    encoded = (part if isinstance(part, bytes) else str(part).encode() for part in parts)
    return b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in encoded])


@lru_cache(maxsize=64)
def _nothing_returned(ttl: int) -> bytes:
    return pack((ttl, "", "", ""))


@cache
def sha(name: str) -> str:
    return sha1(source(name).encode()).hexdigest()


def stepped(reply: int | list[bytes]) -> Stepped:
    if reply == 0:
        return _DONE
    why, *refused = [part.decode() for part in cast("list[bytes]", reply)]
    ids = cast("list[bytes]", reply)[1::2]
    return Stepped(cast("Why", why), cast("dict[bytes, Why]", dict(zip(ids, refused[1::2], strict=True))))


def batch(reply: list[Any]) -> Batch:
    new = tuple.__new__  # a third of the time of `Taken`
    jobs = [new(Taken, fields) for fields in zip(*[iter(reply[2:])] * 6, strict=True)]
    return Batch(jobs, reply[0].decode(), reply[1].decode())


_DONE = Stepped("", {})
NOTHING_BEGINS = b"$0\r\n\r\n" * 6
GOES_ON = b"$0\r\n\r\n$7\r\ngoes on\r\n" + b"$0\r\n\r\n" * 4
"""For `LeaseConnection.send_step`, from another process than the horse: the job that has begun goes on."""
_second = [b"", b""]
