"""`MemoryAwareJob`: a job as a class, with its ceiling declared and its memory work done for it.

What it does: runs ``handle`` under monitoring, enqueues itself on RQ by its importable path with plain
arguments (so RQ's JSON serializer, dashboards and a stock ``rq worker`` understand it). What it does
not: keep the ceiling from outside; that is `rqmem.MemoryWorker`'s.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from rqmem.errors import ConfigError
from rqmem.job.chunks import checked_chunk_size, process_in_chunks
from rqmem.job.context import MemoryContext, checked_limit
from rqmem.job.functions import run_monitored

if TYPE_CHECKING:
    from rq import Queue, Retry
    from rq.job import Job

    from rqmem.sources import Source

T = TypeVar("T")

ON_BREACH = ("fail", "resume")

# Names that Queue.enqueue takes for itself (rq.queue.Queue.parse_args), and ours.
_ENQUEUE_OPTIONS = frozenset(
    (
        *("job_timeout", "description", "result_ttl", "ttl", "failure_ttl", "depends_on", "job_id", "at_front"),
        *("meta", "retry", "repeat", "on_success", "on_failure", "on_stopped", "rate_limit", "webhooks"),
        *("pipeline", "unique", "args", "kwargs"),
        *("connection", "serializer"),
    )
)


class MemoryAwareJob:
    """Base of jobs that know their memory. Override `handle`; all attributes are optional.

    Attributes:
        memory_limit_mb: the ceiling, in MB. None: the worker's.
        chunk_size: items per chunk at the start. None: MEMORY_DEFAULT_CHUNK_SIZE.
        on_breach: ``"fail"``: an ordinary failure. ``"resume"``: go on after the last finished chunk
            in a new horse, with half the chunk after a breach; also after the worker's death.
        queue: the queue ``enqueue`` uses where none is given.
        job_timeout, retry, result_ttl: RQ's enqueue options; None leaves RQ's default.
        args, kwargs: the arguments as enqueued, on the instance that runs.

    Raises:
        ConfigError: when the class is made, for an attribute that cannot be used or a parameter of
            ``handle`` that has the name of one of RQ's enqueue options.
    """

    memory_limit_mb: ClassVar[float | None] = None
    chunk_size: ClassVar[int | None] = None
    on_breach: ClassVar[str] = "fail"
    queue: ClassVar[str] = "default"
    job_timeout: ClassVar[int | str | None] = None
    retry: ClassVar[Retry | None] = None
    result_ttl: ClassVar[int | None] = None

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    _memory: MemoryContext | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checked_limit(cls.memory_limit_mb, f"{cls.__qualname__}.memory_limit_mb")
        checked_chunk_size(cls.chunk_size, f"{cls.__qualname__}.chunk_size")
        if cls.on_breach not in ON_BREACH:
            raise ConfigError(f"{cls.__qualname__}.on_breach is {cls.on_breach!r}: give {_either(ON_BREACH)}")
        taken = sorted(_ENQUEUE_OPTIONS.intersection(inspect.signature(cls.handle).parameters))
        if taken:
            raise ConfigError(
                f"{cls.__qualname__}.handle has a parameter {taken[0]!r}, which is the name of an enqueue "
                f"option, so it could never be passed: rename it"
            )

    def handle(self, *args: Any, **kwargs: Any) -> Any:
        """The work itself, with the arguments as enqueued. Its result is the job's."""
        raise NotImplementedError(f"{type(self).__qualname__} has no handle method")

    # Running

    @classmethod
    def run(cls, *args: Any, **kwargs: Any) -> Any:
        """What RQ calls: ``handle`` on a new instance, under monitoring. May be called directly too."""
        job = cls()
        job.args, job.kwargs = args, kwargs
        return run_monitored(job._context(), lambda: job.handle(*args, **kwargs))

    @classmethod
    def path(cls) -> str:
        """The dotted path of this class: what log lines, journal and reports call the job type."""
        return f"{cls.__module__}.{cls.__qualname__}"

    # Enqueueing

    @classmethod
    def enqueue(cls, queue: str | Queue | None = None, /, *args: Any, **kwargs: Any) -> Job:
        """Enqueue this job on ``queue``, or the class's, with ``handle``'s arguments and RQ's options.

        Args:
            queue: a name, or a `rq.Queue`.
            kwargs: besides ``handle``'s arguments RQ's enqueue options; ``connection`` (by default
                what `rqmem.connect` gives) and ``serializer`` choose the queue's.

        Raises:
            ConfigError: the arguments do not fit ``handle``, or the class cannot be imported by a worker.
            RedisUnavailable: Redis does not answer.
        """
        target, args, options = cls._prepare(queue, args, kwargs)
        return target.enqueue(f"{cls.path()}.run", *args, **options)

    @classmethod
    def enqueue_in(cls, delay: timedelta, queue: str | Queue | None = None, /, *args: Any, **kwargs: Any) -> Job:
        """As `enqueue`, after ``delay``; needs a worker ``--with-scheduler``."""
        target, args, options = cls._prepare(queue, args, kwargs)
        return target.enqueue_in(delay, f"{cls.path()}.run", *args, **options)

    @classmethod
    def enqueue_at(cls, when: datetime, queue: str | Queue | None = None, /, *args: Any, **kwargs: Any) -> Job:
        """As `enqueue`, at ``when``; needs a worker ``--with-scheduler``."""
        target, args, options = cls._prepare(queue, args, kwargs)
        return target.enqueue_at(when, f"{cls.path()}.run", *args, **options)

    @classmethod
    def _prepare(
        cls, queue: str | Queue | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Queue, tuple[Any, ...], dict[str, Any]]:
        """The queue, and what its enqueue methods take: everything is checked before Redis is asked."""
        options = {name: value for name, value in kwargs.items() if name in _ENQUEUE_OPTIONS}
        arguments = {name: value for name, value in kwargs.items() if name not in _ENQUEUE_OPTIONS}
        if "args" in options or "kwargs" in options:  # RQ's explicit form
            args, arguments = tuple(options.pop("args", ())), dict(options.pop("kwargs", {}))
        cls._check_path()
        cls._check_arguments(args, arguments)
        for name in ("job_timeout", "retry", "result_ttl"):
            declared = getattr(cls, name)
            if declared is not None:
                options.setdefault(name, declared)
        options.setdefault("description", cls._call_string(args, arguments))
        target = cls._queue(queue, options.pop("connection", None), options.pop("serializer", None))
        return target, (), {**options, "args": args, "kwargs": arguments}

    @classmethod
    def _queue(cls, queue: str | Queue | None, connection: Any, serializer: Any) -> Queue:
        from rq import Queue

        if isinstance(queue, Queue):
            return queue
        name = cls.queue if queue is None else queue
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(
                f"{cls.__qualname__}: {name!r} is not a queue; the first positional argument of enqueue is "
                f"the queue's name, arguments of handle are best given by name"
            )
        if connection is None:
            from rqmem.connections import connect

            connection = connect()
        return Queue(name, connection=connection, serializer=serializer)

    @classmethod
    def _check_path(cls) -> None:
        if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
            raise ConfigError(
                f"{cls.__qualname__} is defined in {cls.__module__} where a worker cannot import it: "
                f"move the class to the top level of a module"
            )

    @classmethod
    def _check_arguments(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            inspect.signature(cls.handle).bind(None, *args, **kwargs)
        except TypeError as error:
            raise ConfigError(f"{cls.__qualname__}.handle: {error}") from None

    @classmethod
    def _call_string(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The call as people read it on a dashboard."""
        shown = [_shortened(value) for value in args]
        shown += [f"{name}={_shortened(value)}" for name, value in kwargs.items()]
        return f"{cls.path()}({', '.join(shown)})"

    # Memory

    def initialize_memory_monitoring(self) -> None:
        """Begin to monitor; happens by itself before ``handle``, again is harmless."""
        if self._memory is None:
            self._memory = MemoryContext(self.path(), self.memory_limit_mb, self.on_breach)

    def set_memory_limit(self, limit_mb: float) -> None:
        """Change the ceiling of this run, in MB; never above the worker's. Raises `ConfigError`."""
        self._context().set_limit(checked_limit(limit_mb, "set_memory_limit"))

    def check_memory_usage(self, operation: str) -> float:
        """A checkpoint: read and log usage at a named place; returns MB used.

        Near the ceiling garbage is collected and freed memory given back to the kernel.

        Raises:
            MemoryLimitExceeded: usage is above the ceiling all the same.
        """
        return self._context().checkpoint(operation)

    def process_in_chunks(
        self,
        data: Source[T] | Iterable[T],
        processor: Callable[[list[T]], Any],
        chunk_size: int | None = None,
        *,
        collect: bool = True,
    ) -> list[Any]:
        """Process ``data`` a chunk at a time, with a checkpoint after each.

        With ``on_breach = "resume"`` each finished chunk is saved with what the processor returned for
        it: a later execution goes on after the last one. Work is at-least-once for the chunk in flight.

        Args:
            data: any iterable, or a source (`rqmem.sources`). A resumable job needs one that yields
                the same items again.
            processor: called with each chunk as a list.
            chunk_size: items per chunk; by default the class's.
            collect: whether results are kept.

        Returns:
            What the processor returned, concatenated: lists and tuples are joined, None is left out,
            anything else counts as one result.

        Raises:
            SourceError: ``data`` or the results cannot be used as asked.
            MemoryLimitExceeded: usage after a chunk is above the ceiling.
        """
        size = self.chunk_size if chunk_size is None else chunk_size
        return process_in_chunks(self._context(), data, processor, size, collect)

    def force_garbage_collection(self) -> float:
        """Collect garbage and give freed memory back to the kernel; returns the MB that freed."""
        return self._context().collect()

    def disable_memory_monitoring(self) -> None:
        """No readings and no log lines from here on; the ceiling stays on."""
        self._context().disable()

    def finalize_memory_monitoring(self) -> None:
        """End monitoring and log the run's figures; happens by itself after ``handle``."""
        if self._memory is not None:
            self._memory.close("ok")

    def _context(self) -> MemoryContext:
        self.initialize_memory_monitoring()
        assert self._memory is not None
        return self._memory


def _shortened(value: Any, room: int = 75) -> str:
    text = repr(value)
    return text if len(text) <= room else f"{text[:room]}..."


def _either(names: Iterable[str]) -> str:
    return " or ".join(repr(name) for name in names)
