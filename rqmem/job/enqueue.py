"""Enqueueing of jobs that are classes: by their importable path, with plain arguments, checked before Redis is asked.

So RQ's JSON serializer, dashboards and a stock ``rq worker`` understand them.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Set
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from rqmem.errors import ConfigError
from rqmem.job import per_type
from rqmem.job.checked import check_enqueue_options
from rqmem.job.per_type import PER_TYPE, UNIQUE_ID, PerType
from rqmem.rq_seams import ENQUEUE_OPTIONS

if TYPE_CHECKING:
    from rqmem.job.call_batches import Call
    from rqmem.rq_names import Job, Queue, Retry

_ENQUEUE_OPTIONS = ENQUEUE_OPTIONS | {"connection", "serializer"}
"""RQ's, and ours."""

AT_FRONT = "at_front"
"""Key of ``meta["rqmem"]``: the job was enqueued at the front of its queue, and its children are too. RQ forgets it."""


class Enqueueable:
    """The part of `rqmem.MemoryAwareJob` that puts it into a queue.

    Raises:
        ConfigError: when a class is made whose ``handle`` has a parameter with the name of an enqueue option.
    """

    queue: ClassVar[str] = "default"
    job_timeout: ClassVar[int | str | None] = None
    retry: ClassVar[Retry | None] = None
    result_ttl: ClassVar[int | None] = None
    unique: ClassVar[bool] = False
    concurrency: ClassVar[int | None] = None
    concurrency_key: ClassVar[str | Callable[..., Any] | None] = None
    tenant: ClassVar[str | None] = None

    handle: Callable[..., Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        parameters = inspect.signature(cls.handle).parameters.values()
        named = {each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}
        taken = sorted(_ENQUEUE_OPTIONS & named)
        if taken:
            raise ConfigError(
                f"{cls.__qualname__}.handle has a parameter {taken[0]!r}, which is the name of an enqueue "
                f"option, so it could never be passed: rename it"
            )
        check_enqueue_options(cls)
        per_type.checked(cls._per_type(), cls._signature())

    @classmethod
    def _per_type(cls) -> PerType:
        return PerType(cls.path(), cls.__qualname__, cls.unique, cls.concurrency, cls.concurrency_key, cls.tenant)

    @classmethod
    @functools.cache
    def _signature(cls) -> inspect.Signature:
        """Of ``handle``, without ``self``."""
        signature = inspect.signature(cls.handle)
        return signature.replace(parameters=list(signature.parameters.values())[1:])

    @classmethod
    def path(cls) -> str:
        """The dotted path of this class: what log lines, journal and reports call the job type."""
        return f"{cls.__module__}.{cls.__qualname__}"

    @classmethod
    def enqueue(cls, queue: str | Queue | None = None, /, *args: Any, **kwargs: Any) -> Job:
        """Enqueue this job on ``queue``, or the class's, with ``handle``'s arguments and RQ's options.

        Args:
            queue: a name, or a `rq.Queue`.
            kwargs: besides ``handle``'s arguments RQ's enqueue options; ``connection`` and ``serializer`` choose the
                queue's, by default as `rqmem.job.defaults` says.

        Returns:
            RQ's job. If the class is ``unique``, and a job with these arguments waits or runs: that one.

        Raises:
            ConfigError: the arguments do not fit ``handle``, or the class cannot be imported by a worker.
            RedisUnavailable: no Redis is named, or it does not answer.
        """
        target, options = cls._prepare(queue, args, kwargs)
        return existing_or(target, options, lambda: target.enqueue(f"{cls.path()}.run", **options))

    @classmethod
    def enqueue_in(cls, delay: timedelta, queue: str | Queue | None = None, /, *args: Any, **kwargs: Any) -> Job:
        """As `enqueue`, after ``delay``; needs a worker ``--with-scheduler``."""
        target, options = cls._prepare(queue, args, kwargs)
        return existing_or(target, options, lambda: target.enqueue_in(delay, f"{cls.path()}.run", **options))

    @classmethod
    def enqueue_at(cls, when: datetime, queue: str | Queue | None = None, /, *args: Any, **kwargs: Any) -> Job:
        """As `enqueue`, at ``when``; needs a worker ``--with-scheduler``."""
        target, options = cls._prepare(queue, args, kwargs)
        return existing_or(target, options, lambda: target.enqueue_at(when, f"{cls.path()}.run", **options))

    @classmethod
    def enqueue_many(
        cls,
        calls: Iterable[Any],
        /,
        queue: str | Queue | None = None,
        *,
        at: datetime | timedelta | None = None,
        connection: Any = None,
        serializer: Any = None,
        **common: Any,
    ) -> int:
        """Enqueue many jobs of this class in few round trips; returns how many were enqueued.

        Args:
            calls: the arguments of each: a mapping, with RQ's options among them as for `enqueue`, or a tuple of
                positional ones.

        All else, also the errors, as `rqmem.enqueue_many` has it.
        """
        from rqmem.job.call_batches import enqueue_calls

        cls.check_path()
        target = cls._queue(queue, connection, serializer)
        return enqueue_calls(target, calls, lambda arguments: cls._call_of(arguments, common), at)

    @classmethod
    def _call_of(cls, arguments: Any, common: Mapping[str, Any]) -> Call:
        """Of one element of ``enqueue_many``'s. The class's path must have been checked. Raises `ConfigError`."""
        from rqmem.job.call_batches import Call, arguments_of_call

        args, kwargs = arguments_of_call(arguments, common)
        return Call(f"{cls.path()}.run", cls._call(args, kwargs))

    @classmethod
    def _prepare(
        cls, queue: str | Queue | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Queue, dict[str, Any]]:
        """The queue, and what its enqueue methods take: everything is checked before Redis is asked."""
        connection, serializer = kwargs.pop("connection", None), kwargs.pop("serializer", None)
        cls.check_path()
        try:
            options = cls._call(args, kwargs)
        except ConfigError as error:
            raise ConfigError(f"{error}{cls._taken_as_queue(queue, args, kwargs)}") from None
        return cls._queue(queue, connection, serializer), options

    @classmethod
    def _taken_as_queue(cls, queue: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """A hint if the arguments would fit only with ``queue`` as the first of them; else nothing."""
        args, arguments, _ = split(args, kwargs)
        if queue is None or cls._takes(args, arguments) or not cls._takes((queue, *args), arguments):
            return ""
        return f"; {queue!r:.80}, the first one without a name, is the queue: give arguments by name"

    @classmethod
    def _call(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """A call of this class's job, whose path was checked, as RQ's enqueue methods take it. Raises `ConfigError`."""
        args, arguments, options = split(args, kwargs)
        cls.check_arguments(args, arguments)
        declared = {name: getattr(cls, name) for name in ("job_timeout", "retry", "result_ttl")}
        options = {**{name: value for name, value in declared.items() if value is not None}, **options}
        if (declared_per_type := cls._per_type()).declares:
            options |= declared_per_type.options(cls._signature(), args, arguments, options)
        if options.get("at_front"):
            meta = options.get("meta") or {}
            options["meta"] = {**meta, "rqmem": {**meta.get("rqmem", {}), AT_FRONT: True}}
        options.setdefault("description", cls._call_string(args, arguments))
        return {**options, "args": args, "kwargs": arguments}

    @classmethod
    def _queue(cls, queue: str | Queue | None, connection: Any, serializer: Any) -> Queue:
        from rqmem.job.defaults import resolved_queue

        return resolved_queue(cls.queue if queue is None else queue, cls.__qualname__, connection, serializer)

    @classmethod
    def check_path(cls) -> None:
        """Raise `ConfigError` where no worker could import the class."""
        from rqmem.named_code import attribute

        if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
            raise ConfigError(
                f"{cls.__qualname__} is defined in {cls.__module__} where a worker cannot import it: "
                f"move the class to the top level of a module"
            )
        found = attribute(cls.path())
        if found is not cls:
            raise ConfigError(
                f"no worker could import this {cls.path()}: another thing ({found!r:.100}) has that name there; "
                f"give the class the name under which its module has it"
            )

    @classmethod
    def check_arguments(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise `ConfigError` where ``handle`` does not take these."""
        try:
            cls._signature().bind(*args, **kwargs)
        except TypeError as error:
            from rqmem.calls import why_refused

            reason = why_refused(cls._signature(), args, kwargs, error)
            raise ConfigError(f"{cls.__qualname__}.handle: {reason}") from None

    @classmethod
    def _takes(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        try:
            cls._signature().bind(*args, **kwargs)
        except TypeError:
            return False
        return True

    @classmethod
    def _call_string(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The call as people read it on a dashboard."""
        shown = [_shortened(value) for value in args]
        shown += [f"{name}={_shortened(value)}" for name, value in kwargs.items()]
        return f"{cls.path()}({', '.join(shown)})"


def split(
    args: tuple[Any, ...], kwargs: dict[str, Any], known: Set[str] = _ENQUEUE_OPTIONS
) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
    """What ``enqueue`` was given: arguments of the call, positional and by name, and the ``known`` options."""
    options = {name: value for name, value in kwargs.items() if name in known}
    arguments = {name: value for name, value in kwargs.items() if name not in known}
    if "args" in options or "kwargs" in options:  # RQ's explicit form
        args, arguments = tuple(options.pop("args", None) or ()), dict(options.pop("kwargs", None) or {})
    return args, arguments, options


def is_at_front(job: Job) -> bool:
    """Whether a job was enqueued at the front, if RQ or we have kept that."""
    return bool(job.enqueue_at_front or job.meta.get("rqmem", {}).get(AT_FRONT))


def existing_or(queue: Queue, options: dict[str, Any], enqueue: Callable[[], Job]) -> Job:
    """What ``enqueue`` returns; of a unique job the one that waits or runs, if there is one."""
    from rqmem.rq_names import DuplicateJobError, NoSuchJobError

    if not UNIQUE_ID.fullmatch(options.get("job_id") or ""):
        return enqueue()
    while True:
        try:
            return enqueue()
        except DuplicateJobError:
            with contextlib.suppress(NoSuchJobError):  # it has ended since, and is gone
                return queue.job_class.fetch(
                    options["job_id"], connection=queue.connection, serializer=queue.serializer
                )


def accept_job_classes() -> None:
    """Have ``queue.enqueue(SendInvoices, month=...)`` (also ``enqueue_in``, ``enqueue_at``) do what the class's does.

    RQ raises a `TypeError` for a class. `Queue.parse_args` is where all three learn what they are to call. Functions
    with `rqmem.memory_aware` get the options there that they declare. And a unique job that has ended makes way for the
    next one: for RQ, it is there as long as its result is kept.
    """
    from rqmem.rq_names import Queue

    parse_args = vars(Queue)["parse_args"].__func__

    @functools.wraps(parse_args)
    def parse(queue_class: type[Queue], f: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(f, type) and issubclass(f, Enqueueable):
            named = {"connection", "serializer"} & set(kwargs)
            if named:
                raise ConfigError(f"{f.__qualname__}: {min(named)} is the queue's: {f.__qualname__}.enqueue takes one")
            f.check_path()
            args, kwargs = (), f._call(args, kwargs)
            f = f"{f.path()}.run"
        elif (declared := getattr(f, PER_TYPE, None)) is not None:
            kwargs = {**kwargs, **_options_of_function(f, declared, args, kwargs)}
        return parse_args(queue_class, f, *args, **kwargs)

    def making_way(enqueue: Callable[..., Job]) -> Callable[..., Job]:
        @functools.wraps(enqueue)
        def enqueue_unique(self: Queue, job: Job, *args: Any, **kwargs: Any) -> Job:
            if kwargs.get("unique") and UNIQUE_ID.fullmatch(job.id):
                from rqmem.store.unique_jobs import make_way

                make_way(self.connection, job.id)
            return enqueue(self, job, *args, **kwargs)

        return enqueue_unique

    Queue.parse_args = classmethod(parse)  # type: ignore[method-assign, assignment]
    Queue.enqueue_job = making_way(Queue.enqueue_job)  # type: ignore[method-assign]
    Queue.schedule_job = making_way(Queue.schedule_job)  # type: ignore[method-assign]


def _options_of_function(
    function: Callable[..., Any], declared: PerType, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """What a decorated function declares, for a call as RQ's enqueue methods take it. Raises `ConfigError`."""
    args, arguments, given = split(args, kwargs, ENQUEUE_OPTIONS)
    try:
        return declared.options(inspect.signature(function), args, arguments, given)
    except TypeError as error:
        raise ConfigError(f"{declared.whose}: {error}") from None


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 75 else f"{text[:75]}..."
