"""The horse's side: where user code begins and ends, and what the watcher's signal does there.

`MemoryLimitExceeded` may be raised only between entry to and exit from user code. Raised anywhere
else, inside RQ's commit say, it would leave a job both finished and failed; there the handler does
nothing, and the kill at reserve or grace decides. Job code asks `current()` for the horse it runs in;
without a `MemoryWorker` there is none.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import linecache
import os
import random
import resource
import signal
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

from rqmem.config.settings import Config
from rqmem.errors import MemoryLimitExceeded, RqmemError, breach_in
from rqmem.events import Breach
from rqmem.measure import live_objects, procfs
from rqmem.measure.trim import trim
from rqmem.rq_names import BaseTimeoutException
from rqmem.store import codec
from rqmem.units import to_bytes, to_mb
from rqmem.worker import linux
from rqmem.worker.execution import Event, Instruction
from rqmem.worker.horse import environment
from rqmem.worker.horse.swallowed_breaches import Raised, is_judging
from rqmem.worker.shared_memory import SharedPage

if TYPE_CHECKING:
    from redis import Redis

    from rqmem.worker.kernel import HorseGroup

_FIRST_REAL_TIME = getattr(signal, "SIGRTMIN", 34)  # macOS has none, and no worker of ours
BREACH_SIGNAL = _FIRST_REAL_TIME + 11  # free of glibc's own, and of SIGRTMIN, which RQ's HerokuWorker uses
SAMPLE_SIGNAL = _FIRST_REAL_TIME + 12
SNAPSHOT_SIGNAL = _FIRST_REAL_TIME + 13  # handled by `rqmem.worker.horse.self_report`
MARK = "RQMEM_EXECUTION"
_LEFT_TO_THE_WORKER = (signal.SIGTERM, signal.SIGUSR2)

_current: Horse | None = None
_in_hook = False
_EVIDENCE_FRACTION = 0.22  # of the reserve, 7 MB by default: the rest is for unwinding
_FREED_FRACTION = 0.75
_UNKNOWN_BYTES = 1
_SHOWN_KINDS = 5
_KINDS_OF_A_SNAPSHOT = 15
_SHOWN_KIND_MB = 0.5
_SHOWN_KINDS_OF_A_LEAK = 5
_kinds_before: live_objects.Kinds = {}
_kept: live_objects.Kinds = {}
_kept_at_first: live_objects.Kinds | None = None
_modules_at_first = 0
_preloaded: tuple[str, ...] = ()
_taking_evidence = False


@dataclass(frozen=True)
class Horse:
    """One execution as the horse sees it."""

    page: SharedPage
    config: Config
    connection: Redis
    serializer: Any
    job_id: str
    job_created_at: str
    execution_id: str
    queue: str
    worker: str
    group: HorseGroup | None = None
    told_of_cut: frozenset[str] = frozenset()  # job types whose cut ceiling this worker has told of
    raised: Raised = field(default_factory=lambda: Raised(_described_line, _is_users))

    def set_ceiling(self, ceiling_bytes: int) -> None:
        """The job's ceiling from now on, for the watcher and for the kernel."""
        self.page.ceiling_bytes = ceiling_bytes
        if self.group is not None:
            self.group.hold(ceiling_bytes)


def most_resident_kb() -> int:
    """The most that was resident in this process since its worker set the mark back, in a microsecond."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def current() -> Horse | None:
    """The horse this process is, while it runs a job of a `MemoryWorker`; else None, in hooks too."""
    return None if _in_hook else _current


@contextlib.contextmanager
def hook_runs() -> Iterator[None]:
    """What runs in here is no job: a memory-aware function that a hook calls is none of the job's run."""
    global _in_hook
    _in_hook = True
    try:
        yield
    finally:
        _in_hook = False


def inherited(module: str) -> bool:
    """Whether the worker had imported it already when it forked this horse."""
    return module in islice(sys.modules, _modules_at_first)


def settle_in(worker_pid: int, group: HorseGroup | None, preloaded: tuple[str, ...]) -> None:
    """First thing in a new horse: tied to its worker's life, in its cgroup, signals in place."""
    global _modules_at_first, _preloaded
    _modules_at_first, _preloaded = len(sys.modules), preloaded
    linux.die_with_parent()
    if os.getppid() != worker_pid:  # it died before we asked to die with it
        os._exit(1)
    if group is not None:
        group.enter()
    procfs.own_held_bytes()  # opens what the breach's handler reads: later that may be impossible
    gc.enable()
    os.register_at_fork(after_in_child=_give_forks_their_signals)
    install_signal_handlers()


