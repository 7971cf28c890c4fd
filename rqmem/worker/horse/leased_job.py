"""What a job is under a lease: which ones may be, what `rq.get_current_job` gives them, and the hooks around them."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from rqmem.rq_names import UNEVALUATED, Job
from rqmem.store.executions import made_at, opening
from rqmem.store.held_run import opening as opening_text
from rqmem.store.history.history_records import OK
from rqmem.type_of_job import type_of_path
from rqmem.worker.horse.user_code import Horse

if TYPE_CHECKING:
    from rqmem.worker.horse.hook_runner import Hooking
    from rqmem.worker.shared_memory import SharedPage


_SEVERAL_SECONDS = 0.1
_HOOK_SECONDS = 5
_LAST_SECONDS = 90  # more than any hook has


class LeasedType(NamedTuple):
    """What is known of a job type from its last ordinary execution in this horse.

    Attributes:
        job_type: its name.
        module, names: where its function is: ``names`` are attributes, of the module and of one another.
        ceiling_bytes: that its job had at the end.
        record: of a memory-aware job: its name, its ``on_breach`` and its ``escalate_to``, as the record of a run has
            them; empty for others.
    """

    job_type: str
    module: str
    names: tuple[str, ...]
    ceiling_bytes: int
    record: tuple[str, ...]

    def function(self) -> Callable[..., Any] | None:
        """As it is now."""
        found: Any = sys.modules.get(self.module)
        for name in self.names:
            found = getattr(found, name, None)
        return found if callable(found) else None

    def opening(self, created_at: bytes, execution_id: bytes) -> bytes:
        """What the record of a run begins with, for `rqmem.store.lease_commands.pack_begins`; empty: it has none."""
        if not self.record:
            return b""
        job, on_breach, escalate_to = self.record
        return opening_text(opening(job, on_breach, escalate_to, made_at(created_at), execution_id.decode()))


class Types:
    """Job types that have run in this horse as ordinary executions, and may run under a lease."""

    def __init__(self) -> None:
        self._paths: dict[str, LeasedType] = {}

    def ran(self, job: Job, page: SharedPage) -> None:
        """An ordinary execution has ended: if well, such jobs may be leased from now on."""
        path = job.func_name or ""
        self.forget(path)
        if page.outcome != OK or job.instance is not None:
            return
        record = tuple(page.opening.split("\n")) if page.opening else ()
        module, names = _place(path)
        found = LeasedType(type_of_path(path), module, names, page.ceiling_bytes, record)
        if found.function() is not None:
            self._paths[path] = found

    def find(self, path: str) -> LeasedType | None:
        return self._paths.get(path)

    def forget(self, path: str) -> None:
        self._paths.pop(path, None)


def _place(path: str) -> tuple[str, tuple[str, ...]]:
    """The imported module in which this is, and the names from there on: it may be in a class."""
    module, dot, name = path.rpartition(".")
    names: tuple[str, ...] = (name,)
    while dot and module not in sys.modules:
        module, dot, name = module.rpartition(".")
        names = (name, *names)
    return module, names


class LeasedJob(Job):
    """What `rq.get_current_job` gives under a lease: read from Redis when more than its id and its call is touched.

    From then on RQ shows the job as running, so that its status and its heartbeat are true for the job's own code.
    """

    _func_name = _instance = _args = _kwargs = UNEVALUATED

    @classmethod
    def new(
        cls, job_id: str, queue: str, timeout: int, data: bytes, serializer: Any, fetch: Callable[[], Job]
    ) -> LeasedJob:
        """``data``: RQ's, not compressed. ``fetch`` reads the job."""
        job = cls.__new__(cls)
        job.__dict__ = {
            "_id": job_id, "serializer": serializer, "origin": queue, "timeout": timeout, "_data": data,
            "_rqmem_fetch": fetch,
        }  # fmt: skip
        return job

    def __eq__(self, other: object) -> bool:  # RQ's asks whether the other one is of this class, too
        return isinstance(other, Job) and self.id == other.id

    __hash__ = Job.__hash__

    @property
    def rqmem_was_read(self) -> bool:
        return "_rqmem_fetch" not in vars(self)

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__
        fetch = values.pop("_rqmem_fetch", None)
        if fetch is None:
            raise AttributeError(f"'Job' object has no attribute {name!r}", name=name, obj=self)
        read = vars(fetch()).copy()
        values.update({**read, **values})
        values["_rqmem_before"] = {**read, "timeout": values["timeout"]}
        return getattr(self, name)

    def rqmem_was_changed(self) -> bool:
        """Whether the job's code has set attributes of it that RQ writes with its outcome."""
        values = vars(self)
        if not self.rqmem_was_read:
            if values.keys() <= _NOT_SAVED:
                return False
            self.__getattr__("created_at")  # reads the job
        before = values["_rqmem_before"]
        return any(name not in _NOT_SAVED and before.get(name) != value for name, value in values.items())


