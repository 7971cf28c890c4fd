"""Waiting until one of some queues has a job, so that none is lost whoever dies meanwhile.

A script cannot wait. So each queue has a blocking move of its first job to RQ's intermediate queue, as stock RQ does it
for one queue. Whoever gets a job in this way puts it back, and then takes jobs with a script. If he is killed before,
it comes back as any job that somebody took and never began (`rqmem.worker.takeover`).

Of very many queues, or where Redis knows no such move, the first job is popped, as stock RQ does it for several queues.
Who is killed in the moment before he puts it back loses that one; who is told to stop does not.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from rqmem.rq_names import RQ_KEY_PREFIX
from rqmem.store.job_ids import is_job_id, tell_dropped
from rqmem.store.lease_commands import Moved
from rqmem.store.retrying import connection_with_short_timeout

MOST_QUEUES = 16
"""With moves each has a connection of its own, and commands of its own at the beginning and the end of a wait."""

_LATE_SECONDS = 5.0  # how late Redis may be in saying that nothing came
_STOP_SECONDS = 1.0
_AGAIN_SECONDS = 0.01


class QueueFronts:
    """The fronts of some queues, for one who waits there. Its methods raise redis-py's errors.

    Args:
        client: the connections are of its pool, until `close`.
        keeps: by moves, where a job is kept in Redis at all times.
    """

    def __init__(self, client: Redis, names: Sequence[str], *, keeps: bool = True) -> None:
        self._client = client
        self._keeps = keeps
        self._keys = [f"{RQ_KEY_PREFIX}:queue:{name}" for name in names]
        self._connections: list[Any] = []
        self._ids: list[int | None] = []

    def open(self) -> None:
        if self._connections:
            return
        self._ids = []
        try:
            for _ in self._keys if self._keeps else ("all",):
                self._connections.append(self._client.connection_pool.get_connection())
                self._ids.append(_client_id(self._connections[-1]))
        except BaseException:
            self.close(broken=True)
            raise

    def wait(self, seconds: float, wake: int) -> list[Moved]:
        """Wait at most this time for a job. Empty: none came, or the descriptor ``wake`` can be read.

        One job of several queues each, if they come at once.
        """
        self.open()
        try:
            timeout = f"{max(seconds, 0.001):.3f}"  # 0 would be for ever
            for connection, command in zip(self._connections, self._commands(timeout), strict=True):
                connection.send_command(*command)
            ready = self._poll(seconds, wake)
            replies = [self._reply(number) for number in ready]
            waiting = [number for number in range(len(self._connections)) if number not in ready]
            if waiting and self._end_waits(waiting, ready):
                replies += [self._reply(number) for number in waiting]
            elif waiting:
                self.close(broken=True)
        except BaseException:
            self.close(broken=True)
            raise
        return sorted(each for each in replies if each is not None)

    def _commands(self, timeout: str) -> list[tuple[str, ...]]:
        if not self._keeps:
            return [("BLPOP", *self._keys, timeout)]
        return [("BLMOVE", key, f"{key}:intermediate", "LEFT", "RIGHT", timeout) for key in self._keys]

    def close(self, *, broken: bool = False) -> None:
        """Give the connections back. ``broken``: they may still wait, and so are closed first."""
        for connection in self._connections:
            if broken:
                connection.disconnect()
            self._client.connection_pool.release(connection)
        self._connections = []

    def _poll(self, seconds: float, wake: int) -> list[int]:
        """The numbers of those that have a reply; empty: somebody wakes us."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        numbers = {}
        for number, connection in enumerate(self._connections):
            numbers[connection._sock.fileno()] = number
            poll.register(connection._sock, select.POLLIN)
        found = poll.poll(1000 * (seconds + _LATE_SECONDS))
        if not found:
            raise RedisTimeoutError("a wait for jobs did not end")
        return [numbers[number] for number, _ in found if number in numbers]

    def _reply(self, number: int) -> Moved | None:
        reply: Any = self._connections[number].read_response(disable_decoding=True)
        if reply is None:
            return None
        if self._keeps:
            return self._moved(number, reply)
        key, job_id = reply
        return self._moved(self._keys.index(key.decode()), job_id)

    def _moved(self, number: int, entry: bytes) -> Moved | None:
        """None: it is no id of a job. Nobody could read it, and so it is dropped."""
        if is_job_id(entry):
            return Moved(number, entry.decode())
        key = self._keys[number]
        if self._keeps:
            self._client.lrem(f"{key}:intermediate", 1, entry)  # type: ignore[arg-type]
        tell_dropped(key, entry)
        return None

    def _end_waits(self, numbers: list[int], ready: list[int]) -> bool:
        """Have these wait no longer; their replies follow. False: Redis does not let us, or does not answer.

        Then they are closed, and a job that such a one gets at this very moment comes back later.
        """
        try:
            if any(self._ids[number] is None for number in numbers):
                raise ResponseError("Redis does not tell the numbers of connections")
            if ready:
                return self._unblock(numbers, lambda commands: _answers(self._connections[ready[0]], commands))
            with connection_with_short_timeout(self._client, _STOP_SECONDS) as control:
                return self._unblock(numbers, lambda commands: [control.execute_command(*each) for each in commands])
        except RedisError:
            return False

    def _unblock(self, numbers: list[int], ask: Callable[[list[tuple[Any, ...]]], list[Any]]) -> bool:
        """Over another connection, and so perhaps before Redis has got the command to wait: then once more."""
        deadline = time.monotonic() + _STOP_SECONDS
        while numbers:
            answers = ask([("CLIENT", "UNBLOCK", self._ids[number]) for number in numbers])
            late = [number for number, answer in zip(numbers, answers, strict=True) if not int(answer)]
            numbers = [number for number in late if not self._has_reply(number)]
            if numbers and time.monotonic() > deadline:
                return False
        return True

    def _has_reply(self, number: int) -> bool:
        poll = select.poll()
        poll.register(self._connections[number]._sock, select.POLLIN)
        return bool(poll.poll(1000 * _AGAIN_SECONDS))


def _answers(connection: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Send them at once. Raises the first refusal, when all replies are read."""
    for command in commands:
        connection.send_command(*command)
    answers: list[Any] = []
    errors = []
    for _ in commands:
        try:
            answers.append(connection.read_response())
        except ResponseError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return answers


def _client_id(connection: Any) -> int | None:
    try:
        connection.send_command("CLIENT", "ID")
        return int(connection.read_response())
    except ResponseError:
        return None
