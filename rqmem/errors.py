"""Every error rqmem raises on purpose. Each message is one line: what is wrong, where, what to do.

``exit_code`` is what a command ends with when the error reaches it (0 done, 1 failed at run time,
2 bad usage or configuration); it is handled in one place, ``rqmem.cli``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rqmem.events import Breach


class RqmemError(Exception):
    """Base of all errors of rqmem but `MemoryLimitExceeded`."""

    exit_code = 1


class ConfigError(RqmemError):
    """A value given by a person (option, environment, class attribute, argument) cannot be used."""

    exit_code = 2


class RedisUnavailable(RqmemError):
    """The chosen Redis does not answer, or refuses us."""


class EmbeddedRedisError(RqmemError):
    """The embedded Redis server cannot be found, started or stopped."""


class SourceError(RqmemError):
    """Data handed to ``process_in_chunks`` cannot be cut, saved or resumed as asked."""


class JobNotImportable(RqmemError):
    """The worker cannot import a job's function. RQ's Retry counts: a deploy may be under way."""


class RunTakenOver(RqmemError):
    """This execution no longer owns its job: another worker took it over. Its writes are refused."""


class HorseLost(RqmemError):
    """The work-horse ended without a verdict and below its ceiling: somebody else killed it, or it crashed."""


class MemoryLimitExceeded(BaseException):
    """A job used more memory than its ceiling.

    Derives from `BaseException`, so that a job's ``except Exception`` does not swallow it. The
    breach record with all figures is in ``breach``.
    """

    def __init__(self, breach: Breach) -> None:
        super().__init__(breach.summary())
        self.breach = breach
