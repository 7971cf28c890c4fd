"""The states of one execution of a job, and what follows from each event. Pure.

Two processes share an execution. The horse runs the job; its main thread alone moves the phase forward. The worker
watches, and decides how the execution goes on when the horse has reported or ended. Each of them may be stopped or
killed between any two instructions, so the phase is one number on the shared page, and each event writes one number.

    ORDERED ──> TAKEN ──> RUNNING ──> (BREACHED) ──> UNWINDING
                             │             │             │
                             └─────────────┴──────┬──────┘
                                                  v
                 DECLINED <─────────────────  SETTLING  ─────────────────> SPOILED
                    │                          │    │                         │
               ordered again                   │    └──> FAILING              │
                                               v            │            ordered again
                                              DONE <────────┘
    Any phase but DONE, when the horse has ended: LOST. The worker settles it, and it is DONE.

Under a lease (`rqmem.worker.lease`) one page serves many jobs, one after another:

    LEASED ──> TAKEN ──> RUNNING ──> SETTLING ──> FINISHED ──> TAKEN (the next job) ...
                                         └──> as above, for all but a plain success

If a horse ends in LEASED, TAKEN or FINISHED, no job was running: the job on the page has not begun, or has finished.
In any other phase the job on the page is settled like any other.

Promises, for any order of events (tests/unit/test_execution.py): an exception is raised in user code only; an
execution has one outcome, or the job is ordered again; a horse past its time limit is not killed while it only waits
for Redis. Redis and the page cannot change in one step: a horse may die after its commit and before it writes DONE.
So the worker records an outcome for a lost horse only if the execution is still unsettled in Redis
(`rqmem.worker.commit`).
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum, IntEnum, auto

from rqmem.values import dataclass

MOST_ORDERS = 3
"""A job is ordered at most this often if its horses end before they take it."""


class Phase(IntEnum):
    """How far an execution has come. The numbers are those on the shared page; an empty page says ORDERED."""

    ORDERED = 0
    """The worker has chosen a horse. Nothing of the job has begun."""
    TAKEN = 1
    """The horse has read the job."""
    RUNNING = 2
    """User code runs: the job, what it imports, and hooks before it."""
    BREACHED = 3
    """RUNNING, and the worker has found it above its ceiling. The worker writes this into a field of its own."""
    UNWINDING = 4
    """The breach signal has raised `MemoryLimitExceeded` in it."""
    SETTLING = 5
    """The job's code has ended. What becomes of the job is decided and recorded."""
    FAILING = 6
    """The failure is being recorded. Callbacks may have run, so the job does not go on elsewhere."""
    DONE = 7
    """The outcome is in Redis. What runs now are hooks."""
    DECLINED = 8
    """The horse holds too much memory for this job. The job has not begun; it is ordered from a new horse."""
    SPOILED = 9
    """The job breached because of memory that earlier jobs had left. It is ordered from a new horse."""
    LOST = 10
    """The horse has ended without an outcome. The worker records one."""
    LEASED = 11
    """A lease has begun, and no job of it has."""
    FINISHED = 12
    """Under a lease: the job is in the ring of finished jobs on the page. Redis may not have its outcome yet."""


_USER_CODE = (Phase.RUNNING, Phase.BREACHED, Phase.UNWINDING)


class Event(IntEnum):  # faster in a dict than an Enum, which Python code hashes
    """What happens to an execution. The horse reports all but BREACHED and SETTLED, which are the worker's."""

    TAKEN = auto()
    ENTERED = auto()  # user code begins: the job's, or hooks after it
    BREACHED = auto()
    SIGNALLED = auto()  # the breach signal has arrived
    LEFT = auto()  # user code has ended
    DECLINED = auto()
    SPOILED = auto()
    FAILING = auto()
    COMMITTED = auto()
    SETTLED = auto()
    LEASED = auto()  # a lease begins
    FINISHED = auto()  # under a lease the job has ended well, and its result is on the page
    RETURNED = auto()  # the lease has ended


@dataclass(frozen=True)
class Overdue:
    """The job still runs long after its time limit. ``redis_away``: a commit would have to wait."""

    redis_away: bool


@dataclass(frozen=True)
class Ended:
    """The horse has reported, or has ended.

    Attributes:
        lost: it has ended without a report.
        stopped: somebody has asked to stop this job.
        horses_fault: the job would have stayed below its ceiling in a new horse.
    """

    lost: bool
    stopped: bool = False
    horses_fault: bool = False


class Instruction(Enum):
    RAISE = auto()  # in the horse: raise `MemoryLimitExceeded`
    SIGNAL = auto()  # send the horse the breach signal
    WAIT = auto()  # give it more time
    KILL = auto()  # end the horse
    ORDER_AGAIN = auto()  # order the job from a new horse
    SETTLE = auto()  # record an outcome in the horse's place, if the execution is still unsettled
    REPORT_HOOK = auto()  # report the hook in which the horse has ended; the outcome stays
    RECORD_BREACH = auto()  # record a breach that changes nothing of the outcome
    GIVE_BACK = auto()  # after a lease: commit the finished jobs, and put back those that have not begun


@dataclass(frozen=True)
class State:
    """One execution.

    Attributes:
        phase: how far it has come.
        in_hooks: hooks run after the job. An exception may be raised in them. The phase does not change.
        breached: the worker has found it above its ceiling.
        recorded: the breach has been written to Redis.
        leased: the horse takes jobs by itself.
        orders: how many horses were asked to run it so far.
    """

    phase: Phase = Phase.ORDERED
    in_hooks: bool = False
    breached: bool = False
    recorded: bool = False
    leased: bool = False
    orders: int = 1

    @property
    def in_user_code(self) -> bool:
        """Whether an exception may be raised in the horse's main thread."""
        return in_user_code(self.phase, self.in_hooks)

    @property
    def ends_horse(self) -> bool:
        """Whether the horse must not run another job."""
        return self.breached or self.recorded or self.phase is Phase.SPOILED


