"""Where user code begins and ends in the horse, and the handler of the watcher's breach signal.

`MemoryLimitExceeded` is raised in user code only. Anywhere else, for example inside RQ's commit, it could leave a job
both finished and failed. There the handler does nothing: the worker kills the horse if it passes its reserve or its
grace time. Code in a job gets its horse from `current()`; without a `MemoryWorker` there is none.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # ten times as fast as `signal`, which makes enums
import contextlib
import gc
import os
import random
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FrameType
from typing import Any, TypeVar

from redis import Redis

from rqmem.config.settings import Config
from rqmem.errors import MemoryLimitExceeded, RqmemError, breach_in
from rqmem.events import Breach
from rqmem.measure import linux, procfs
from rqmem.measure.own_process import Meter
from rqmem.measure.trim import trim
from rqmem.rq_names import BaseTimeoutException
from rqmem.store import codec
from rqmem.store.executions import made_at
from rqmem.store.held_run import HeldRun
from rqmem.store.retrying import until_redis_answers
from rqmem.units import to_mb
from rqmem.values import dataclass, field
from rqmem.worker.execution import Event, Instruction
from rqmem.worker.horse import environment, object_kinds, source_lines
from rqmem.worker.horse.source_lines import described, described_line, is_users, line_of_user_code
from rqmem.worker.horse.swallowed_breaches import Raised, is_judging
from rqmem.worker.kernel import HorseGroup
from rqmem.worker.shared_memory import SharedPage

T = TypeVar("T")

_FIRST_REAL_TIME = getattr(signal, "SIGRTMIN", 34)  # macOS has none, and no worker of ours
BREACH_SIGNAL = _FIRST_REAL_TIME + 11  # glibc and RQ's HerokuWorker (SIGRTMIN) use lower ones
SAMPLE_SIGNAL = _FIRST_REAL_TIME + 12
SNAPSHOT_SIGNAL = _FIRST_REAL_TIME + 13  # handled by `rqmem.worker.horse.self_report`
MARK = "RQMEM_EXECUTION"
_LEFT_TO_THE_WORKER = (signal.SIGTERM, signal.SIGUSR2)

_MARK = environment.Again(MARK)
_ENTERED, _LEFT = Event.ENTERED, Event.LEFT  # a member's look-up takes 0.1 us in Python 3.11: 1 % of a short job
_current: Horse | None = None
_in_hook = False
_FREED_FRACTION = 0.75
_UNKNOWN_BYTES = 1
_taking_evidence = False


@dataclass(frozen=True)
class Horse:
    """One execution as the horse sees it."""

    page: SharedPage
    config: Config
    connection: Redis
    serializer: Any
    job_id: str
    created_at: bytes  # when the job was created, as RQ writes it
    execution_id: str
    queue: str
    worker: str
    group: HorseGroup | None = None
    told_of_cut: frozenset[str] = frozenset()  # job types for which it was logged that their ceiling is cut
    leased: bool = False
    held: HeldRun | None = None  # under a lease: the record of the job's run
    meter: Meter | None = None  # under a lease: one meter for all its jobs
    brief: bool = False  # emit no events for a short run that ends well
    raised: Raised = field(default_factory=lambda: new_raised())

    @classmethod
    def like(cls, values: dict[str, Any]) -> Horse:
        """As ``Horse(**values)``, in a fifth of the time. ``values`` must have all fields."""
        here = cls.__new__(cls)
        object.__setattr__(here, "__dict__", values)  # it is frozen
        return here

    @property
    def job_created_at(self) -> str:
        """``created_at`` in the format of the record of a run."""
        return made_at(self.created_at)

    def ask(self, purpose: str, call: Callable[..., T], *args: Any) -> T:
        """``call(connection, job id, *args)``, once Redis answers. The log names the ``purpose`` and the job.

        Under a lease the record of the job's run is written first, if Redis does not have it yet.
        """
        if self.held is not None:
            self.held.write()
        return until_redis_answers(lambda: call(self.connection, self.job_id, *args), f"{purpose} of job {self.job_id}")

    def set_ceiling(self, ceiling_bytes: int) -> None:
        """The job's ceiling from now on, for the watcher and for the kernel."""
        self.page.ceiling_bytes = ceiling_bytes
        if self.group is not None:
            self.group.hold(ceiling_bytes)


