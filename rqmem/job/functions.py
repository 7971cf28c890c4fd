"""Plain functions as memory-aware jobs: `memory_aware` declares a ceiling, `current_memory` gives checkpoints.

Any function that is a job gets the worker's ceiling. A decorated one has a ceiling of its own, checkpoints and a final
line in the log, with or without a `MemoryWorker`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from rqmem.errors import ConfigError, RqmemError
from rqmem.job.checked import checked_limit, checked_steps
from rqmem.job.per_type import PER_TYPE, PerType, checked, tenant_of

if TYPE_CHECKING:
    from rqmem.job.run import JobRun

P = ParamSpec("P")
R = TypeVar("R")

DECLARED = "__rqmem_limit_mb__"
"""Attribute of a decorated function: the ceiling that it declares, in MB, or None."""
ON_BREACH_OF_FUNCTION = "__rqmem_on_breach__"
_CHOICES = ("fail", "escalate")

_current: ContextVar[JobRun | None] = ContextVar("rqmem_current_memory", default=None)


def memory_aware(
    memory_limit_mb: float | None = None,
    *,
    on_breach: str = "fail",
    escalate_to: Sequence[float | tuple[float, str]] = (),
    unique: bool = False,
    concurrency: int | None = None,
    concurrency_key: str | Callable[..., Any] | None = None,
    tenant: str | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function that is a job, so that it runs under monitoring with this ceiling in MB.

    The worker's own ceiling is never exceeded.

    Args:
        memory_limit_mb: the ceiling; None: the worker's.
        on_breach: ``"fail"``, or ``"escalate"``: after a breach it runs again under the next ceiling.
        escalate_to: those ceilings, as in `rqmem.MemoryAwareJob`.
        unique, concurrency, concurrency_key: as there; they are used where the function itself is enqueued, and not
            its path as a text.
        tenant: as there.

    Raises:
        ConfigError: one of them cannot be used.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = f"{function.__module__}.{function.__qualname__}"
        limit_mb = checked_limit(memory_limit_mb, f"memory_limit_mb of {name}")
        if on_breach not in _CHOICES:
            raise ConfigError(
                f"on_breach of {name} is {on_breach!r}: give {' or '.join(map(repr, _CHOICES))}; only a class can work "
                f"in chunks"
            )
        per_type = PerType(name, function.__name__, unique, concurrency, concurrency_key, tenant)
        per_type = checked(per_type, inspect.signature(function))
        steps = checked_steps(escalate_to, f"escalate_to of {name}", on_breach, limit_mb)
        steps = steps if on_breach == "escalate" else ()

        @functools.wraps(function)
        def monitored(*args: P.args, **kwargs: P.kwargs) -> R:
            from rqmem.job.running import JobRun

            run = JobRun(name, limit_mb, on_breach, steps)
            if tenant is not None:
                run.tenant = tenant_of(tenant, inspect.signature(function), args, kwargs)
            return run_monitored(run, lambda: function(*args, **kwargs))

        setattr(monitored, DECLARED, limit_mb)
        setattr(monitored, ON_BREACH_OF_FUNCTION, on_breach)
        if per_type.declares:
            setattr(monitored, PER_TYPE, per_type)
        return monitored

    return decorate


def current_memory() -> CurrentMemory:
    """What the code of the job that runs here may do with its memory. Raises `RqmemError` outside such a job."""
    run = _current.get()
    if run is None:
        raise RqmemError("current_memory() is for code that a MemoryAwareJob or a @memory_aware function runs")
    return CurrentMemory(run)


class MemoryMethods:
    """What job code may do with its memory."""

    def _monitored(self) -> JobRun:
        """The run, monitored from now on."""
        raise NotImplementedError

    def check_memory_usage(self, operation: str) -> float:
        """A checkpoint: read and log usage at a named place. Returns the MB used.

        Near the ceiling, garbage is collected and freed memory is given back to the kernel.

        Raises:
            MemoryLimitExceeded: usage is above the ceiling even then.
        """
        return self._monitored().checkpoints.check(operation)

    def force_garbage_collection(self) -> float:
        """Collect garbage and give freed memory back to the kernel. Returns the MB that this freed."""
        return self._monitored().checkpoints.collect()

    def disable_memory_monitoring(self) -> AbstractContextManager[object]:
        """Read and log nothing from here on; in a ``with`` statement, until its end. The ceiling stays on."""
        return self._monitored().checkpoints.disable()

    def set_memory_limit(self, limit_mb: float) -> None:
        """Change the ceiling of this run, in MB; never above the worker's. Raises `ConfigError`."""
        self._monitored().ceiling.set(checked_limit(limit_mb, "set_memory_limit"))


class CurrentMemory(MemoryMethods):
    """The memory of the job that runs here."""

    def __init__(self, run: JobRun) -> None:
        self._run = run

    def _monitored(self) -> JobRun:
        return self._run


def run_monitored(run: JobRun, call: Callable[[], Any]) -> Any:
    """Run a job's own code, to its end if it is a coroutine, and close the run."""
    token = _current.set(run)
    outcome = "ok"
    try:
        result = call()
        result = asyncio.run(result) if inspect.iscoroutine(result) else result
        run.checkpoints.raise_swallowed()
        return result
    except BaseException as error:
        outcome = type(error).__name__
        raise
    finally:
        _current.reset(token)
        run.close(outcome)
