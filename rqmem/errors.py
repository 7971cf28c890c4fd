"""Every error rqmem raises on purpose. Each message is one line: what is wrong, where, what to do.

``exit_code`` is what a command ends with when the error reaches it (0 done, 1 failed at run time,
2 bad usage or configuration); it is handled in one place, ``rqmem.cli``.
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any, ClassVar

from rqmem.child_ids import child_id
from rqmem.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from rqmem.events import Breach


class RqmemError(Exception):
    """Base of all errors of rqmem but `MemoryLimitExceeded`."""

    exit_code = 1


class ConfigError(RqmemError):
    """A value given by a person (option, environment, class attribute, argument) cannot be used."""

    exit_code = 2


class UntrustedFile(ConfigError):
    """A file, directory or link belongs to another user, or others may write to it, and we would have trusted it."""


class UnsupportedRq(RqmemError):
    """The installed RQ differs from the versions that this rqmem knows. Jobs could run without a ceiling on it."""

    exit_code = 2


class NameTaken(RqmemError, ValueError):
    """A living worker has the name that this one was given. (RQ raises ValueError then.)"""


class RedisUnavailable(RqmemError):
    """The chosen Redis does not answer, or refuses us."""


class EmbeddedRedisError(RqmemError):
    """The embedded Redis server cannot be found, started or stopped."""


class RedisTakesAllButThis(RqmemError):
    """Redis answers, but what was to be written fails each time: it is larger than the server takes, say."""


class WorkerBroken(RqmemError):
    """The worker ended by an error that nobody handled. Its traceback is in the log."""


class SourceError(RqmemError):
    """Data handed to ``process_in_chunks`` cannot be cut, saved or resumed as asked."""


class SourceChanged(SourceError):
    """The data are not those that a cursor or a slice belongs to: only from its start can the job run again."""


class ItemTooLarge(RqmemError):
    """One item alone does not fit below the ceiling of a job with ``on_breach = "split"``."""


class JobNotImportable(RqmemError):
    """The worker cannot import a job's function. RQ's Retry counts: a deploy may be under way."""


class UnreadableJob(RqmemError):
    """Fields of a job in Redis are nothing that RQ can have written. The job has not run."""


class SignatureError(RqmemError):
    """The data of a job are not signed with a key of this process. Nothing of them was deserialised."""


class RunTakenOver(RqmemError):
    """This execution no longer owns its job: another worker took it over. Its writes are refused."""


class JournalVersionError(RqmemError):
    """The journal on this Redis was written by an rqmem whose values this one cannot read. ``what``: without advice."""

    ADVICE = "use the rqmem that wrote it, or forget it with 'rqmem journal clear'"

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: {self.ADVICE}")
        self.what = what


class UnknownName(RqmemError):
    """No job, job type or worker has that name; near ones are named."""

    exit_code = 2


@dataclass(frozen=True)
class ChildFailure:
    """A child of a split that failed: its number, and what went wrong in one line."""

    number: int
    error: str


class ChildJobsFailed(RqmemError):
    """Children of a split failed, and the job does not go on without them. ``failures`` has them all."""

    def __init__(self, job_id: str, total: int, failures: list[ChildFailure]) -> None:
        shown = "; ".join(f"{child_id(job_id, each.number)}: {each.error}" for each in failures[:5])
        more = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
        super().__init__(
            f"{len(failures)} of {total} child jobs failed ({shown}{more}): 'rqmem retry {job_id}' runs those once more"
        )
        self.failures = failures


class HorseLost(RqmemError):
    """The work-horse ended without a verdict and below its ceiling: somebody else killed it, or it crashed.

    ``by_somebody``: by a signal that is no sign of memory or of a crash.
    """

    def __init__(self, text: str, *, by_somebody: bool = False) -> None:
        super().__init__(text)
        self.by_somebody = by_somebody


class JobEvicted(HorseLost):
    """The pool had too little memory for all its jobs, and killed this one."""


class HorseTooHeavy(BaseException):
    """This horse holds too much memory for the job, which should begin in a new one. Never leaves `rqmem.worker`.

    Derives from `BaseException`, so that nothing between the job and its worker swallows it.
    """


class SplitInstead(BaseException):
    """This execution does not go on: what is left of its data has become child jobs. Never leaves `rqmem`.

    Derives from `BaseException`, so that nothing between the job and its worker swallows it.
    """


class PlannedStop(BaseException):
    """The worker wants to stop, and this job has saved where it is: it goes on elsewhere. Never leaves `rqmem`.

    Derives from `BaseException`, so that nothing between the job and its worker swallows it.
    """


class MemoryLimitExceeded(BaseException):
    """A job used more memory than its ceiling.

    Derives from `BaseException`, so that a job's ``except Exception`` does not swallow it. The
    breach record with all figures is in ``breach``.
    """

    when_dropped: ClassVar[Callable[[MemoryLimitExceeded], None] | None] = None
    """Called with each one that goes: `rqmem.worker.horse.swallowed_breaches`."""

    def __init__(self, breach: Breach) -> None:
        super().__init__(breach.summary())
        self.breach = breach

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.breach,)

    def __del__(self) -> None:
        if MemoryLimitExceeded.when_dropped is not None:
            MemoryLimitExceeded.when_dropped(self)

    def retold(self, breach: Breach, gave_up: str = "") -> None:
        """The record is complete now: the message says the same; ``gave_up``: and why the job does not go on."""
        self.args, self.breach = (breach.summary() + gave_up,), breach


_GROUP: Any = getattr(builtins, "BaseExceptionGroup", ())  # Python 3.11


def breach_in(error: BaseException | None) -> MemoryLimitExceeded | None:
    """The breach that ``error`` is, holds (as a group), or was raised in place of (by a ``finally``, say)."""
    while error is not None:
        if isinstance(error, MemoryLimitExceeded):
            return error
        for each in error.exceptions if isinstance(error, _GROUP) else ():
            if (found := breach_in(each)) is not None:
                return found
        error = error.__cause__ or error.__context__
    return None
