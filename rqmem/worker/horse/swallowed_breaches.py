"""Whether a breach that was raised in a job was caught by somebody who meant to.

A library that runs the job's code for it (gevent, eventlet, an event loop, a pool) may catch everything, and then the
job ends well although a part of its work was cut off. So each exception that was raised is followed to where it got:
its traceback begins with the frame that caught it. Caught knowingly is one whose catcher's code names
`MemoryLimitExceeded`; one that cut off no code of the job's own (raised in an event loop between two callbacks, say)
does not matter. Any other is raised again, at the next checkpoint or at the job's end.

No exception is kept alive here: its traceback would keep the memory alive that unwinding is to free.
"""

from __future__ import annotations

import builtins
import dis
import gc
import os
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from types import CodeType, FrameType, TracebackType

from rqmem.errors import MemoryLimitExceeded
from rqmem.events import Breach
from rqmem.units import MB
from rqmem.values import dataclass

_ON_ITS_WAY_SECONDS, _ON_ITS_WAY_BYTES = 1.0, 4 * MB
_GROUP = getattr(builtins, "BaseExceptionGroup", ())  # Python 3.11


@dataclass(frozen=True)
class _Caught:
    """Where an exception got. ``knew``: its catcher names it; ``cut``: it ended code of the job's own."""

    knew: bool
    cut: bool
    line: str = ""


class Raised:
    """The breaches raised in one run of a job, in one process.

    Attributes:
        pid: of that process.
        knew: one was caught knowingly.
    """

    def __init__(self, line_of: Callable[[FrameType, int], str], is_users: Callable[[str], bool]) -> None:
        self._line_of = line_of
        self._is_users = is_users
        self.pid = os.getpid()
        self._alive: dict[int, tuple[weakref.ref[MemoryLimitExceeded], Breach]] = {}
        self._known_groups: set[int] = set()  # of those alive
        self._swallowed: Breach | None = None
        self._raised_at, self._raised_bytes = 0.0, 0
        self.knew = False
        MemoryLimitExceeded.when_dropped = self._dropped

    def new(self, error: MemoryLimitExceeded, usage_bytes: int = 0) -> MemoryLimitExceeded:
        """An exception that is about to be raised. ``usage_bytes``: what the job uses now; 0: nobody knows."""
        global _followed
        self._alive[id(error)] = (weakref.ref(error), error.breach)
        _followed = self
        if _before_collection not in gc.callbacks:
            gc.callbacks.append(_before_collection)
        self._raised_at, self._raised_bytes = time.monotonic(), usage_bytes
        return error

    def is_on_its_way(self, usage_bytes: int) -> bool:
        """Whether the last one was raised a moment ago, somebody still has it, and the job has not grown since.

        An event loop has it between the task that it ended and the code that awaits the task. It holds the memory that
        is to be freed. A second one would hit the event loop, and not the job.
        """
        grown_bytes = usage_bytes - self._raised_bytes
        waits = grown_bytes < _ON_ITS_WAY_BYTES and time.monotonic() - self._raised_at < _ON_ITS_WAY_SECONDS
        return bool(self._alive) and waits

    def forget(self) -> None:
        self._alive.clear()
        self._known_groups.clear()
        self._swallowed, self.knew = None, False

    def check(self) -> None:
        """Raise `MemoryLimitExceeded` where one was swallowed since the last call.

        To be called where none is on its way: at a checkpoint, or after the job's code has ended well.
        """
        if (not self._alive and self._swallowed is None) or os.getpid() != self.pid:  # a fork's parent judges
            return
        for key, (alive, breach) in list(self._alive.items()):
            error = alive()
            if error is not None:
                self.look_for_groups()
                self._judge(self._look(error), breach)
            else:  # gone, and `_dropped` was cut short
                self._judge(_Caught(knew=False, cut=True), breach)
            self._alive.pop(key, None)
        self._known_groups.clear()
        swallowed, self._swallowed = self._swallowed, None
        if swallowed is not None:
            raise self.new(MemoryLimitExceeded(swallowed))

    def _dropped(self, error: MemoryLimitExceeded) -> None:
        """The last reference to it goes."""
        _, breach = self._alive.pop(id(error), (None, None))
        if breach is not None:
            caught = self._look(error)
            dropper = sys._getframe(2)  # below `__del__`
            star = _has_except_star(dropper.f_code) and _names_it(dropper)
            self._judge(replace(caught, knew=caught.knew or star), breach)

    def look_for_groups(self) -> None:
        """Note which of them are in a group of exceptions that was caught by somebody who names it."""
        for key, (alive, _) in list(self._alive.items()):
            error = alive()
            if error is not None and _group_was_known(error):
                self._known_groups.add(key)

    def _judge(self, caught: _Caught, breach: Breach) -> None:
        self.knew = self.knew or caught.knew
        if caught.cut and not caught.knew:
            self._swallowed = replace(breach, swallowed=caught.line)

    def _look(self, error: MemoryLimitExceeded) -> _Caught:
        trace = error.__traceback__
        if trace is None:
            return _Caught(knew=False, cut=True)
        line = self._line_of(trace.tb_frame, trace.tb_lineno)
        knew = id(error) in self._known_groups or _names_it(trace.tb_frame)
        return _Caught(knew, self._cuts(trace), line)

    def _cuts(self, trace: TracebackType | None) -> bool:
        while trace is not None:
            if self._is_users(trace.tb_frame.f_code.co_filename):
                return True
            trace = trace.tb_next
        return False


_followed: Raised | None = None


def _before_collection(phase: str, _: dict[str, int]) -> None:
    """The garbage collector calls it: it may drop one anywhere, when the group cannot be found any more."""
    if phase == "start" and _followed is not None and os.getpid() == _followed.pid:
        _followed.look_for_groups()


_JUDGES = (MemoryLimitExceeded.__del__.__code__, Raised.check.__code__, _before_collection.__code__)


def is_judging(frame: FrameType | None) -> bool:
    """Whether code in here runs: it holds exceptions and all that they hold, and must not be cut short by another."""
    while frame is not None:
        if frame.f_code in _JUDGES:
            return True
        frame = frame.f_back
    return False


def _names_it(frame: FrameType) -> bool:
    code = frame.f_code
    if MemoryLimitExceeded.__name__ in (*code.co_names, *code.co_varnames, *code.co_freevars, *code.co_cellvars):
        return True
    named = (frame.f_globals.get(name) for name in code.co_names)
    return any(each is MemoryLimitExceeded or (type(each) is tuple and MemoryLimitExceeded in each) for each in named)


def _has_except_star(code: CodeType) -> bool:
    return any(each.opname == "CHECK_EG_MATCH" for each in dis.get_instructions(code))


def _group_was_known(error: MemoryLimitExceeded) -> bool:
    """Whether a group of exceptions that it is in was caught by somebody who names it."""
    holders = [each for each in gc.get_referrers(error) if type(each) in (tuple, list)]
    groups = [each for each in gc.get_referrers(*holders) if isinstance(each, _GROUP)] if holders else []
    traces = [group.__traceback__ for group in groups]
    return any(trace is not None and _names_it(trace.tb_frame) for trace in traces)
