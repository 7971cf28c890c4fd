"""The horse's side: where user code begins and ends, and what the watcher's signal does there.

`MemoryLimitExceeded` may be raised only between entry to and exit from user code. Raised anywhere
else, inside RQ's commit say, it would leave a job both finished and failed; there the handler does
nothing, and the kill at reserve or grace decides. Job code asks `current()` for the horse it runs in;
without a `MemoryWorker` there is none.
"""

from __future__ import annotations

import contextlib
import gc
import linecache
import os
import random
import signal
import sys
import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rqmem.config import Config
from rqmem.errors import MemoryLimitExceeded
from rqmem.events import Breach
from rqmem.runtime import linux
from rqmem.runtime.page import SharedPage

if TYPE_CHECKING:
    from redis import Redis

BREACH_SIGNAL = signal.SIGRTMIN + 11  # free of glibc's own, and of SIGRTMIN, which RQ's HerokuWorker uses
SAMPLE_SIGNAL = signal.SIGRTMIN + 12
MARK = "RQMEM_EXECUTION"

_current: Horse | None = None


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
    told_of_cut: frozenset[str] = frozenset()  # job types whose cut ceiling this worker has told of


def current() -> Horse | None:
    """The horse this process is, while it runs a job of a `MemoryWorker`; else None."""
    return _current


def settle_in(worker_pid: int) -> None:
    """First thing in a new horse: tied to its worker's life, signals in place."""
    linux.die_with_parent()
    if os.getppid() != worker_pid:  # it died before we asked to die with it
        os._exit(1)
    gc.enable()
    install_signal_handlers()


def install_signal_handlers() -> None:
    """Before each job: the one before may have left its own."""
    signal.signal(BREACH_SIGNAL, _on_breach_signal)
    signal.siginterrupt(BREACH_SIGNAL, True)
    signal.signal(SAMPLE_SIGNAL, _on_sample_signal)
    signal.siginterrupt(SAMPLE_SIGNAL, False)  # system calls of C clients go on
    signal.signal(signal.SIGTERM, _leave_it_to_the_worker(os.getpid()))
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_user_code(horse: Horse, call: Callable[[], Any]) -> Any:
    """Run ``call`` as user code: only in here may the watcher's signal raise."""
    global _current  # one horse runs one job at a time
    _current = horse
    page = horse.page
    pid = os.getpid()
    random.seed()
    os.environ[MARK] = horse.execution_id
    try:
        try:
            page.in_user_code = True
            return call()
        finally:
            _leave_user_code(page, pid)
    except MemoryLimitExceeded as error:
        traceback.clear_frames(error.__traceback__)  # else the dead frames keep the memory alive
        raise
    finally:
        _leave_user_code(page, pid)  # again: a signal may have raised inside the first finally
        _current = None


def _leave_user_code(page: SharedPage, horse_pid: int) -> None:
    """From here on nothing may raise. A child that the job forked and let return ends: it must not commit."""
    if os.getpid() == horse_pid:
        page.in_user_code = False
        return
    error = sys.exc_info()[1]
    code = error.code if isinstance(error, SystemExit) else int(error is not None)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _on_breach_signal(number: int, frame: FrameType | None) -> None:
    horse = _current
    if horse is None or not horse.page.in_user_code or _is_unwinding():
        return
    signal.alarm(0)  # the job's time limit must not cut its unwinding short
    breach = Breach.from_json(horse.page.breach_json)
    breach = replace(breach, where=described(line_of_user_code(frame)))
    horse.page.breach_json = breach.to_json()
    raise MemoryLimitExceeded(breach)


def _on_sample_signal(number: int, frame: FrameType | None) -> None:
    """Memory grew: say where. Runs while the job does, so it does as little as it can."""
    horse = _current
    if horse is not None and horse.page.in_user_code:
        horse.page.add_sample(line_of_user_code(frame))


def _is_unwinding() -> bool:
    """Whether the interrupted code handles our exception already (a ``finally`` of the job, say)."""
    error = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, MemoryLimitExceeded):
            return True
        error = error.__context__
    return False


def line_of_user_code(frame: FrameType | None) -> str:
    """``line:function:path`` of the innermost frame outside Python's library and rqmem; see `described`."""
    innermost = frame
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_USER_CODE):
        frame = frame.f_back
    frame = frame or innermost
    return f"{frame.f_lineno}:{frame.f_code.co_name}:{frame.f_code.co_filename}" if frame is not None else ""


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


_NOT_USER_CODE = (
    "<",
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(Path(__file__).parents[1]),
)


def _leave_it_to_the_worker(horse_pid: int) -> Callable[[int, FrameType | None], None]:
    """A SIGTERM handler: systemd sends SIGTERM to the whole group, the worker decides for its horse.

    A handler and not SIG_IGN, which what the job executes would inherit; processes the job forks get
    SIGTERM's default action back, so that `multiprocessing` can end them.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != horse_pid:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    return handle
