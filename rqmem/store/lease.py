"""Leases: a worker takes some jobs at once, and its horse runs and commits them on its own.

An id in the list ``taken`` of a worker is the right to begin that job and to commit its outcome. A script that does not
find it there refuses. Ids also stand in RQ's intermediate queues, so that RQ's maintenance finds them if no worker of
ours ever comes again.

The horse takes and commits over a `LeaseConnection`. Here is what the worker does, and others in its place.

Not here: when to lease (`rqmem.policy.lease`), who watches and who runs (`rqmem.worker`).
"""

from __future__ import annotations

import time
from typing import Any, Literal, cast

from redis import Redis

from rqmem.rq_names import RQ_KEY_PREFIX, WORKER_EXECUTIONS_KEY_TEMPLATE
from rqmem.store import codec, keys
from rqmem.store.execution_records import Owner
from rqmem.store.held_run import NO_RECORD, HeldRecord
from rqmem.store.lease_commands import epoch, iso
from rqmem.store.scripts import of_each, script
from rqmem.values import dataclass

_RECORDS_SECONDS = 90  # RQ's records of a run taken over; its maintenance may fail it afterwards


@dataclass(frozen=True)
class LeaseRecord:
    """The lease of a worker, as it stands in Redis.

    Attributes:
        at: the job that was about to begin when the horse last said so, or empty.
        owner: the worker's process; ``execution`` and ``queue`` are empty.
        queues: names of the queues that it takes from.
    """

    token: str
    at: str
    owner: Owner
    queues: tuple[str, ...] = ()


@dataclass(frozen=True)
class TakenOver:
    """``put_back``: how many jobs are in their queues again. ``begun``: the job that has become an ordinary run."""

    put_back: int
    begun: str


def show(
    connection: Redis, worker: str, queue: str, job_id: str, created_at: str, start: float, owner: Owner,
    seconds: int, record: HeldRecord = NO_RECORD, *, hand_over: bool = False,
) -> Literal["shown", "gone", "ended"]:  # fmt: skip
    """Have RQ show a job of the lease as running. Safe to repeat.

    Args:
        start: when it began, epoch seconds.
        owner: of this run; its ``execution`` is the one that the horse gave it.
        seconds: how long RQ's records of the run live without a heartbeat.
        record: of the job's run, as far as Redis does not have it; written if the job is shown.
        hand_over: take it out of the lease. From now on it is an execution like any other, and RQ's own methods commit
            its outcome.

    Returns:
        ``"gone"``: the job is not in the lease any more. ``"ended"``: it was deleted or ended by somebody before it was
        shown; handed over, it is not in the lease any more.
    """
    answer = script(connection, "lease_show")(
        keys=[keys.taken(worker), keys.lease(worker), keys.RUNNING, _executions_key(worker)],
        args=[
            *(RQ_KEY_PREFIX, worker, queue, job_id, created_at, owner.execution, iso(epoch(start)), epoch(start)),
            *(int(time.time()), seconds, codec.to_json(owner), int(hand_over), keys.returned("")),
            *(keys.run(""), keys.results(""), keys.KEEP_SECONDS, record.text, *record.results),
        ],
    )
    return _SHOWN[answer]


def give_back(connection: Redis, worker: str, token: str, keep: str = "") -> int | None:
    """Put the jobs of a lease back to the front of their queues, in order. Safe to repeat.

    What has finished must have been committed before, else it runs again. Jobs that somebody has ended meanwhile are
    dropped.

    Args:
        keep: the job that runs. Then the lease stays, and takes no more; without one it ends. The horse must know of
            the recall before, and begin no other job: it could be one that is given back.

    Returns:
        How many are in their queues again; None: the worker has another lease by now.
    """
    names = [keys.taken(worker), keys.lease(worker), keys.LEASES]
    count = script(connection, "lease_give_back")(
        keys=names, args=[RQ_KEY_PREFIX, worker, token, keep, keys.returned("")]
    )
    return None if count < 0 else int(count)


def take_over(connection: Redis, worker: str, token: str) -> TakenOver | None:
    """End the lease of a dead worker. None: somebody else has, or the worker has another lease by now.

    The job that it had begun becomes a run that the dead worker owns, in `keys.RUNNING`: who takes over such runs takes
    over this one.
    """
    answer = script(connection, "lease_take_over")(
        keys=[keys.taken(worker), keys.lease(worker), keys.LEASES, keys.RUNNING, _executions_key(worker)],
        args=[
            *(RQ_KEY_PREFIX, worker, token, int(time.time()), _RECORDS_SECONDS, keys.returned("")),
            *(keys.run(""), keys.KEEP_SECONDS),
        ],
    )
    return None if answer == -1 else TakenOver(int(answer[0]), answer[1].decode())


def leases(connection: Redis) -> dict[str, LeaseRecord]:
    """All leases, by the name of the worker."""
    names = [name.decode() for name in cast("set[bytes]", connection.smembers(keys.LEASES))]
    found = of_each(connection, Redis.hmget, map(keys.lease, names), ["token", "at", "owner", "queues"])
    return {
        name: LeaseRecord(
            token.decode(),
            (at or b"").decode(),
            codec.from_json(Owner, owner),
            tuple((queues or b"").decode().split("\n")),
        )
        for name, (token, at, owner, queues) in zip(names, found, strict=True)
        if token and owner
    }


def taken(connection: Redis) -> set[str]:
    """Ids of the jobs that leases have taken and not ended."""
    names = [name.decode() for name in cast("set[bytes]", connection.smembers(keys.LEASES))]
    lists = of_each(connection, Redis.lrange, map(keys.taken, names), 0, -1)
    return {job_id.decode() for ids in lists for job_id in ids}


def was_committed(connection: Redis, job_id: str, execution: str) -> bool:
    """Whether the last result of a job is that of this execution: for a step whose reply was lost."""
    last = cast("list[Any]", connection.xrevrange(f"{RQ_KEY_PREFIX}:results:{job_id}", count=1))
    return bool(last) and last[0][1].get(b"execution_id") == execution.encode()


def _executions_key(worker: str) -> str:
    return WORKER_EXECUTIONS_KEY_TEMPLATE.format(worker)


_SHOWN: dict[int, Literal["shown", "gone", "ended"]] = {1: "shown", 0: "gone", -1: "ended"}