def new_raised() -> Raised:
    return Raised(described_line, is_users)


def most_resident_kb() -> int:
    """The most memory resident in this process, in KB, since the worker reset the mark. Takes a microsecond."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def current() -> Horse | None:
    """This process as a `Horse` while a job of a `MemoryWorker` runs; otherwise, and in hooks, None."""
    return None if _in_hook else _current


@contextlib.contextmanager
def hook_runs() -> Iterator[None]:
    """Within this block `current` is None: a memory-aware function that a hook calls is not part of the job."""
    global _in_hook
    _in_hook = True
    try:
        yield
    finally:
        _in_hook = False


def settle_in(worker_pid: int, group: HorseGroup | None, preloaded: tuple[str, ...]) -> None:
    """Called first in a new horse. It dies with its worker from here on, is in its cgroup, and has our handlers."""
    object_kinds.begin(preloaded)
    linux.die_with_parent()
    if os.getppid() != worker_pid:  # the worker died before `die_with_parent`
        os._exit(1)
    if group is not None:
        group.enter()
    source_lines.read_no_pipes()
    procfs.own_held_bytes()  # opens the file now: the breach handler may be unable to
    gc.enable()
    os.register_at_fork(after_in_child=_give_forks_their_signals)
    install_signal_handlers()


def install_signal_handlers() -> None:
    """Called before each job, since the one before may have replaced them."""
    _signal.signal(BREACH_SIGNAL, _on_breach_signal)
    _signal.siginterrupt(BREACH_SIGNAL, True)
    _signal.signal(SAMPLE_SIGNAL, _on_sample_signal)
    _signal.siginterrupt(SAMPLE_SIGNAL, False)  # restarts interrupted system calls of C libraries
    for number in _LEFT_TO_THE_WORKER:
        _signal.signal(number, _leave_it_to_the_worker)
    _signal.signal(signal.SIGINT, _signal.SIG_IGN)


def run_user_code(horse: Horse, call: Callable[[], Any]) -> Any:
    """Run ``call`` as user code: the breach signal may raise only in here. Returns what ``call`` returns.

    If ``call`` swallowed a breach, the breach is raised instead of its result or its error.
    """
    global _current  # one horse runs one job at a time
    _current = horse
    page, raised = horse.page, horse.raised
    pid = raised.pid
    source_lines.runs_in(page)
    if horse.leased:  # the first job of the lease has seeded `random`
        _MARK.put(horse.execution_id.encode())
    else:
        random.seed()
        environment.put(MARK, horse.execution_id)
    try:
        try:
            page.advance(_ENTERED)
            raised.forget()
            try:
                result = call()
            except (BaseTimeoutException, RqmemError):
                raise
            except Exception:
                raised.check()
                raise
            raised.check()
        finally:
            _leave_user_code(page, pid)
        page.breach_known = raised.knew
        return result
    except BaseException as error:
        if (breach := breach_in(error)) is not None:
            traceback.clear_frames(breach.__traceback__)  # otherwise their local variables keep the memory
        raise
    finally:
        if page.in_user_code:  # a signal has raised within the inner finally
            _leave_user_code(page, pid)
        _current = None


def _leave_user_code(page: SharedPage, horse_pid: int) -> None:
    """Mark the end of user code. A child that the job forked, and that returns to here, exits: it must not commit."""
    if os.getpid() == horse_pid:
        page.advance(_LEFT)
        return
    error = sys.exc_info()[1]
    code = error.code if isinstance(error, SystemExit) else int(error is not None)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _on_breach_signal(number: int, frame: FrameType | None) -> None:
    global _taking_evidence
    horse = _current
    if horse is None or not horse.page.in_user_code or not horse.page.is_breach_signal_due:
        return
    if _taking_evidence or is_judging(frame) or _is_unwinding():
        return
    _taking_evidence = True  # another breach signal may come meanwhile
    try:
        if horse.raised.is_on_its_way(horse.page.usage_bytes) or _has_freed(horse):
            return
        signal.alarm(0)  # the job's time limit must not cut its unwinding short
        breach = _evidence(horse, frame)
    finally:
        _taking_evidence = False
    if Instruction.RAISE in horse.page.advance(Event.SIGNALLED):
        raise horse.raised.new(MemoryLimitExceeded(breach), horse.page.usage_bytes)


def _evidence(horse: Horse, frame: FrameType | None) -> Breach:
    """The breach as the worker wrote it, plus the line and the object kinds. An error in a step skips that step."""
    page = horse.page
    breach = Breach(
        job=page.job, job_id=horse.job_id, queue=horse.queue, worker=horse.worker,
        used_mb=to_mb(page.usage_bytes), limit_mb=to_mb(page.ceiling_bytes), peak_mb=to_mb(page.peak_bytes),
        layer="watch", processes=1, operation=page.operation,
    )  # fmt: skip
    steps: tuple[Callable[[Breach], Breach], ...] = (
        lambda breach: codec.from_json(Breach, page.breach_json),
        lambda breach: replace(breach, where=described(line_of_user_code(frame))),
        lambda breach: replace(breach, kinds=object_kinds.kinds_that_grew(frame, horse.config)),
    )
    for step in steps:
        with contextlib.suppress(Exception):  # no memory or no file descriptor is left, for example
            breach = step(breach)
            page.breach_json = codec.to_json(breach)  # kept in case the next step gets this process killed
    return breach


def _on_sample_signal(number: int, frame: FrameType | None) -> None:
    """Memory grew: note the job's current line on the page. It interrupts the job, so it does little."""
    horse = _current
    if horse is not None and horse.page.in_user_code:
        horse.page.add_sample(line_of_user_code(frame), resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw)


