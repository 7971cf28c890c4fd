"""What RQ writes in a transaction, written only if the execution still owns its job: in one round trip.

RQ's own methods fill the pipeline of a `Guarded` connection. Executed, it sends their commands to one script, which
looks first (`lua/guarded.lua`). Where anything is out of the ordinary nothing is written, and `Refused` is raised: the
caller then looks what it is, and takes RQ's way.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from redis import Redis
from redis.client import Pipeline

from rqmem.rq_names import Execution, Job, Queue
from rqmem.store import keys
from rqmem.store.scripts import script


class Refused(Exception):
    """Nothing was written."""


class Guarded:
    """A connection whose transactions are guarded.

    Args:
        what: ``"begin"``: the job is queued, and begins. ``"end"``: the job is started and has no dependents, and ends.
        absent: keys that do not exist, of which RQ would set the time to live all the same.
    """

    def __init__(
        self, connection: Redis, job: Job, execution: Execution, what: Literal["begin", "end"],
        absent: Collection[str] = (),
    ) -> None:  # fmt: skip
        self._connection, self._absent = connection, absent
        self._names = [keys.RUNNING, job.key, job.started_job_registry.key, job.dependents_key]
        self._values = [what, job.id, execution.id]

    def pipeline(self, *_: Any, **__: Any) -> Pipeline:
        return GuardedPipeline(self._connection, self._names, self._values, self._absent)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class ClaimGuard(Guarded):
    """A connection whose transactions claim the job, unless it is no longer this worker's: somebody has put it back."""

    def __init__(self, connection: Redis, job: Job, worker: str) -> None:
        queue = Queue(job.origin, connection=connection)
        self._connection, self._absent = connection, ()
        self._names = [keys.RUNNING, job.key, queue.intermediate_queue_key, queue.key]
        self._values = ["claim", job.id, worker]


def _joined(stack: list[tuple[tuple[Any, ...], Any]], absent: Collection[str]) -> list[list[Any]]:
    """The commands; two that set fields of the same hash, one right after the other, are one."""
    commands: list[list[Any]] = []
    for command, _ in stack:
        if command[0] == "EXPIRE" and command[1] in absent:
            continue
        if command[0] == "HSET" and commands and list(command[:2]) == commands[-1][:2]:
            commands[-1] += command[2:]
        else:
            commands.append(list(command))
    return commands


class Existing:
    """A connection whose transactions set no field of a hash that is gone.

    A heartbeat may come just after the end of its job. RQ's would leave records that end by themselves after minutes.
    """

    def __init__(self, connection: Redis) -> None:
        self._connection = connection

    def pipeline(self, *_: Any, **__: Any) -> Pipeline:
        return _ExistingPipeline(self._connection)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class _ExistingPipeline(Pipeline):
    def __init__(self, connection: Redis) -> None:
        super().__init__(connection.connection_pool, connection.response_callbacks, True, None)
        self._redis = connection

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        words = [word for command, _ in self.command_stack for word in (len(command), *command)]
        self.reset()
        return list(script(self._redis, "beat")(args=words)) if words else []


class GuardedPipeline(Pipeline):
    def __init__(self, connection: Redis, names: list[str], values: list[str], absent: Collection[str]) -> None:
        super().__init__(connection.connection_pool, connection.response_callbacks, True, None)
        self._redis, self._names, self._values, self._absent = connection, names, values, absent

    def watch(self, *names: Any) -> None:
        """The script looks instead."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        words = [word for command in _joined(self.command_stack, self._absent) for word in (len(command), *command)]
        has_scripts = bool(self.scripts)  # a script cannot run another one
        self.reset()
        replies = None if has_scripts else script(self._redis, "guarded")(keys=self._names, args=self._values + words)
        if not replies:
            raise Refused
        return list(replies)
