"""The shared page: memory that worker and horse both see, made before the fork, one per horse.

The horse writes where it is; the worker writes what it measured. No locks: each field has one writer at a
time, and the worker trusts texts only while the tree is stopped or dead. How far the execution has come is one
number (`rqmem.worker.execution`); the other fields are facts that do not follow from it.
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
    """The same for JSON, half of which is worth nothing: a text that is too long leaves what was there."""

    def __set__(self, page: SharedPage, text: str) -> None:
        if len(text.encode()) < _BREACH_BYTES:
            super().__set__(page, text)


class SharedPage(ctypes.Structure):
    """The page as attributes. Texts are cut to their room; a torn one is read with replacement characters.

    Attributes:
        seq: number of the job on the page, even; odd while that changes. It begins with 2. Worker: with each order;
            under a lease horse: with each job.
        shown_seq: worker: that number of the job that RQ shows as running, or will soon; 0: it was none of a lease.
        breach_seq: worker: that number of the job that was found above its ceiling last; 0: none was.
        ceiling_bytes: horse: the job's effective ceiling.
        declared_bytes: horse: what the job declared; 0 where it declared none.
        step_bytes: horse: the ceiling of ``escalate_to`` that the job has in its place; 0: it has the declared one.
        snapshot_wanted, snapshot_told: worker: number of the snapshot it asked for last; horse: that it answered last.
        samples: horse: how many samples of its stack it has taken.
        waits: horse: how often its main thread had begun to wait by the last sample.
        peak_bytes: worker: the highest usage seen; ``usage_bytes`` the last one.
        peak_seq: worker: number of the job that these readings are of; under a lease it may be one before.
        peak_sampled: worker: it had several processes, so that it may have used more between two readings.
        burst: horse: more was resident in it than when the job began, by the kernel's mark.
        chunk_peak_bytes: worker: the highest usage seen since ``chunk_peak_of`` chunks were finished.
        held_at_breach: horse: what it held itself when it was first told to unwind.
        stop_asked: worker: it is to stop as soon as it can; a job that can go on elsewhere had better.
        imported_bytes: horse: what importing the job's module took.
        in_hooks: horse's main thread: hooks run after the job.
        breached: worker: the job was found above its ceiling.
        recorded: whoever settles: the breach is in the journal, as in ``breach_json``.
        has_run: horse: the job is memory-aware, a run is kept for it. ``resumable``: it can continue from its cursor.
        fresh: worker: the horse has run no job before this one.
        gathers: horse: the job has split before, and gathers; again: RQ's Retry will run the job once more.
        held_before, left_before: worker: what the horse holds before the job, and what of it earlier jobs have left.
        need_bytes: worker: what such a job is known to take beyond that; -1: it is not known.
        capture_unwanted: worker: there is too much of it; capture_ended: horse: none is being made.
        breach_known: horse: a breach was raised in it, and the job caught it knowingly.
        hook_breached: horse: it was one of those hooks that breached.
        ends_with_hooks: horse: it has hooks to call before it ends.
        items_done: horse: items finished in the present stage, by this execution and those before.
        items_total: horse: how many the present stage has in all, plus 1; 0 where that is not known exactly.
        chunks, items, largest_chunk: horse: finished in this execution.
        event_ring: horse: the events of the job.
        job_id, execution_id, queue: worker: of the job that was ordered. Under a lease horse: of the one in hand.
        created_at: horse: under a lease, when that job was made, as Redis has it.
        leased: worker: the order is for a lease.
        waiting: horse: it waits for a job of the lease, and has none in hand.
        recalled: worker: no further job of the lease may begin, since the one in hand takes long or somebody waits.
        lease_done: horse: jobs of the lease that have ended well.
        started_at, limit_seconds: horse: when the job in hand began, on the monotonic clock, 0: there is none; its
            time limit, -1: none. began_at: the beginning in epoch seconds.
        worked_seconds: horse: how long the code of a job took that was ordered by itself, without waiting for a
            processor, or for Redis to keep records.
        finished: horse: the last jobs of the lease that have ended well.
        held: horse: the record of the run in hand, as long as Redis does not have it.
        opening: horse: what the record of such a run begins with, apart from what differs from job to job; JSON.
        job: horse: job type, a dotted path.
        tenant: horse: whose job it is; empty: nobody's.
        integrations: horse: names of those that are active in it.
        outcome: horse: how the job ended: ``ok`` or the error's name.
        operation: horse: last named place.
        line: horse: where the last sample found it.
        checkpoints: horse: the last few, with MB used.
        grew: worker: MB and line of code where usage grew, most first; lines as they were sampled.
        breach_json: worker, then horse (adds its line): the breach.
        snapshot_json: horse: what it says of itself, when it was asked.
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
        """A page that children forked from now on share with this process."""
        page = cls.from_buffer(mmap.mmap(-1, ctypes.sizeof(cls)))
        page.seq = 2
        page.ceiling_bytes = ceiling_bytes
        return page

    @property
    def wanted_bytes(self) -> int:
        """The ceiling that the job would have on a worker that allows any; 0: the worker's."""
        return self.step_bytes or self.declared_bytes

    def reset(self, ceiling_bytes: int) -> None:
        """Ready for another job. Nothing that was meant for the one before concerns it, since its number is another."""
        number = self.seq + 2
        ctypes.memset(ctypes.addressof(self), 0, ctypes.sizeof(self))
        self.seq = number
        self.ceiling_bytes = ceiling_bytes

    def begin_leased(
        self, job_id: bytes, created_at: bytes, execution_id: bytes, queue: str, job: str, limit_seconds: int
    ) -> None:
        """Horse: this job of the lease is in hand, with a number of its own."""
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
        """What the job before has written of its run."""
        self.has_run = self.resumable = self.gathers = False
        self.chunks = self.items = self.largest_chunk = self.items_done = self.items_total = 0
        self.declared_bytes = self.step_bytes = 0
        self.held.clear()
        if self._tenant:
            self._tenant = b""

    @property
    def peak_of_job(self) -> int:
        """The highest usage that the watcher saw of the present job; 0: it has not looked yet."""
        return self.peak_bytes if self.peak_seq == self.seq else 0

    @property
    def is_breach_signal_due(self) -> bool:
        """Whether it was this job that was found above its ceiling, and not one before it."""
        return self.breach_seq == self.seq

    @property
    def state(self) -> State:
        """The execution by now, as both processes have written it."""
        phase = seen(Phase(self._phase), self.breached)
        return State(phase, self.in_hooks, self.breached, self.recorded, self.leased)

    @property
    def in_user_code(self) -> bool:
        return in_user_code(self._phase, self.in_hooks)

    def advance(self, event: Event | Overdue | Ended) -> tuple[Instruction, ...]:
        """Write what follows from an event, in one store, and return what to do.

        The phase is written by the horse's main thread only, and by the worker before it forks a horse.
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
        """The job passed a checkpoint; the oldest of the kept ones goes."""
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
    """The field that an event changes, its new value, and what to do. There are few states, and many events."""
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
