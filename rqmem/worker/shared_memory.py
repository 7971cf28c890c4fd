"""The shared page: memory shared by worker and horse, one page for each horse, made before the fork.

The horse writes what it is doing; the worker writes what it measured. There are no locks: each field has one writer at
a time. The worker relies on texts only while the process tree is stopped or dead. The phase of the execution is one
number (`rqmem.worker.execution`); the other fields hold what does not follow from the phase.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import time

from rqmem.worker.event_ring import EventRing
from rqmem.worker.execution import Ended, Event, Instruction, Overdue, Phase, State, after, in_user_code, seen
from rqmem.worker.finished_jobs import FinishedJobs
from rqmem.worker.held_on_page import HeldOnPage

_BREACH_BYTES = 16384
_KEPT_CHECKPOINTS = 5
_NAME_BYTES = 256
_TAKEN = Phase.TAKEN


class _Text:
    def __init__(self, field: str) -> None:
        self._field = field

    def __get__(self, page: SharedPage, owner: type[SharedPage]) -> str:
        return page._get(self._field)

    def __set__(self, page: SharedPage, text: str) -> None:
        page._set(self._field, text)


class _Json(_Text):
    """The same for JSON, which must not be cut: a text that is too long is not written."""

    def __set__(self, page: SharedPage, text: str) -> None:
        if len(text.encode()) < _BREACH_BYTES:
            super().__set__(page, text)


class SharedPage(ctypes.Structure):
    """The page as attributes; each line names the writer first. Texts are cut to their field's size.

    Attributes:
        seq: number of the job on the page: even, odd during a change, first 2. The worker writes it with each order,
            under a lease the horse with each job.
        shown_seq: worker: `seq` of the leased job that RQ shows as running, or will soon; 0: none.
        breach_seq: worker: `seq` of the job that was last found above its ceiling; 0: none.
        ceiling_bytes: horse: the job's effective ceiling.
        declared_bytes: horse: the ceiling that the job declares; 0: none.
        step_bytes: horse: the ceiling by ``escalate_to`` that replaces the declared one; 0: none.
        snapshot_wanted, snapshot_told: worker: number of the last snapshot it asked for; horse: of the last answer.
        samples: horse: number of samples of its line of code so far.
        waits: horse: how often its main thread had begun to wait by the last sample.
        peak_bytes: worker: the highest usage seen; ``usage_bytes`` the last one.
        peak_seq: worker: `seq` of the job that these readings belong to; under a lease it may be an earlier job.
        peak_sampled: worker: the job had several processes, so it may have used more between two readings.
        burst: horse: its resident memory (the kernel's high-water mark) has grown since the job began.
        chunk_peak_bytes: worker: the highest usage seen since ``chunk_peak_of`` chunks were finished.
        held_at_breach: horse: bytes that it held itself at the first breach signal.
        stop_asked: worker: the worker is to stop, so a resumable job should stop at its next checkpoint.
        imported_bytes: horse: memory that the import of the job's module took.
        in_hooks: horse's main thread: hooks run after the job.
        breached: worker: the job was found above its ceiling.
        recorded: the process that settles: the breach in ``breach_json`` has been written to Redis.
        has_run: horse: the job is memory-aware, so it has a run record. ``resumable``: it can continue from its cursor.
        fresh: worker: the horse has run no job before this one.
        gathers: horse: the job was split, and gathers now. ``again``: horse: RQ's Retry will run the job again.
        held_before, left_before: worker: bytes the horse holds before the job; the part that earlier jobs have left.
        need_bytes: worker: bytes that such a job is known to need beyond that; -1: unknown.
        capture_unwanted: worker: the memray capture is too large; capture_ended: horse: no capture is being made.
        breach_known: horse: `MemoryLimitExceeded` was raised, and the job caught it by name.
        hook_breached: horse: a hook after the job breached, not the job.
        ends_with_hooks: horse: it has hooks to call before it ends.
        items_done: horse: items finished in the current stage, by this execution and earlier ones.
        items_total: horse: number of items of the current stage, plus 1; 0: not known exactly.
        chunks, items, largest_chunk: horse: chunks and items finished in this execution; items of the largest chunk.
        event_ring: horse: the events of the job.
        job_id, execution_id, queue: worker: of the ordered job. Under a lease, horse: of the current job.
        created_at: horse: under a lease, when the current job was created, as Redis has it.
        leased: worker: the order is for a lease.
        waiting: horse: it waits for a job of the lease.
        recalled: worker: no further job of the lease may begin.
        lease_done: horse: number of jobs of the lease that have ended well.
        started_at, limit_seconds: horse: monotonic time when the current job of a lease began, 0: there is none; its
            time limit, -1: none. began_at: horse: the same beginning in epoch seconds.
        worked_seconds: horse: seconds that the code of a job without a lease ran, without those in which it waited
            for a processor, or for Redis to write rqmem's records.
        finished: horse: ring of the last jobs of the lease that have ended well.
        held: horse: the record of the current run, until it is written to Redis.
        opening: horse: the part of such a record that is the same for all jobs of a type; JSON.
        job: horse: job type, a dotted path.
        tenant: horse: the tenant of the job; empty: none.
        integrations: horse: names of the active integrations.
        outcome: horse: how the job ended: ``ok`` or the error's name.
        operation: horse: the last named place in the job.
        line: horse: the line of code at the last sample.
        checkpoints: horse: the last few, with MB used.
        grew: worker: MB and line of code where usage grew, largest first.
        breach_json: worker, then horse (adds the line): the breach.
        snapshot_json: horse: its part of a snapshot.
    """

    seq: int
    shown_seq: int
    breach_seq: int
    ceiling_bytes: int
    declared_bytes: int
    step_bytes: int
    samples: int
    waits: int
    snapshot_wanted: int
    snapshot_told: int
    peak_bytes: int
    peak_seq: int
    usage_bytes: int
    items_done: int
    items_total: int
    chunks: int
    items: int
    largest_chunk: int
    chunk_peak_bytes: int
    chunk_peak_of: int
    held_at_breach: int
    held_before: int
    left_before: int
    need_bytes: int
    lease_done: int
    limit_seconds: int
    imported_bytes: int
    peak_sampled: bool
    burst: bool
    stop_asked: bool
    in_hooks: bool
    breached: bool
    recorded: bool
    has_run: bool
    resumable: bool
    fresh: bool
    gathers: bool
    again: bool
    breach_known: bool
    leased: bool
    waiting: bool
    recalled: bool
    capture_unwanted: bool
    capture_ended: bool
    hook_breached: bool
    ends_with_hooks: bool
    started_at: float
    began_at: float
    worked_seconds: float
    finished: FinishedJobs
    held: HeldOnPage
    event_ring: EventRing
    job_id, created_at, execution_id, queue = map(_Text, ("_job_id", "_created_at", "_execution_id", "_queue"))
    job, outcome, integrations, operation, line, tenant, opening = map(
        _Text, ("_job", "_outcome", "_integrations", "_operation", "_line", "_tenant", "_opening")
    )
    breach_json, snapshot_json = map(_Json, ("_breach_json", "_snapshot_json"))
    _queue: bytes
    _job: bytes
    _job_id: bytes
    _created_at: bytes
    _execution_id: bytes
    _operation: bytes
    _checkpoints: bytes
    _tenant: bytes

    _fields_ = [
        *((name, ctypes.c_int64) for name, kind in __annotations__.items() if kind == "int"),
        *((name, ctypes.c_bool) for name, kind in __annotations__.items() if kind == "bool"),
        ("_phase", ctypes.c_int32),
        ("started_at", ctypes.c_double),
        ("began_at", ctypes.c_double),
        ("worked_seconds", ctypes.c_double),
        ("finished", FinishedJobs),
        ("held", HeldOnPage),
        ("event_ring", EventRing),
        ("_job_id", ctypes.c_char * 256),
        ("_created_at", ctypes.c_char * 64),
        ("_execution_id", ctypes.c_char * 64),
        ("_queue", ctypes.c_char * _NAME_BYTES),
        ("_job", ctypes.c_char * _NAME_BYTES),
        ("_outcome", ctypes.c_char * 128),
        ("_integrations", ctypes.c_char * 128),
        ("_tenant", ctypes.c_char * 128),
        ("_opening", ctypes.c_char * 1024),
        ("_operation", ctypes.c_char * 256),
        ("_line", ctypes.c_char * 512),
        ("_checkpoints", ctypes.c_char * 1536),
        ("_grew", ctypes.c_char * 2048),
        ("_breach_json", ctypes.c_char * _BREACH_BYTES),
        ("_snapshot_json", ctypes.c_char * _BREACH_BYTES),
    ]

    @classmethod
    def new(cls, ceiling_bytes: int) -> SharedPage:
        """Make a page that is shared with children that are forked from now on."""
        page = cls.from_buffer(mmap.mmap(-1, ctypes.sizeof(cls)))
        page.seq = 2
        page.ceiling_bytes = ceiling_bytes
        return page

    @property
    def wanted_bytes(self) -> int:
        """The ceiling that the job wants, whatever the worker allows; 0: it wants the worker's."""
        return self.step_bytes or self.declared_bytes

    def reset(self, ceiling_bytes: int) -> None:
        """Clear the page for another job. The new `seq` makes late signals for the job before harmless."""
        number = self.seq + 2
        ctypes.memset(ctypes.addressof(self), 0, ctypes.sizeof(self))
        self.seq = number
        self.ceiling_bytes = ceiling_bytes

    def begin_leased(
        self, job_id: bytes, created_at: bytes, execution_id: bytes, queue: str, job: str, limit_seconds: int
    ) -> None:
        """In the horse: write down the next job of the lease, with a new `seq`."""
        self.seq += 1
        self._phase = _TAKEN
        self._job_id, self._created_at, self._execution_id = job_id, created_at, execution_id
        self.limit_seconds, self.began_at, self.started_at = limit_seconds, time.time(), time.monotonic()
        if self._queue != (name := _cut(queue)):
            self._queue = name
        if self._job != (name := _cut(job)):
            self._job = name
        if self._operation:
            self._operation = b""
        if self._checkpoints:
            self._checkpoints = b""
        if self.has_run:
            self._forget_run()
        self.seq += 1

    def _forget_run(self) -> None:
        """Clear what the job before has written about its run."""
        self.has_run = self.resumable = self.gathers = False
        self.chunks = self.items = self.largest_chunk = self.items_done = self.items_total = 0
        self.declared_bytes = self.step_bytes = 0
        self.held.clear()
        if self._tenant:
            self._tenant = b""

    @property
    def peak_of_job(self) -> int:
        """The highest usage that the watcher saw of the current job; 0: it has not looked yet."""
        return self.peak_bytes if self.peak_seq == self.seq else 0

    @property
    def is_breach_signal_due(self) -> bool:
        """Whether the breach is the current job's, and not an earlier job's."""
        return self.breach_seq == self.seq

    @property
    def state(self) -> State:
        """The state of the execution, from what both processes have written."""
        phase = seen(Phase(self._phase), self.breached)
        return State(phase, self.in_hooks, self.breached, self.recorded, self.leased)

    @property
    def in_user_code(self) -> bool:
        return in_user_code(self._phase, self.in_hooks)

    def advance(self, event: Event | Overdue | Ended) -> tuple[Instruction, ...]:
        """Write the change that an event makes, one field at most, and return what to do.

        Only the horse's main thread writes the phase, and the worker before it forks a horse.
        """
        if isinstance(event, Event):
            field, value, instructions = _step(self._phase, self.in_hooks, self.breached, event)
            if field:
                setattr(self, field, value)
            return instructions
        return after(self.state, event)[1]

    def add_sample(self, line: str, waits: int) -> None:
        """The horse's line of code at a sample; counted after it is written."""
        self._set("_line", line)
        self.waits = waits
        self.samples += 1

    @property
    def checkpoints(self) -> list[tuple[str, float]]:
        return [(name, float(used)) for used, _, name in map(_partition, self._lines("_checkpoints"))]

    def add_checkpoint(self, operation: str, used_mb: float) -> None:
        """Keep this checkpoint, and drop the oldest if there are too many."""
        lines = self._lines("_checkpoints")[1 - _KEPT_CHECKPOINTS :]
        name = " ".join(operation.split())[:200]
        self._set("_checkpoints", "\n".join([*lines, f"{used_mb}\t{name}"]))

    @property
    def grew(self) -> list[tuple[float, str]]:
        return [(float(grown), line) for grown, _, line in map(_partition, self._lines("_grew"))]

    @grew.setter
    def grew(self, lines: list[tuple[float, str]]) -> None:
        texts = [(grown_mb, line.replace("\n", " ")) for grown_mb, line in lines]  # a name of a file may be anything
        self._set("_grew", "\n".join(f"{grown_mb}\t{text}" for grown_mb, text in texts))

    def _lines(self, field: str) -> list[str]:
        return [line for line in self._get(field).split("\n") if line]

    def _get(self, field: str) -> str:
        raw: bytes = getattr(self, field)
        return raw.decode("utf-8", "replace")

    def _set(self, field: str, text: str) -> None:
        room = getattr(type(self), field).size
        setattr(self, field, text.encode("utf-8", "replace")[: room - 1])


@functools.cache
def _step(phase: int, in_hooks: bool, breached: bool, event: Event) -> tuple[str, int, tuple[Instruction, ...]]:
    """The field that an event changes, its new value, and what to do. Cached, since there are few combinations."""
    before = State(seen(Phase(phase), breached), in_hooks, breached)
    state, instructions = after(before, event)
    if event is not Event.BREACHED and state.phase is not before.phase:
        return "_phase", state.phase, instructions
    if state.in_hooks != before.in_hooks:
        return "in_hooks", state.in_hooks, instructions
    if state.breached != before.breached:
        return "breached", state.breached, instructions
    return "", 0, instructions


@functools.lru_cache(maxsize=256)
def _cut(name: str) -> bytes:
    return name.encode("utf-8", "replace")[: _NAME_BYTES - 1]


def _partition(line: str) -> tuple[str, str, str]:
    return line.partition("\t")
