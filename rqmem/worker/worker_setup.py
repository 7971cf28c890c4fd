"""What is constant in one `rqmem.MemoryWorker`. Its parts get it in their constructors."""

from __future__ import annotations

from rqmem.config.settings import Config
from rqmem.policy.ceiling import effective_limit_mb
from rqmem.units import to_bytes
from rqmem.values import dataclass


@dataclass(frozen=True)
class Setup:
    """One worker, and the same in all processes that are forked from it.

    Attributes:
        config: its settings, as given. `HorsePool.config` also has what the start measures.
        kill_after_seconds: a job that still runs this long after its time limit is killed.
    """

    name: str
    config: Config
    kill_after_seconds: float = 60

    @property
    def limit_mb(self) -> float:
        """The ceiling in MB of jobs that declare none."""
        return effective_limit_mb(None, self.config.memory_mb, self.config.default_limit_mb, self.config.budget_mb)

    @property
    def limit_bytes(self) -> int:
        return to_bytes(self.limit_mb)
