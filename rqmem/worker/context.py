"""What the parts of one `rqmem.MemoryWorker` share. It imports none of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rqmem.policy.ceiling import effective_limit_mb
from rqmem.units import to_bytes
from rqmem.worker.shared_memory import SharedPage

if TYPE_CHECKING:
    from redis import Redis

    from rqmem.config.settings import Config
    from rqmem.rq_names import Execution, Job
    from rqmem.worker.profiling import Capturing
    from rqmem.worker.recorder import Recorder


class Heartbeat(Protocol):
    """What the parts of a worker need of its heart (`rqmem.worker.heartbeat`)."""

    @property
    def away(self) -> bool: ...
    @property
    def steady(self) -> bool: ...
    @property
    def put_back(self) -> int: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def running(self, job: Job, execution: Execution) -> None: ...
    def idle(self) -> None: ...
    def soon(self, errand: Callable[[Redis], object]) -> None: ...
    def waits_for_lost(self) -> bool: ...
    def machine_killed_lately(self) -> bool: ...


@dataclass
class Context:
    """One worker. A fork of it, a horse for example, has a copy.

    Attributes:
        name: the worker's.
        config: its settings. Startup completes them, before the first horse.
        kill_after_seconds: a job that goes on for so long after its time limit is killed.
        page: shared with the horse of the job that runs, or ran last.
        forking_pid: the process that forks horses.
        heart: None outside of `work`.
        recorder: None before the first job.
        captures: None without ``--profile``.
        epoch: of the data that Redis has now (`rqmem.store.keys.EPOCH`).
        began_in: the epoch in which the execution began; empty: nobody knows.
        asked_to_stop: the worker is to end after the running job.
        watching: a horse works, so nothing in the main thread may wait for Redis.
    """

    name: str
    config: Config
    kill_after_seconds: float
    page: SharedPage | None = None
    forking_pid: int = 0
    heart: Heartbeat | None = None
    recorder: Recorder | None = None
    captures: Capturing | None = None
    epoch: str = ""
    began_in: str = ""
    asked_to_stop: bool = False
    watching: bool = False

    @property
    def limit_mb(self) -> float:
        """The ceiling in MB of jobs that declare none."""
        return effective_limit_mb(None, self.config.memory_mb, self.config.default_limit_mb)

    @property
    def limit_bytes(self) -> int:
        return to_bytes(self.limit_mb)

    def new_page(self) -> SharedPage:
        """The page of a horse that this process is about to fork."""
        self.forking_pid = os.getpid()
        self.page = SharedPage.new(self.limit_bytes)
        return self.page
