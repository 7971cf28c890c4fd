"""`MemoryAwareJob`: a job as a class that declares its ceiling and runs its ``handle`` under monitoring.

It enqueues itself on RQ by its importable path with plain arguments, so RQ's JSON serializer, dashboards and a stock
``rq worker`` understand it. It does not keep the ceiling from outside: `rqmem.MemoryWorker` does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from rqmem.errors import ConfigError, RunTakenOver, SourceChanged, SplitInstead
from rqmem.job.checked import check_spelling, checked_chunk_size, checked_limit, checked_steps
from rqmem.job.enqueue import Enqueueable, accept_job_classes
from rqmem.job.functions import MemoryMethods, run_monitored
from rqmem.job.per_type import tenant_of

if TYPE_CHECKING:
    from redis import Redis
    from typing_extensions import Never

    from rqmem.job.children import ChildJobs
    from rqmem.job.gather import Gathered
    from rqmem.job.progress import Progress
    from rqmem.job.run import JobRun
    from rqmem.policy.escalation import Step
    from rqmem.sources import Source

T = TypeVar("T")
R = TypeVar("R")

ON_BREACH = ("fail", "resume", "split", "escalate")
ON_CHILD_FAILURE = ("fail", "continue")


class MemoryAwareJob(MemoryMethods, Enqueueable):
    """Base of jobs that know their memory. Override `handle`; all attributes are optional.

    What a config file says of the job type (`rqmem.config.load`) takes precedence over these attributes.

    Attributes:
        memory_limit_mb: the ceiling, in MB. None: the worker's.
        chunk_size: items per chunk at the start. None: MEMORY_DEFAULT_CHUNK_SIZE.
        adaptive: whether the chunk size follows what chunks cost (`rqmem.policy.chunk_size`).
        on_breach: ``"fail"``: an ordinary failure. ``"resume"``: go on after the last finished chunk in a new horse,
            with half the chunk after a breach; also after the worker's death. ``"split"``: the same, but after a breach
            what is left is cut in two child jobs. ``"escalate"``: as ``"resume"``, but after a breach under the next
            ceiling of ``escalate_to``; without chunks from the start.
        escalate_to: the next ceilings in MB, lowest first. A pair ``(2048, "big")`` also names the queue to which a
            job goes whose worker does not allow that ceiling.
        bytes_per_item: what an item costs, in bytes, for `should_split_job`. None: what the journal has seen.
        split_above_items: split above this number of items, whatever they cost.
        items_per_child: items of a child. None: what fits by the cost of an item, at most JOB_MAX_ITEMS_PER_CHILD.
        on_child_failure: ``"fail"``: if a child fails, the job fails with `rqmem.errors.ChildJobsFailed` when all have
            ended; a retry runs only the failed ones. ``"continue"``: `gather` gets the results that there are.
        unique: no two jobs with the same arguments wait or run at a time; ``enqueue`` returns the one that there is.
        concurrency: how many jobs of this type may run at a time, over all workers; None: any number.
        concurrency_key: the name of an argument, or a function of the arguments: the limit holds for each value.
        tenant: the name of the argument that says for whom a job works. Reports add up what each tenant used.
        queue: the queue that ``enqueue`` uses if none is given.
        job_timeout, retry, result_ttl: RQ's enqueue options; None leaves RQ's default.
        args, kwargs: the arguments as enqueued, on the instance that runs.
        run_id: names the run, on the instance that runs. It stays the same when the run is resumed or retried. Each
            repetition has another one, and so has another job of the same id.

    Raises:
        ConfigError: when the class is defined, for an attribute that cannot be used or a parameter of ``handle`` that
            has the name of one of RQ's enqueue options.
    """

    memory_limit_mb: ClassVar[float | None] = None
    chunk_size: ClassVar[int | None] = None
    adaptive: ClassVar[bool] = True
    on_breach: ClassVar[str] = "fail"
    escalate_to: ClassVar[Sequence[float | tuple[float, str]]] = ()
    bytes_per_item: ClassVar[float | None] = None
    split_above_items: ClassVar[int | None] = None
    items_per_child: ClassVar[int | None] = None
    on_child_failure: ClassVar[str] = "fail"

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    run_id: str = ""
    _memory: JobRun | None = None
    _fitting_items: int = 0  # as `should_split_job` has found

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_spelling(cls, _settings())
        checked_limit(cls.memory_limit_mb, f"{cls.__qualname__}.memory_limit_mb")
        checked_chunk_size(cls.chunk_size, f"{cls.__qualname__}.chunk_size")
        checked_chunk_size(cls.items_per_child, f"{cls.__qualname__}.items_per_child")
        checked_chunk_size(cls.split_above_items, f"{cls.__qualname__}.split_above_items")
        checked_limit(cls.bytes_per_item, f"{cls.__qualname__}.bytes_per_item", "bytes")
        if not isinstance(cls.adaptive, bool):
            raise ConfigError(f"{cls.__qualname__}.adaptive is {cls.adaptive!r}: give True or False")
        for name, choices in (("on_breach", ON_BREACH), ("on_child_failure", ON_CHILD_FAILURE)):
            if getattr(cls, name) not in choices:
                given = " or ".join(map(repr, choices))
                raise ConfigError(f"{cls.__qualname__}.{name} is {getattr(cls, name)!r}: give {given}")
        checked_steps(cls.escalate_to, f"{cls.__qualname__}.escalate_to", cls.on_breach, cls.memory_limit_mb)

    def handle(self, *args: Any, **kwargs: Any) -> Any:
        """The work itself, with the arguments as enqueued. Its result is the job's."""
        raise NotImplementedError(self._no_handle())

    @classmethod
    def _no_handle(cls) -> str:
        return f"{cls.path()} has no method handle: define handle(self, ...), which does the work"

    @classmethod
    def check_arguments(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise `ConfigError` where the class has no `handle`, or it does not take these."""
        if cls.handle is MemoryAwareJob.handle:
            raise ConfigError(cls._no_handle())
        super().check_arguments(args, kwargs)

    def gather(self, results: Gathered) -> Any:
        """Called after a split, once all children have ended. What it returns is the job's result.

        Args:
            results: what the children returned, in the order of slices; read as it is iterated. Its ``failures`` are
                the children that failed, if ``on_child_failure`` is ``"continue"``.

        Returns:
            By default all results in one list, in which results that are lists are joined. If the class has a method
            ``reduce(a, b)``, it combines the results two by two, in the order of slices (None if there are none).
        """
        from rqmem.job.gather import joined

        reduce = getattr(self, "reduce", None)
        if reduce is None:
            return joined(results)
        each = iter(results)
        return functools.reduce(reduce, each, next(each, None))

    # Running

    @classmethod
    def run(cls, *args: Any, **kwargs: Any) -> Any:
        """What RQ calls: ``handle`` on a new instance, under monitoring. May be called directly too."""
        job = cls()
        job.args, job.kwargs = args, kwargs
        return run_monitored(job._monitored(), job._perform)

    def _perform(self) -> Any:
        """`handle`, or what comes after it in a job that has split."""
        from rqmem.job import running

        run = self._monitored()
        if run.record.split is not None and run.record.split.sealed:
            return running.gather(run, self, run.record.split)
        try:
            result = self.handle(*self.args, **running.opened(self.kwargs))
        except SplitInstead:
            return run.pending
        except RunTakenOver:
            raise
        except Exception as error:
            if run.open_split is not None:
                run.open_split.undo()
            if isinstance(error, SourceChanged):
                raise running.begins_again(run, error) from error
            raise
        if run.open_split is not None:
            return run.open_split.seal()
        return result if run.pending is None else run.pending

    # Memory

    def initialize_memory_monitoring(self) -> None:
        """Begin to monitor. This happens by itself before ``handle``; doing it again is harmless."""
        if self._memory is None:
            from rqmem.job import running

            run = self._memory = running.JobRun(self.path(), self.memory_limit_mb, self.on_breach, self._steps())
            if self.tenant is not None:
                run.tenant = tenant_of(self.tenant, self._signature(), self.args, self.kwargs)
            vars(self).update(run.configured)  # on the instance, so it takes precedence over the class
            self.run_id = run.run_id
            run.cut_rest = partial(running.cut_in_two, run, self)

    @classmethod
    def _steps(cls) -> tuple[Step, ...]:
        if cls.on_breach != "escalate":
            return ()
        return checked_steps(cls.escalate_to, f"{cls.__qualname__}.escalate_to", cls.on_breach, None)

    def finalize_memory_monitoring(self) -> None:
        """End monitoring and log the run's figures. This happens by itself after ``handle``."""
        if self._memory is not None:
            self._memory.close("ok")

    # Processors return nothing, lists, which are joined, or one result each.
    @overload
    def process_in_chunks(
        self,
        data: Source[T] | Iterable[T],
        processor: Callable[[list[T]], None],
        chunk_size: int | None = None,
        *,
        collect: bool = True,
        adaptive: bool | None = None,
    ) -> list[Never]: ...
    @overload
    def process_in_chunks(
        self,
        data: Source[T] | Iterable[T],
        processor: Callable[[list[T]], list[R] | tuple[R, ...] | None],
        chunk_size: int | None = None,
        *,
        collect: bool = True,
        adaptive: bool | None = None,
    ) -> list[R]: ...
    @overload
    def process_in_chunks(
        self,
        data: Source[T] | Iterable[T],
        processor: Callable[[list[T]], R | None],
        chunk_size: int | None = None,
        *,
        collect: bool = True,
        adaptive: bool | None = None,
    ) -> list[R]: ...
    def process_in_chunks(
        self,
        data: Source[T] | Iterable[T],
        processor: Callable[[list[T]], Any],
        chunk_size: int | None = None,
        *,
        collect: bool = True,
        adaptive: bool | None = None,
    ) -> list[Any]:
        """Process ``data`` a chunk at a time, with a checkpoint after each.

        With ``on_breach = "resume"`` (or ``"split"``, ``"escalate"``), finished chunks are saved with what the
        processor returned for them, and a later execution goes on after the last one. Work is at-least-once for the
        chunk in flight, and for what was finished within the 20 ms before the horse was killed.

        Args:
            data: any iterable, or a source (`rqmem.sources`). A resumable job needs one that yields
                the same items again.
            processor: called with each chunk as a list.
            chunk_size: items per chunk; by default the class's, or the recommended one on a worker with ``--auto``.
            collect: whether results are kept.
            adaptive: whether the chunk size may change. By default it is the class's, or False if ``chunk_size`` is
                given here. A breach halves the size in any case.

        Returns:
            What the processor returned, concatenated: lists and tuples are joined, None is left out,
            anything else counts as one result.

        Raises:
            SourceError: ``data`` or the results cannot be used as asked.
            ConfigError: ``processor`` is no function, or the chunk size none.
            MemoryLimitExceeded: usage after a chunk is above the ceiling.
        """
        from rqmem.job import running

        size, adapts = self._chunking(chunk_size, adaptive)
        return running.process_in_chunks(self._monitored(), data, processor, size, collect=collect, adaptive=adapts)

    def chunks(
        self, data: Source[T] | Iterable[T], chunk_size: int | None = None, *, adaptive: bool | None = None
    ) -> Iterator[list[T]]:
        """The generator form of `process_in_chunks`: ``for chunk in self.chunks(source): ...``.

        A chunk is finished when the next one is asked for; leaving the loop early leaves the last one unfinished.
        No results are kept. Arguments and errors as there.
        """
        from rqmem.job import running

        size, adapts = self._chunking(chunk_size, adaptive)
        return running.chunks(self._monitored(), data, size, adaptive=adapts)

    def _chunking(self, chunk_size: int | None, adaptive: bool | None) -> tuple[int | None, bool]:
        """Items per chunk at the start, and whether that may change. A size in the call takes precedence."""
        run = self._monitored()
        adapts = (self.adaptive and chunk_size is None) if adaptive is None else adaptive
        if chunk_size is None and adapts:
            chunk_size = run.advised_chunk_size()
        return self.chunk_size if chunk_size is None else chunk_size, adapts

    # Splitting

    def should_split_job(self, count: int | None, bytes_per_item: float | None = None) -> bool:
        """Whether a job with this number of items should be split into child jobs. If so, the log says why.

        Args:
            count: number of items, as `rqmem.sources.Count.items` has it; None, if nobody knows: it is not split.
            bytes_per_item: what one costs, in bytes; by default the class's, or what the journal has seen.
        """
        from rqmem.job import running

        decision = running.should_split(self._monitored(), self, count, bytes_per_item)
        self._fitting_items = decision.items_per_child
        return decision.yes

    def create_child_jobs(
        self,
        data: Source[T] | Iterable[T],
        job_class: type[MemoryAwareJob],
        items_per_child: int | None = None,
        *,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
    ) -> ChildJobs[T]:
        """A child job of ``job_class`` for each slice of ``data``, none of them enqueued yet.

        Look at them one by one (their slice is ``items``). ``enqueue()`` of what this returns enqueues them all;
        ``enqueue()`` of one enqueues only that. When ``handle`` returns after that, the job is not finished but
        deferred until the last enqueued child has ended. Then `gather` is called, in an execution of its own, and its
        result is the job's.

        These options of the job reach its children, unless a class of their own declares them: ``at_front``,
        ``job_timeout``, ``result_ttl``, ``failure_ttl`` and ``meta``. These do not, because they are about the job as
        a whole: ``ttl``, ``retry``, ``repeat``, callbacks and webhooks.

        Args:
            data: a list or the like, or a source (`rqmem.sources`). It is cut without being read into memory.
            job_class: its ``handle`` gets its slice as a source in the argument ``items``.
            items_per_child: by default the class's. If that names none, what fits by the cost of an item that
                `should_split_job` used, at most JOB_MAX_ITEMS_PER_CHILD.
            kwargs: other arguments of each child; by default this job's own, as far as the child takes them.
            queue: the queue of the children; by default that of their class, if it is another one and names one, else
                this job's.

        Raises:
            ConfigError: the class or the arguments cannot be used, or there is nothing to split; by ``enqueue()``: the
                job has split already in this execution. Nothing is enqueued.
            SourceError: ``data`` cannot be cut.
            RqmemError: this runs without a `rqmem.MemoryWorker`, so nobody could wait for children.
        """
        from rqmem.job import running

        run = self._monitored()
        size = checked_chunk_size(items_per_child, "items_per_child")
        size = size or self.items_per_child or self._fitting_items or running.fitting_items(run, self)
        return running.child_jobs(run, self, data, job_class, items_per_child=size, kwargs=kwargs, queue=queue)

    def split_into_child_jobs(
        self,
        data: Source[T] | Iterable[T],
        job_class: type[MemoryAwareJob] | None = None,
        items_per_child: int | None = None,
        *,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
    ) -> int:
        """`create_child_jobs`, enqueued; by default of this job's own class, whose ``handle`` takes ``items=None``.

        Returns:
            How many children there are.
        """
        children = self.create_child_jobs(data, job_class or type(self), items_per_child, kwargs=kwargs, queue=queue)
        return children.enqueue()

    @staticmethod
    def progress(job_id: str, connection: Redis | None = None) -> Progress:
        """How far a job is, with the children it has split into.

        Args:
            connection: to Redis; by default as for ``enqueue``.

        Raises:
            UnknownName: nobody knows that job.
        """
        from rqmem.connection.connect import in_bytes
        from rqmem.job.defaults import default_connection
        from rqmem.job.progress import progress

        return progress(default_connection() if connection is None else in_bytes(connection), job_id)

    def _monitored(self) -> JobRun:
        self.initialize_memory_monitoring()
        assert self._memory is not None
        return self._memory


@functools.cache
def _settings() -> frozenset[str]:
    """Names of what a class may set."""
    kinds = {**Enqueueable.__annotations__, **MemoryAwareJob.__annotations__}
    return frozenset(name for name, kind in kinds.items() if kind.startswith("ClassVar"))


accept_job_classes()