def install_signal_handlers() -> None:
    """Before each job: the one before may have left its own."""
    signal.signal(BREACH_SIGNAL, _on_breach_signal)
    signal.siginterrupt(BREACH_SIGNAL, True)
    signal.signal(SAMPLE_SIGNAL, _on_sample_signal)
    signal.siginterrupt(SAMPLE_SIGNAL, False)  # system calls of C clients go on
    for number in _LEFT_TO_THE_WORKER:
        signal.signal(number, _leave_it_to_the_worker)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_user_code(horse: Horse, call: Callable[[], Any]) -> Any:
    """Run ``call`` as user code: only in here may the watcher's signal raise."""
    global _current  # one horse runs one job at a time
    _current = horse
    page = horse.page
    pid = os.getpid()
    random.seed()
    environment.put(MARK, horse.execution_id)
    try:
        try:
            page.advance(Event.ENTERED)
            result = _unless_swallowed(horse, call)
        finally:
            _leave_user_code(page, pid)
        page.breach_known = horse.raised.knew
        return result
    except BaseException as error:
        if (breach := breach_in(error)) is not None:
            traceback.clear_frames(breach.__traceback__)  # else the dead frames keep the memory alive
        raise
    finally:
        _leave_user_code(page, pid)  # again: a signal may have raised inside the first finally
        _current = None


def _unless_swallowed(horse: Horse, call: Callable[[], Any]) -> Any:
    """What ``call`` returns. A breach that somebody swallowed in it is raised instead, also in place of its error."""
    horse.raised.forget()
    try:
        result = call()
    except (BaseTimeoutException, RqmemError):
        raise
    except Exception:
        horse.raised.check()
        raise
    horse.raised.check()
    return result


def _leave_user_code(page: SharedPage, horse_pid: int) -> None:
    """From here on nothing may raise. A child that the job forked and let return ends: it must not commit."""
    if os.getpid() == horse_pid:
        page.advance(Event.LEFT)
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
    if horse is None or not horse.page.in_user_code or _taking_evidence or is_judging(frame) or _is_unwinding():
        return
    _taking_evidence = True  # another signal may come meanwhile
    try:
        if _has_freed(horse):
            return
        signal.alarm(0)  # the job's time limit must not cut its unwinding short
        breach = _evidence(horse, frame)
    finally:
        _taking_evidence = False
    if Instruction.RAISE in horse.page.advance(Event.SIGNALLED):
        raise horse.raised.new(MemoryLimitExceeded(breach))


def _evidence(horse: Horse, frame: FrameType | None) -> Breach:
    """The breach as the worker wrote it down, and what can be seen from in here. No error in here may hide it."""
    page = horse.page
    breach = Breach(
        job=page.job, job_id=horse.job_id, queue=horse.queue, worker=horse.worker,
        used_mb=to_mb(page.usage_bytes), limit_mb=to_mb(page.ceiling_bytes), peak_mb=to_mb(page.peak_bytes),
        layer="watch", processes=1, operation=page.operation,
    )  # fmt: skip
    steps: tuple[Callable[[Breach], Breach], ...] = (
        lambda breach: codec.from_json(Breach, page.breach_json),
        lambda breach: replace(breach, where=described(line_of_user_code(frame))),
        lambda breach: replace(breach, kinds=kinds_that_grew(frame, horse.config)),
    )
    for step in steps:
        with contextlib.suppress(Exception):  # no file can be opened, no memory is left, ...
            breach = step(breach)
            page.breach_json = codec.to_json(breach)  # should the next step take too much
    return breach


def remember_kinds() -> None:
    """What this horse holds between jobs; later `kinds_that_grew` and `kinds_that_stay` tell what came since."""
    global _kinds_before, _kept, _kept_at_first
    _kinds_before = live_objects.kinds()
    _kept = live_objects.kinds(modules=_modules_of_jobs())
    if _kept_at_first is None:
        _kept_at_first = _kept


def _modules_of_jobs() -> list[ModuleType]:
    """Those imported in this horse, latest first, and those preloaded for it. Others' pages are shared: hands off."""
    count = max(0, len(sys.modules) - _modules_at_first)
    found = [*islice(reversed(sys.modules.values()), count), *(sys.modules.get(name) for name in _preloaded)]
    return [module for module in found if type(module) is ModuleType]


def kinds_that_stay() -> list[tuple[str, int, float]]:
    """Types of which this horse held more when it last remembered than when it first did; as `kinds_that_grew`."""
    return _in_mb(live_objects.growth(_kept, _kept_at_first or {}), _SHOWN_KINDS_OF_A_LEAK)