Next = tuple[State, tuple[Instruction, ...]]

_STEPS = {
    (Phase.ORDERED, Event.TAKEN): Phase.TAKEN,
    (Phase.ORDERED, Event.ENTERED): Phase.RUNNING,
    (Phase.TAKEN, Event.ENTERED): Phase.RUNNING,
    (Phase.TAKEN, Event.FAILING): Phase.FAILING,
    (Phase.TAKEN, Event.COMMITTED): Phase.DONE,
    (Phase.RUNNING, Event.SIGNALLED): Phase.UNWINDING,
    (Phase.RUNNING, Event.LEFT): Phase.SETTLING,
    (Phase.RUNNING, Event.BREACHED): Phase.BREACHED,
    (Phase.BREACHED, Event.SIGNALLED): Phase.UNWINDING,
    (Phase.BREACHED, Event.LEFT): Phase.SETTLING,
    (Phase.UNWINDING, Event.LEFT): Phase.SETTLING,
    (Phase.SETTLING, Event.DECLINED): Phase.DECLINED,
    (Phase.SETTLING, Event.SPOILED): Phase.SPOILED,
    (Phase.SETTLING, Event.FAILING): Phase.FAILING,
    (Phase.SETTLING, Event.COMMITTED): Phase.DONE,
    (Phase.FAILING, Event.COMMITTED): Phase.DONE,
    (Phase.LOST, Event.SETTLED): Phase.DONE,
    (Phase.ORDERED, Event.LEASED): Phase.LEASED,
    (Phase.LEASED, Event.TAKEN): Phase.TAKEN,
    (Phase.FINISHED, Event.TAKEN): Phase.TAKEN,
    (Phase.SETTLING, Event.FINISHED): Phase.FINISHED,
    (Phase.TAKEN, Event.RETURNED): Phase.LEASED,
}
_NO_JOB_IN_HAND = (Phase.ORDERED, Phase.LEASED, Phase.TAKEN, Phase.FINISHED)


def seen(phase: Phase, breached: bool) -> Phase:
    """The phase that follows from what the horse wrote and what the worker wrote."""
    return Phase.BREACHED if breached and phase is Phase.RUNNING else phase


def in_user_code(phase: int, in_hooks: bool) -> bool:
    """As `State.in_user_code`, without building a `State`: the watcher calls it at each reading."""
    return in_hooks or phase in _USER_CODE


def after(state: State, event: Event | Overdue | Ended) -> Next:
    """The state after an event, and what to do. An event that means nothing in this state changes nothing."""
    if isinstance(event, Ended):
        return _ended(state, event)
    if isinstance(event, Overdue):
        waits = event.redis_away and not state.in_user_code
        return state, (Instruction.WAIT if waits else Instruction.KILL,)
    leaves_hooks = state.in_hooks and event is Event.LEFT
    phase = state.phase if leaves_hooks else _STEPS.get((state.phase, event), state.phase)
    new = replace(state, phase=seen(phase, state.breached))
    if event is Event.ENTERED and not new.in_user_code:
        new = replace(new, in_hooks=True)
    elif event is Event.LEFT:
        new = replace(new, in_hooks=False)
    elif event is Event.BREACHED:
        return replace(new, breached=True), (Instruction.SIGNAL,) if state.in_user_code else ()
    elif event is Event.SIGNALLED and state.in_user_code:
        return new, (Instruction.RAISE,)
    return new, ()


def _ended(state: State, end: Ended) -> Next:
    if state.leased:
        return _lease_ended(state, end)
    lost = end.lost or state.in_user_code  # a horse for one job may exit with code 0 in the middle of the job
    if state.phase is Phase.DONE:
        if lost:
            return replace(state, in_hooks=False), (Instruction.REPORT_HOOK,)
        return state, (Instruction.RECORD_BREACH,) if state.breached else ()
    if not end.stopped:
        killed_for_others = lost and state.in_user_code and state.breached and end.horses_fault
        if state.phase is Phase.SPOILED or killed_for_others:
            return _again(replace(state, phase=Phase.SPOILED))
        if state.phase is Phase.DECLINED or (state.phase is Phase.ORDERED and lost and state.orders < MOST_ORDERS):
            return _again(state)
    if lost or state.phase in (Phase.DECLINED, Phase.SPOILED):
        return replace(state, phase=Phase.LOST, in_hooks=False), (Instruction.SETTLE,)
    return replace(state, phase=Phase.DONE), (Instruction.RECORD_BREACH,) if state.breached else ()


def _lease_ended(state: State, end: Ended) -> Next:
    """As `_ended`, for a lease. If the horse is lost, the other jobs that it had taken are given back first."""
    give_back = (Instruction.GIVE_BACK,) if end.lost else ()
    if state.phase in _NO_JOB_IN_HAND or (state.phase is Phase.DONE and not state.in_hooks):
        has_ended = state.phase in (Phase.FINISHED, Phase.DONE)
        also = (Instruction.RECORD_BREACH,) if state.breached and has_ended else ()
        if state.in_hooks and end.lost:
            also = (Instruction.REPORT_HOOK,)
        return replace(state, phase=Phase.DONE, leased=False, in_hooks=False), (*give_back, *also)
    new, instructions = _ended(replace(state, leased=False), end)
    return new, (*give_back, *instructions)


def _again(state: State) -> Next:
    return replace(state, in_hooks=False), (Instruction.ORDER_AGAIN,)


def ordered_again(state: State) -> State:
    """The state of the same execution in the next horse."""
    return State(orders=state.orders + (state.phase is Phase.ORDERED))
