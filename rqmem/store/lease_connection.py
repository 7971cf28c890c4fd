"""The connection over which a horse takes and commits the jobs of a lease, without waiting for replies."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from rqmem.rq_names import RQ_KEY_PREFIX, WORKER_EXECUTIONS_KEY_TEMPLATE, WORKERS_SUSPENDED
from rqmem.store import codec, keys, lease_commands, ledger
from rqmem.store.execution_records import Owner
from rqmem.store.lease_commands import Batch, Moved, Stepped
from rqmem.store.scripts import source

_ENOUGH_BYTES = 1_000_000  # of arguments in one batch: they stand in the horse's memory
_SCRIPTS = ("lease_take", "lease_step")  # those that are sent without redis-py's help


class LeaseConnection:
    """One connection of a worker or its horse, for commands about the worker's lease.

    Args:
        client: the connection is one of its pool; `close` gives it back.
        token: of this lease, not used before.
    """

    def __init__(self, client: Redis, worker: str, token: str) -> None:
        self.token = token
        self._pool = client.connection_pool
        self._connection = self._pool.get_connection()
        self._socket = self._connection._sock
        self._owed: deque[tuple[str, bytes]] = deque()
        self._replies: deque[Any] = deque()
        self._lost = False
        self._takes: dict[tuple[object, ...], bytes] = {}  # packed: with batches of one that is a fifth of the CPU time
        self._worker = worker
        self._keys = [keys.taken(worker), keys.lease(worker)]
        of_worker = (f"{RQ_KEY_PREFIX}:worker:{worker}", WORKER_EXECUTIONS_KEY_TEMPLATE.format(worker))
        names = [*self._keys, keys.RUNNING, *of_worker]
        step: tuple[str | int, ...] = (
            "EVALSHA",
            lease_commands.sha("lease_step"),
            len(names),
            *names,
            RQ_KEY_PREFIX,
            worker,
            *(keys.run(""), keys.results(""), keys.children(""), keys.gathered("")),
            *(keys.ENDED_SPLITS, ledger.KEPT_ENDED, keys.KEEP_SECONDS, keys.WAITING_SECONDS),
        )
        self._step, self._step_parts = lease_commands.pack(step), len(step) + 9

    @property
    def owed(self) -> int:
        return len(self._owed)

    @property
    def next_is_batch(self) -> bool:
        """Whether the next reply is that to a `send_take`."""
        return self._owed[0][0] == "take"

    def send_take(self, queues: Sequence[str], k: int, owner: Owner | None = None, moved: Sequence[Moved] = ()) -> None:
        """Take up to ``k`` jobs from the queues, the first ones first.

        Args:
            owner: opens the lease; None: it is open.
            moved: jobs that go back to the front of their queues before that.
        """
        same = k, owner, *moved, *queues
        if (command := self._takes.get(same)) is None:
            self._takes.clear()
            command = self._takes[same] = self._take_command(queues, k, owner, moved)
        self._send("take", command)

    def _take_command(self, queues: Sequence[str], k: int, owner: Owner | None, moved: Sequence[Moved]) -> bytes:
        names = [*self._keys, keys.LEASES, WORKERS_SUSPENDED, keys.PAUSED]
        opens = codec.to_json(owner) if owner is not None else ""
        values: list[str | int] = [RQ_KEY_PREFIX, self._worker, self.token, k, _ENOUGH_BYTES, opens, keys.run("")]
        values += [len(moved), *(part for each in moved for part in each), *queues]
        return lease_commands.command("lease_take", names, values)

    def send_step(self, finished: Sequence[bytes], seconds: float, begins: bytes = b"") -> None:
        """Commit what has ``finished`` (`pack_finished`), in the order in which it ran; and say what ``begins``.

        Raises redis-py's errors. After a lost connection the same may be sent over a new one. What Redis had done is
        refused as ``"gone"`` then; `rqmem.store.lease.was_committed` tells.

        Args:
            seconds: the time that those jobs took in all.
            begins: `pack_begins`; `GOES_ON`; or empty: none.
        """
        head = b"*%d\r\n%b" % (self._step_parts + 12 * len(finished), self._step)
        now_text, spent, count = b"%d" % time.time(), b"%f" % seconds, b"%d" % len(finished)
        body = b"$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
            len(now_text), now_text, len(spent), spent, len(count), count,
        )  # fmt: skip
        self._send("step", b"".join((head, body, begins or lease_commands.NOTHING_BEGINS, *finished)))

    def read_batch(self) -> Batch:
        """The next reply, which is that to a `send_take`. Raises redis-py's errors."""
        return cast("Batch", self.read())

    def read_step(self) -> Stepped:
        """The next reply, which is that to a `send_step`. Raises redis-py's errors."""
        return cast("Stepped", self.read())

    def read(self) -> Batch | Stepped:
        """The next reply. Raises redis-py's errors."""
        kind, _ = self._owed[0]
        if not self._replies:
            self._replies.append(self._read_reply())
            if isinstance(self._replies[0], NoScriptError):
                self._load_and_resend()
        reply = self._replies.popleft()
        self._owed.popleft()
        if isinstance(reply, Exception):
            raise reply
        return lease_commands.stepped(reply) if kind == "step" else lease_commands.batch(reply)

    def close(self, *, broken: bool = False) -> None:
        """Give the connection back to its pool. One with unread replies, or ``broken``, is closed first."""
        if self._owed or broken:
            self._connection.disconnect()
        self._owed.clear()
        self._replies.clear()
        self._pool.release(self._connection)

    def _send(self, kind: str, command: bytes) -> None:
        self._owed.append((kind, command))
        self._check()
        self._write(command)

    def _check(self) -> None:
        # redis-py would silently open another one, and replies would answer other commands. A job's code may have
        # closed this one, with all of its client.
        if self._lost or self._connection._sock is not self._socket:
            raise RedisConnectionError("the connection was lost")

    def _write(self, command: bytes) -> None:
        try:
            # without a PING, whose reply nobody would read
            self._connection.send_packed_command([command], check_health=False)
        except (RedisConnectionError, RedisTimeoutError):
            self._lost = True
            raise

    def _read_reply(self) -> Any:
        """A value, or an error of Redis."""
        self._check()
        try:
            return self._connection.read_response(disable_decoding=True)
        except (RedisConnectionError, RedisTimeoutError):
            self._lost = True
            raise
        except ResponseError as error:
            return error

    def _load_and_resend(self) -> None:
        """Redis has forgotten the scripts (a restart, a failover, SCRIPT FLUSH): load them; repeat what was refused."""
        self._replies.extend([self._read_reply() for _ in range(len(self._owed) - 1)])
        for name in _SCRIPTS:
            self._write(lease_commands.pack_all("SCRIPT", "LOAD", source(name)))
            self._read_reply()
        for number, (_, command) in enumerate(self._owed):
            if isinstance(self._replies[number], NoScriptError):
                self._write(command)
                self._replies[number] = self._read_reply()