def kinds_that_grew(frame: FrameType | None, config: Config) -> list[tuple[str, int, float]]:
    """Types of which the job holds more than there was before it: objects and MB, most MB first."""
    now = live_objects.kinds(frame, int(_EVIDENCE_FRACTION * to_bytes(config.reserve_mb)))
    return _in_mb(live_objects.growth(now, _kinds_before), _SHOWN_KINDS)


def kinds_by_now() -> list[tuple[str, int, float]]:
    """Types of which this horse holds more than when it last remembered; for one that goes on living."""
    grown = live_objects.growth(live_objects.kinds(), _kinds_before)
    return [(name, objects, round(to_mb(size), 2)) for name, objects, size in grown[:_KINDS_OF_A_SNAPSHOT]]


def _in_mb(grown: list[tuple[str, int, int]], count: int) -> list[tuple[str, int, float]]:
    """The first of them, as far as they are worth telling."""
    shown = [(name, objects, to_mb(size)) for name, objects, size in grown[:count]]
    return [each for each in shown if each[2] >= _SHOWN_KIND_MB]


def _on_sample_signal(number: int, frame: FrameType | None) -> None:
    """Memory grew: say where. Runs while the job does, so it does as little as it can."""
    horse = _current
    if horse is not None and horse.page.in_user_code:
        horse.page.add_sample(line_of_user_code(frame))


def _has_freed(horse: Horse) -> bool:
    """Whether it was told before and has freed much since: a signal sent meanwhile has come late."""
    page = horse.page
    if page.held_at_breach == 0:
        page.held_at_breach = _held_bytes() or _UNKNOWN_BYTES
        return False
    for free in (trim, gc.collect, trim):  # event loops leave what they ran in cycles
        free()
        held = _held_bytes()
        if held == 0 or page.held_at_breach == _UNKNOWN_BYTES:
            return page.usage_bytes <= page.ceiling_bytes  # as the watcher read it last
        if held < _FREED_FRACTION * page.held_at_breach:
            return True
    return False


def _held_bytes() -> int:
    """0: the job closed the file, and no other can be opened."""
    try:
        return procfs.own_held_bytes()
    except (OSError, ValueError, IndexError):
        return 0


def _is_unwinding() -> bool:
    """Whether the interrupted code handles our exception already (a ``finally`` of the job, say)."""
    return breach_in(sys.exc_info()[1]) is not None


def line_of_user_code(frame: FrameType | None) -> str:
    """``line:function:path`` of the innermost frame outside Python's library and rqmem; see `described`."""
    innermost = frame
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_USER_CODE):
        frame = frame.f_back
    frame = frame or innermost
    return _line(frame, frame.f_lineno) if frame is not None else ""


def _line(frame: FrameType, number: int) -> str:
    return f"{number}:{frame.f_code.co_name}:{frame.f_code.co_filename}"


def _described_line(frame: FrameType, number: int) -> str:
    return described(_line(frame, number))


def _is_users(path: str) -> bool:
    return not path.startswith(_NOT_USER_CODE)


@functools.lru_cache(maxsize=256)
def described(line: str) -> str:
    """A line of code for people: ``path:line in function: source``."""
    number, _, rest = line.partition(":")
    function, _, path = rest.partition(":")
    if not number.isdigit():
        return ""
    source = linecache.getline(path, int(number)).strip()
    with contextlib.suppress(ValueError, OSError):
        path = str(Path(path).relative_to(Path.cwd()))
    return f"{path}:{number} in {function}: {source}"[:200]


def described_growth(page: SharedPage) -> list[tuple[float, str]]:
    """MB and line of code for people, most first."""
    return [(grown_mb, described(line)) for grown_mb, line in page.grew]


_NOT_USER_CODE = (
    "<",
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(Path(__file__).parents[2]),
)


def _leave_it_to_the_worker(number: int, frame: FrameType | None) -> None:
    """A handler of SIGTERM, which systemd sends to the whole group (the worker decides for its horse), and of SIGUSR2.

    A handler and not SIG_IGN, which what the job executes would inherit.
    """


def _give_forks_their_signals() -> None:
    """What the job forks has the default action of SIGTERM, so that `multiprocessing` can end it, and of SIGUSR2.

    From its first moment on: by a handler of Python it would be missed by a fork that is about to wait for a
    semaphore, which `multiprocessing.Pool` leaves locked when it ends another one first.
    """
    for number in _LEFT_TO_THE_WORKER:
        if signal.getsignal(number) is _leave_it_to_the_worker:
            signal.signal(number, signal.SIG_DFL)