# Of a job's attributes: what RQ does not write with its outcome, or writes by itself.
_NOT_SAVED = frozenset({
    "_id", "serializer", "origin", "timeout", "_data", "_rqmem_fetch", "_rqmem_before", "connection", "meta", "perform",
    "_func_name", "_instance", "_args", "_kwargs", "_result", "_exc_info", "_cached_result", "_status",
    "_unreadable_meta", "redis_server_version", "last_heartbeat", "started_at", "worker_name",
})  # fmt: skip


class HeldOf:
    """The place on the page for the record of the run in hand: `rqmem.store.held_run.RecordSlot`."""

    def __init__(self, page: SharedPage) -> None:
        self._page = page

    @property
    def wanted(self) -> bool:
        return self._page.shown_seq == self._page.seq

    def write(self, data: bytes) -> bool:
        return self._page.held.write(data)

    def clear(self) -> None:
        self._page.held.clear()


class JobHooks:
    """Hooks and integrations around the jobs of a lease.

    Args:
        call: calls hooks within the ceiling and a time limit: the job's horse, seconds, what to call.

    Attributes:
        around_each: there are some before or after each job. They determine the pace then.
        await_outcome: of those, some may look at the job's outcome.
    """

    def __init__(
        self,
        page: SharedPage,
        hooking: Hooking,
        after_job: Callable[[Hooking, Horse, Job, float], None],
        call: Callable[[Horse, int, Callable[[], None]], None],
    ) -> None:
        self._page = page
        self._hooking = hooking
        self._after_job = after_job
        self._call = call
        self.around_each = hooking.each_job(page)
        self.await_outcome = hooking.awaits_outcome
        self._after_several = hooking.after_several
        self._called_at = time.monotonic()

    def before(self, job: Job, queue: str) -> None:
        """In the job's own code."""
        if self.around_each:
            self._hooking.new_job(self._page, job, queue)
            self._hooking.before(self._page, job)

    def after(self, here: Horse, job: Job, outcome: str) -> None:
        """The job has ended."""
        page = self._page
        if self.around_each:
            worked = time.monotonic() - page.started_at
            before, page.outcome = page.outcome, outcome
            self._guarded(lambda: self._after_job(self._hooking, here, job, worked))
            page.outcome = before
        if self._after_several and time.monotonic() - self._called_at >= _SEVERAL_SECONDS:
            self.after_several(here)

    def after_several(self, here: Horse) -> None:
        """Those after several jobs."""
        if self._after_several:
            self._guarded(lambda: self._call(here, _HOOK_SECONDS, lambda: self._hooking.after_jobs(self._page)))
            self._called_at = time.monotonic()

    def _guarded(self, call: Callable[[], None]) -> None:
        """The time limit of the job is none of theirs, which have their own; who ignores that is killed in the end."""
        page = self._page
        page.started_at = time.monotonic()
        page.limit_seconds = _LAST_SECONDS
        handler = signal.getsignal(signal.SIGALRM)
        call()
        signal.signal(signal.SIGALRM, handler)
        page.started_at = 0.0
