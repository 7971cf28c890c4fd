"""`rqmem.enqueue_many`: many calls of functions, or of classes of jobs, enqueued in few round trips."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from rqmem.calls import why_refused
from rqmem.errors import ConfigError
from rqmem.job.call_batches import Call, arguments_of_call, enqueue_calls
from rqmem.job.defaults import resolved_queue
from rqmem.job.enqueue import Enqueueable, split
from rqmem.job.per_type import PER_TYPE
from rqmem.rq_names import EnqueueData, Queue
from rqmem.store.new_jobs import options_of


def enqueue_many(
    queue: str | Queue,
    calls: Iterable[Any],
    /,
    *,
    at: datetime | timedelta | None = None,
    connection: Any = None,
    serializer: Any = None,
    **common: Any,
) -> int:
    """Enqueue many calls in few round trips; returns how many jobs were enqueued.

    Args:
        queue: its name, or a `rq.Queue`.
        calls: pairs ``(function, arguments)``, or what `rq.Queue.prepare_data` makes. The function is one, its dotted
            path, or a subclass of `rqmem.MemoryAwareJob`. The arguments are a mapping, with RQ's enqueue options among
            them as for ``enqueue``, or a tuple of positional ones. An iterator is taken as it comes; of a list all
            calls are checked before any is enqueued.
        at: when the jobs are due, or in how long; needs a worker ``--with-scheduler``.
        connection, serializer: the queue's, by default as `rqmem.use` says.
        common: arguments and options of all calls that do not give their own. With ``unique=True``, calls whose
            ``job_id`` exists are left out, and not counted: so a program that was cut off can be run again.

    Raises:
        ConfigError: a call cannot be made. The error names it. Nothing of its batch of 500 is enqueued, and of a list
            nothing at all.
        RedisUnavailable: no Redis is named, or it does not answer. The error says how many jobs are enqueued.
    """

    def read(element: Any) -> Call:
        if isinstance(element, EnqueueData):
            function, options = options_of(element)
            return Call(function, {**common, **options})
        if not isinstance(element, tuple | list) or len(element) != 2:
            raise ConfigError("a call is a pair (function, arguments), or made by Queue.prepare_data")
        function, arguments = element
        if isinstance(function, type) and issubclass(function, Enqueueable):
            function.check_path()
            return function._call_of(arguments, common)
        return _function_call(function, arguments, common)

    return enqueue_calls(resolved_queue(queue, "enqueue_many", connection, serializer), calls, read, at)


def _function_call(function: Any, arguments: Any, common: Mapping[str, Any]) -> Call:
    args, kwargs, options = split(*arguments_of_call(arguments, common))
    _check_function(function, args, kwargs)
    if (declared := getattr(function, PER_TYPE, None)) is not None:
        options |= declared.options(inspect.signature(function), args, kwargs, options)
    return Call(function, {**options, "args": args, "kwargs": kwargs})


@functools.lru_cache(maxsize=256)
def _signature(function: Any) -> inspect.Signature | None:
    try:  # one that a decorator has put around another may give it more arguments
        return inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # written in C, say
        return None


def _check_function(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise `ConfigError` where no worker could import the function, or it does not take these arguments."""
    if not inspect.isroutine(function):
        return
    name = function.__qualname__
    if function.__module__ == "__main__" or "<locals>" in name or "<lambda>" in name:
        raise ConfigError(f"no worker can import {function.__module__}.{name}: move it to the top level of a module")
    signature = _signature(function)
    if signature is not None:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ConfigError(f"{name}: {why_refused(signature, args, kwargs, error)}") from None
