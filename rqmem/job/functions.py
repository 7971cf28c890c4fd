"""The same for plain functions: `memory_aware` declares, `current_memory` works inside.

A job of RQ that is a function gets its ceiling from the worker anyway; declared like this it has one of
its own, checkpoints and a final line in the log, with or without a `MemoryWorker`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

from rqmem.errors import RqmemError
from rqmem.job.run import MemoryContext, Paused, checked_limit

P = ParamSpec("P")
R = TypeVar("R")

DECLARED = "__rqmem_limit_mb__"
"""Attribute of a decorated function: the ceiling that it declares, in MB, or None."""

_current: ContextVar[MemoryContext | None] = ContextVar("rqmem_current_memory", default=None)


def memory_aware(memory_limit_mb: float | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function that is a job: it runs under monitoring, with this ceiling in MB.

    The worker's own ceiling is never exceeded. Raises `ConfigError` for a ceiling that is no positive number.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = f"{function.__module__}.{function.__qualname__}"
        limit_mb = checked_limit(memory_limit_mb, f"memory_limit_mb of {name}")

        @functools.wraps(function)
        def monitored(*args: P.args, **kwargs: P.kwargs) -> R:
            return run_monitored(MemoryContext(name, limit_mb, "fail"), lambda: function(*args, **kwargs))

        setattr(monitored, DECLARED, limit_mb)
        return monitored

    return decorate


def current_memory() -> CurrentMemory:
    """The memory of the job that runs here. Raises `RqmemError` outside a memory-aware job."""
    context = _current.get()
    if context is None:
        raise RqmemError("current_memory() is for code that a MemoryAwareJob or a @memory_aware function runs")
    return CurrentMemory(context)


class CurrentMemory:
    """What job code may do with its memory, as the methods of `rqmem.MemoryAwareJob` of the same names."""

    def __init__(self, context: MemoryContext) -> None:
        self._context = context

    def check_memory_usage(self, operation: str) -> float:
        """A checkpoint; returns MB used. Raises `MemoryLimitExceeded`."""
        return self._context.checkpoint(operation)

    def force_garbage_collection(self) -> float:
        """Collect garbage and trim; returns the MB that freed."""
        return self._context.collect()

    def disable_memory_monitoring(self) -> Paused:
        """No readings and log lines from here on, or until the end of a ``with`` statement; the ceiling stays on."""
        return self._context.disable()

    def set_memory_limit(self, limit_mb: float) -> None:
        """Change the ceiling of this run, in MB; never above the worker's. Raises `ConfigError`."""
        self._context.set_limit(checked_limit(limit_mb, "set_memory_limit"))


def run_monitored(context: MemoryContext, call: Callable[[], Any]) -> Any:
    """Run a job's own code in ``context``, to its end if it is a coroutine, and close the context."""
    token = _current.set(context)
    outcome = "ok"
    try:
        result = call()
        return asyncio.run(result) if inspect.iscoroutine(result) else result
    except BaseException as error:
        outcome = type(error).__name__
        raise
    finally:
        _current.reset(token)
        context.close(outcome)