def _has_freed(horse: Horse) -> bool:
    """Whether the job freed much memory since its first breach signal. Then this signal came too late."""
    page = horse.page
    if page.held_at_breach == 0:
        page.held_at_breach = _held_bytes() or _UNKNOWN_BYTES
        return False
    for free in (trim, gc.collect, trim):  # event loops leave reference cycles
        free()
        held = _held_bytes()
        if held == 0 or page.held_at_breach == _UNKNOWN_BYTES:
            return page.usage_bytes <= page.ceiling_bytes  # as the watcher read it last
        if held < _FREED_FRACTION * page.held_at_breach:
            return True
    return False


def _held_bytes() -> int:
    """Bytes that this process holds; 0 if they cannot be read: the job closed the file, and no other can be opened."""
    try:
        return procfs.own_held_bytes()
    except (OSError, ValueError, IndexError):
        return 0


def _is_unwinding() -> bool:
    """Whether the interrupted code is handling our exception already (in a ``finally``, for example)."""
    return breach_in(sys.exc_info()[1]) is not None


def _leave_it_to_the_worker(number: int, frame: FrameType | None) -> None:
    """Handler of SIGTERM and SIGUSR2 that does nothing: systemd signals the whole cgroup, and the worker decides.

    It is not SIG_IGN, because programs that the job starts would inherit that.
    """


def _give_forks_their_signals() -> None:
    """Give a process that the job forks the default action of SIGTERM and SIGUSR2, so `multiprocessing` can end it.

    A handler in Python would come too late: a fork that waits for a semaphore never runs it, and
    `multiprocessing.Pool` leaves the semaphore locked when it has ended another process first.
    """
    for number in _LEFT_TO_THE_WORKER:
        if signal.getsignal(number) is _leave_it_to_the_worker:
            signal.signal(number, signal.SIG_DFL)
